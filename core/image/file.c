#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/image/file.h"

/* Thread model: no threads of its own.  fd, bulk, path, tail and sector never change after opening;
 * size only grows and is atomic; sync_error is guarded by sync_lock, which also makes flushes come
 * one after the other: the kernel reports a failed write-back once per descriptor, so of two
 * concurrent flushes one would not hear of it. */

struct file {
    int fd;
    struct cg_bulk *bulk; /* NULL unless the file is written */
    char *path;
    uint64_t tail;   /* bytes of zeros that follow the file's own, up to a multiple of 512 */
    uint32_t sector; /* of a device: what discards and zeroes must be aligned to */
    uint64_t size;
    pthread_mutex_t sync_lock;
    int sync_error; /* guarded by sync_lock: the errno of a failed flush, for ever */
};

/* SEEK_HOLE tells a few hundred thousand extents a second: one call must not take long. */
#define EXTENTS_MAX 4096

#define LOOK ((uint64_t)1 << 20) /* what zeroing a device looks at in one go */

/* The file's own bytes, as many as it had when it was opened. */
static uint64_t own_size(struct file *f)
{
    return f->size - f->tail;
}

static uint64_t file_original_size(void *self)
{
    return own_size(self);
}

static int shrunk(struct file *f, struct cg_error *err)
{
    struct stat st;
    uint64_t now;

    if (fstat(f->fd, &st) < 0)
        return cg_error_set(err, errno, "stat %s", f->path);
    now = (uint64_t)st.st_size;
    if (S_ISBLK(st.st_mode) && ioctl(f->fd, BLKGETSIZE64, &now) < 0)
        return cg_error_set(err, errno, "ask the size of %s", f->path);
    return cg_error_say(err, EIO, "%s shrank while it was open: it had %llu bytes and has %llu now",
                        f->path, (unsigned long long)own_size(f), (unsigned long long)now);
}

static int file_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct file *f = self;
    uint64_t own = own_size(f);
    size_t n = off < own ? (size_t)cg_min(len, own - off) : 0;
    int r = cg_pread_full(f->fd, buf, n, off);

    if (r == -ENODATA)
        return shrunk(f, err);
    if (r < 0)
        return cg_error_set(err, -r, "read %zu bytes at %llu of %s", n, (unsigned long long)off,
                            f->path);
    memset((uint8_t *)buf + n, 0, len - n);
    return 0;
}

static int file_flush(void *self, struct cg_error *err)
{
    struct file *f = self;
    CG_LOCK(&f->sync_lock);

    if (f->sync_error)
        return cg_error_set(err, f->sync_error, "an earlier flush of %s failed", f->path);
    if (fdatasync(f->fd) < 0) {
        f->sync_error = errno;
        return cg_error_set(err, errno, "flush %s", f->path);
    }
    return 0;
}

static int flush_if(struct file *f, unsigned flags, struct cg_error *err)
{
    return flags & CG_FUA ? file_flush(f, err) : 0;
}

/* FUA is a flush and not RWF_DSYNC, whose errors don't tell a failed write, which may be tried
 * again, from a failed sync, which must not. */
static int file_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                       struct cg_error *err)
{
    struct file *f = self;
    int r = flags & CG_BULK ? cg_bulk_pwrite(f->bulk, buf, len, off)
                            : cg_pwrite_full(f->fd, buf, len, off);

    if (r < 0)
        return cg_error_set(err, -r, "write %zu bytes at %llu of %s", len, (unsigned long long)off,
                            f->path);
    return flush_if(f, flags, err);
}

/* Returns 0, -ENOTSUP if the file system can't, or another -errno. */
static int allocate(struct file *f, int mode, uint64_t len, uint64_t off, const char *what,
                    struct cg_error *err)
{
    int r;

    do
        r = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        return 0;
    return cg_error_set(err, errno == ENOSYS ? EOPNOTSUPP : errno, "%s %llu bytes at %llu of %s",
                        what, (unsigned long long)len, (unsigned long long)off, f->path);
}

static int file_trim(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    int r = allocate(self, FALLOC_FL_PUNCH_HOLE, len, off, "trim", err);

    if (r < 0 && r != -EOPNOTSUPP)
        return r;
    return flush_if(self, flags, err);
}

static int file_zero(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    int mode = flags & CG_MAY_TRIM ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    int r = allocate(self, mode, len, off, "zero", err);

    return r < 0 ? r : flush_if(self, flags, err);
}

/* Adds the data or hole that begins at e->next. */
static int next_extent(struct file *f, struct cg_extents *e, struct cg_error *err)
{
    off_t data = lseek(f->fd, (off_t)e->next, SEEK_DATA);

    if (data < 0 && errno == ENXIO)
        return cg_extents_to(e, e->end, CG_HOLE, err);
    if (data < 0 && errno == EINVAL) /* a file system that doesn't know */
        return cg_extents_to(e, e->end, CG_DATA, err);
    if (data < 0)
        return cg_error_set(err, errno, "find data in %s", f->path);
    if ((uint64_t)data > e->next)
        return cg_extents_to(e, (uint64_t)data, CG_HOLE, err);
    off_t hole = lseek(f->fd, (off_t)e->next, SEEK_HOLE);
    if (hole < 0 && errno == ENXIO) /* it shrank: seen by the caller */
        return cg_extents_to(e, e->end, CG_DATA, err);
    if (hole < 0)
        return cg_error_set(err, errno, "find holes in %s", f->path);
    /* A hole was punched here between the two calls: at least this block was data. */
    uint64_t end = (uint64_t)hole > e->next ? (uint64_t)hole : e->next + 1;
    return cg_extents_to(e, end, CG_DATA, err);
}

/* lseek moves only the descriptor's offset, which nothing here uses. */
static int file_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct file *f = self;
    struct stat st;

    for (unsigned i = 0; i < EXTENTS_MAX && !cg_extents_full(e); i++) {
        int r = next_extent(f, e, err);
        if (r < 0)
            return r;
    }
    /* What lies behind the end looks like a hole. */
    if (fstat(f->fd, &st) < 0)
        return cg_error_set(err, errno, "stat %s", f->path);
    return (uint64_t)st.st_size < own_size(f) ? shrunk(f, err) : 0;
}

static uint64_t file_size(void *self)
{
    struct file *f = self;
    return f->size;
}

static void file_prefetch(void *self, uint64_t len, uint64_t off)
{
    struct file *f = self;
    posix_fadvise(f->fd, (off_t)off, (off_t)len, POSIX_FADV_WILLNEED);
}

static void file_close(void *self)
{
    struct file *f = self;

    cg_bulk_free(f->bulk);
    if (f->fd >= 0)
        close(f->fd);
    pthread_mutex_destroy(&f->sync_lock);
    free(f->path);
    free(f);
}

static const struct cg_image_ops file_ops = {
    .name = "file",
    .pread = file_pread,
    .pwrite = file_pwrite,
    .flush = file_flush,
    .trim = file_trim,
    .zero = file_zero,
    .extents = file_extents,
    .size = file_size,
    .original_size = file_original_size,
    .prefetch = file_prefetch,
    .close = file_close,
};

/* The part of a range that the device's own calls take. */
static void whole_sectors(struct file *f, uint64_t len, uint64_t off, uint64_t ret_range[2])
{
    uint64_t start = cg_round_up(off, f->sector);
    uint64_t end = cg_round_down(off + len, f->sector);

    ret_range[0] = start;
    ret_range[1] = end > start ? end - start : 0;
}

static int device_trim(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct file *f = self;
    uint64_t range[2];

    whole_sectors(f, len, off, range);
    if (range[1] > 0 && ioctl(f->fd, BLKDISCARD, range) < 0 && errno != EOPNOTSUPP)
        return cg_error_set(err, errno, "trim %llu bytes at %llu of %s", (unsigned long long)len,
                            (unsigned long long)off, f->path);
    return flush_if(f, flags, err);
}

/* Zeros for the part of a sector, before or behind the whole ones. */
static int write_edge(struct file *f, uint64_t start, uint64_t end, struct cg_error *err)
{
    static const uint8_t zeros[4096];

    while (start < end) {
        size_t n = (size_t)cg_min(end - start, sizeof zeros);
        int r = file_pwrite(f, zeros, n, start, 0, err);
        if (r < 0)
            return r;
        start += n;
    }
    return 0;
}

static int zero_out(struct file *f, uint64_t len, uint64_t off, struct cg_error *err)
{
    uint64_t range[2] = { off, len };

    if (ioctl(f->fd, BLKZEROOUT, range) < 0)
        return cg_error_set(err, errno, "zero %llu bytes at %llu of %s", (unsigned long long)len,
                            (unsigned long long)off, f->path);
    return 0;
}

/* Zeroes what doesn't read as zeros already: so a thin device stays thin. */
static int zero_data(struct file *f, uint64_t len, uint64_t off, struct cg_error *err)
{
    size_t grain = (size_t)cg_max(f->sector, 4096), have = (size_t)cg_min(len, LOOK);
    CG_CLEANUP(cg_free) uint8_t *buf = cg_bulk_buffer(have);
    int r = buf ? 0 : cg_error_set(err, ENOMEM, "zero %s", f->path);

    while (r == 0 && len > 0) {
        size_t n = (size_t)cg_min(len, have), run;
        r = file_pread(f, buf, n, off, err);
        for (size_t at = 0; r == 0 && at < n; at += run) {
            bool zeros;
            run = cg_zero_run(buf + at, n - at, grain, &zeros);
            if (!zeros)
                r = zero_out(f, run, off + at, err);
        }
        off += n;
        len -= n;
    }
    return r;
}

/* Punching is the only call that fails rather than write zeros where the device can't do better, so
 * it is what CG_FAST gets; and it may unmap.  Where there is none, as on device mapper's thin
 * volumes, zeros that are written take space. */
static int zero_sectors(struct file *f, uint64_t range[2], unsigned flags, struct cg_error *err)
{
    int r = -EOPNOTSUPP;

    if (flags & CG_MAY_TRIM)
        r = allocate(f, FALLOC_FL_PUNCH_HOLE, range[1], range[0], "zero", err);
    else if (flags & CG_FAST)
        return cg_error_say(err, EOPNOTSUPP, "%s can't zero fast and keep the space", f->path);
    if (r != -EOPNOTSUPP || (flags & CG_FAST))
        return r;
    return flags & CG_MAY_TRIM ? zero_data(f, range[1], range[0], err)
                               : zero_out(f, range[1], range[0], err);
}

static int device_zero(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct file *f = self;
    uint64_t range[2];
    int r;

    whole_sectors(f, len, off, range);
    if (range[1] == 0) {
        r = write_edge(f, off, off + len, err);
    } else {
        r = zero_sectors(f, range, flags, err);
        if (r == 0)
            r = write_edge(f, off, range[0], err);
        if (r == 0)
            r = write_edge(f, range[0] + range[1], off + len, err);
    }
    return r < 0 ? r : flush_if(f, flags, err);
}

static const struct cg_image_ops device_ops = {
    .name = "device",
    .pread = file_pread,
    .pwrite = file_pwrite,
    .flush = file_flush,
    .trim = device_trim,
    .zero = device_zero,
    .size = file_size,
    .prefetch = file_prefetch,
    .close = file_close,
};

static int measure_file(struct file *f, const struct stat *st, bool write, uint64_t *ret_size,
                        struct cg_error *err)
{
    uint64_t size = (uint64_t)st->st_size;

    f->tail = cg_round_up(size, CG_SECTOR) - size;
    if (write && f->tail)
        return cg_error_say(err, EINVAL,
                            "%s has %llu bytes, not a multiple of 512: it can only be read",
                            f->path, (unsigned long long)size);
    /* Two writers of one file are a mistake.  Where the file system knows no locks there is
     * nothing to ask. */
    if (write && flock(f->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return cg_error_say(err, EBUSY, "%s is being written by somebody else", f->path);
    *ret_size = size;
    return 0;
}

static int measure_device(struct file *f, uint64_t *ret_size, struct cg_error *err)
{
    uint64_t size;
    int sector;

    if (ioctl(f->fd, BLKGETSIZE64, &size) < 0 || ioctl(f->fd, BLKSSZGET, &sector) < 0)
        return cg_error_set(err, errno, "ask the size of %s", f->path);
    f->sector = (uint32_t)sector;
    *ret_size = size;
    return 0;
}

/* O_NONBLOCK: a FIFO must not hold us up; on what we take it means nothing. */
static int open_path(struct file *f, bool write, struct stat *ret_st, struct cg_error *err)
{
    int mode = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;

    f->fd = open(f->path, mode);
    if (f->fd < 0)
        return cg_error_set(err, errno, "open %s", f->path);
    if (fstat(f->fd, ret_st) < 0)
        return cg_error_set(err, errno, "stat %s", f->path);
    if (!write || !S_ISBLK(ret_st->st_mode))
        return 0;
    /* O_EXCL claims a device: not while it's mounted or part of another. */
    int fd = open(f->path, mode | O_EXCL);
    if (fd < 0 && errno == EBUSY)
        return cg_error_say(err, EBUSY, "%s is in use (mounted, or claimed by another program)",
                            f->path);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", f->path);
    close(f->fd);
    f->fd = fd;
    return 0;
}

/* What kind of file f->fd is, and its size. */
static int learn(struct file *f, const struct stat *st, bool write,
                 const struct cg_image_ops **ret_ops, struct cg_error *err)
{
    uint64_t size = 0;

    if (S_ISDIR(st->st_mode))
        return cg_error_set(err, EISDIR, "open %s", f->path);
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
        return cg_error_say(err, EINVAL, "%s is neither a regular file nor a block device",
                            f->path);
    *ret_ops = S_ISREG(st->st_mode) ? &file_ops : &device_ops;
    int r = S_ISREG(st->st_mode) ? measure_file(f, st, write, &size, err)
                                 : measure_device(f, &size, err);
    if (r < 0)
        return r;
    if (size > CG_IMAGE_MAX)
        return cg_error_say(err, EFBIG, "%s has more than 4 EiB", f->path);
    f->size = size + f->tail;
    f->bulk = write ? cg_bulk_new(f->fd) : NULL;
    return write && !f->bulk ? cg_error_set(err, ENOMEM, "open %s", f->path) : 0;
}

static struct file *new_file(const char *path)
{
    struct file *f = calloc(1, sizeof *f);

    if (!f)
        return NULL;
    f->fd = -1;
    pthread_mutex_init(&f->sync_lock, NULL);
    f->path = strdup(path);
    if (f->path)
        return f;
    file_close(f);
    return NULL;
}

int cg_file_open(const char *path, bool write, struct cg_image **ret_image, struct cg_error *err)
{
    const struct cg_image_ops *ops = NULL;
    struct file *f = new_file(path);
    struct stat st;

    if (!f)
        return cg_error_set(err, ENOMEM, "open %s", path);
    int r = open_path(f, write, &st, err);
    if (r == 0)
        r = learn(f, &st, write, &ops, err);
    struct cg_image *image = r == 0 ? cg_image_new(ops, f, !write) : NULL;
    if (!image) {
        file_close(f);
        return r < 0 ? r : cg_error_set(err, ENOMEM, "open %s", path);
    }
    *ret_image = image;
    return 0;
}

int cg_file_adopt(int fd, const char *path, struct cg_image **ret_image, struct cg_error *err)
{
    const struct cg_image_ops *ops = NULL;
    struct file *f = new_file(path);
    struct stat st;

    if (!f)
        return cg_error_set(err, ENOMEM, "open %s", path);
    f->fd = fd;
    int r = fstat(fd, &st) < 0 ? cg_error_set(err, errno, "stat %s", path)
                               : learn(f, &st, true, &ops, err);
    struct cg_image *image = r == 0 ? cg_image_new(ops, f, false) : NULL;
    if (!image) {
        f->fd = -1; /* stays the caller's */
        file_close(f);
        return r < 0 ? r : cg_error_set(err, ENOMEM, "open %s", path);
    }
    *ret_image = image;
    return 0;
}

int cg_file_identity(const char *path, char ret[static CG_NAME_MAX], struct cg_error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return cg_error_set(err, errno, "stat %s", path);
    if (!S_ISREG(st.st_mode)) {
        ret[0] = '\0';
        return 0;
    }
    snprintf(ret, CG_NAME_MAX, "%llu:%llu:%lld-%09ld", (unsigned long long)st.st_ino,
             (unsigned long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    return 0;
}
