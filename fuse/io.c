/* Threads: any number of calls at once, also on one handle; images are made for that.  Each thread
 * keeps one buffer for the reads it answers. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/image/image.h"
#include "fuse/ops.h"

static struct cg_open *open_of(const struct fuse_file_info *fi)
{
    return (struct cg_open *)(uintptr_t)fi->fh;
}

/* The thread's buffer of at least size bytes, freed when the thread ends; NULL if memory is
 * short. */

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void make_buffer_key(void)
{
    if (pthread_key_create(&buffer_key, free) != 0)
        abort();
}

static void *thread_buffer(size_t size)
{
    static __thread size_t have;

    pthread_once(&buffer_once, make_buffer_key);
    void *buf = pthread_getspecific(buffer_key);
    if (buf && have >= size)
        return buf;
    free(buf);
    size_t n = size < 1 << 20 ? 1 << 20 : size;
    buf = aligned_alloc(4096, (size_t)cg_round_up(n, 4096));
    have = buf ? n : 0;
    if (pthread_setspecific(buffer_key, buf) != 0) {
        free(buf);
        buf = NULL;
        have = 0;
    }
    return buf;
}

/* Opening and closing */

static int stop_at_data(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    (void)opaque, (void)err;
    return extent->type == CG_DATA;
}

/* O_TRUNC can't be obeyed: a volume's size is fixed.  Nor may it be ignored: cp goes by it and
 * skips the holes of its source, in which the old bytes would stay.  Only where all is zero already
 * there's no difference, so that cp to a new volume works. */
static int check_truncation(struct cg_image *image, struct cg_error *err)
{
    int r = cg_image_walk(image, 0, cg_image_size(image), stop_at_data, NULL, err);

    if (r > 0)
        return cg_error_say(err, EPERM,
                            "a volume with data in it can't be truncated; to overwrite it use "
                            "dd conv=notrunc, or cowgate restore or import");
    return r;
}

#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)
#endif

/* By the kernel's own structure: libfuse knows FOPEN_PARALLEL_DIRECT_WRITES only from 3.15 on. */
static int reply_open(fuse_req_t req, const struct fuse_file_info *fi, bool direct)
{
    struct fuse_open_out out = {
        .fh = fi->fh,
        .open_flags = (fi->keep_cache ? FOPEN_KEEP_CACHE : 0) | (fi->noflush ? FOPEN_NOFLUSH : 0) |
                      (direct ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : 0),
    };

    return fuse_reply_buf(req, (const char *)&out, sizeof out);
}

void cg_io_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct cg_node *node = cg_ops_node(fs, ino);
    bool write = (fi->flags & O_ACCMODE) != O_RDONLY;
    char path[CG_NAME_MAX];
    struct cg_open *open;
    struct cg_error err, ignored;

    cg_name_text(&node->name, false, path);
    if (write && fs->read_only) {
        fuse_reply_err(req, EROFS);
        return;
    }
    cg_order_after_releases(fs->order);
    if (write)
        cg_gateway_look_at_pool(fs->gateway);
    bool direct = write && fi->flags & O_DIRECT; /* then writes don't take turns in the kernel */
    int r = cg_opens_open(fs->opens, fs->gateway, &node->name, write, direct, &open, &err);
    if (r < 0) {
        cg_ops_fail(req, r, &err, "open", path);
        return;
    }
    if (write && (fi->flags & O_TRUNC)) {
        r = check_truncation(open->image, &err);
        if (r < 0) {
            cg_opens_close(fs->opens, open, &ignored); /* nothing was written */
            cg_ops_fail(req, r, &err, "truncate", path);
            return;
        }
    }
    fi->fh = (uint64_t)(uintptr_t)open;
    fi->keep_cache = cg_image_immutable(open->image);
    fi->noflush = fi->keep_cache; /* nothing to make stable, and no order to keep */
    if (reply_open(req, fi, open->direct) == -ENOENT)
        cg_opens_close(fs->opens, open, &ignored); /* open(2) was interrupted */
}

void cg_io_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct cg_open *open = open_of(fi);
    struct cg_error err;

    cg_order_after_reads(cg_ops_fs(req)->order, ino);
    int r = cg_opens_flush(open, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "flush", open->path);
    else
        fuse_reply_err(req, 0);
}

void cg_io_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct cg_open *open = open_of(fi);
    struct cg_error err;

    (void)ino, (void)datasync;
    int r = cg_opens_sync(open, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "fsync", open->path);
    else
        fuse_reply_err(req, 0);
}

void cg_io_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct cg_open *open = open_of(fi);
    char path[CG_NAME_MAX];
    struct cg_error err;

    (void)ino;
    strcpy(path, open->path);
    int r = cg_opens_close(fs->opens, open, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "close", path); /* the kernel drops it: the log has it */
    else
        fuse_reply_err(req, 0);
}

/* Reading and writing */

/* Reads where it must be copied. */
static void read_copy(fuse_req_t req, struct cg_open *open, size_t len, uint64_t off)
{
    void *buf = thread_buffer(len);
    struct cg_error err;

    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    int r = cg_image_pread(open->image, buf, len, off, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "read", open->path);
    else
        fuse_reply_buf(req, buf, len);
}

void cg_io_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct cg_open *open = open_of(fi);
    uint64_t end = cg_image_size(open->image), start = (uint64_t)off;
    struct cg_error err;

    (void)ino;
    if (start >= end) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    size_t len = (size_t)cg_min(size, end - start);
    struct cg_loan loan;
    int r = cg_image_borrow(open->image, len, start, &loan, &err);
    if (r == -ENOTSUP) {
        read_copy(req, open, len, start);
    } else if (r < 0) {
        cg_ops_fail(req, r, &err, "read", open->path);
    } else {
        /* With the answer the file may be closed. */
        struct cg_image *image = cg_image_ref(open->image);
        fuse_reply_buf(req, loan.buf, len);
        cg_image_give_back(image, &loan);
        cg_image_unref(image);
    }
}

/* As on a block device: what fits is written, behind the end there's no space. */
void cg_io_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                 struct fuse_file_info *fi)
{
    struct cg_open *open = open_of(fi);
    uint64_t end = cg_image_size(open->image), start = (uint64_t)off;
    struct cg_error err;

    (void)ino;
    if (start >= end) {
        fuse_reply_err(req, size == 0 ? 0 : ENOSPC);
        return;
    }
    size_t len = (size_t)cg_min(size, end - start);
    /* After a write through the cache the kernel asks for an fsync; around it, it says here. */
    unsigned flags = open->direct && fi->flags & O_DSYNC ? CG_FUA : 0;
    int r = cg_image_pwrite(open->image, buf, len, start, flags, &err);
    cg_opens_written(open);
    if (r < 0)
        cg_ops_fail(req, r, &err, "write", open->path);
    else
        fuse_reply_write(req, len);
}

void cg_io_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                     struct fuse_file_info *fi)
{
    struct cg_open *open = open_of(fi);
    uint64_t end = cg_image_size(open->image), start = (uint64_t)off;
    bool punch = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    bool zero = (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
    struct cg_error err;

    (void)ino;
    if (!punch && !zero) {
        fuse_reply_err(req, EOPNOTSUPP); /* space isn't reserved, nor is anything moved */
        return;
    }
    if (start >= end || (uint64_t)len > end - start) {
        if (!(mode & FALLOC_FL_KEEP_SIZE)) {
            fuse_reply_err(req, ENOSPC); /* would grow */
            return;
        }
        len = start >= end ? 0 : (off_t)(end - start);
    }
    int r = cg_image_zero(open->image, (uint64_t)len, start, punch ? CG_MAY_TRIM : 0, &err);
    cg_opens_written(open);
    if (r < 0)
        cg_ops_fail(req, r, &err, punch ? "punch a hole in" : "zero", open->path);
    else
        fuse_reply_err(req, 0);
}

/* What SEEK_DATA or SEEK_HOLE looks for. */
struct seek {
    bool data;
    uint64_t found;
};

static int seek_extent(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    struct seek *seek = opaque;

    (void)err;
    if ((extent->type == CG_DATA) != seek->data)
        return 0;
    seek->found = extent->off;
    return 1;
}

void cg_io_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct cg_open *open = open_of(fi);
    uint64_t end = cg_image_size(open->image), start = (uint64_t)off;
    struct seek seek = { .data = whence == SEEK_DATA };
    struct cg_error err;

    (void)ino;
    if (whence != SEEK_DATA && whence != SEEK_HOLE) {
        fuse_reply_err(req, EINVAL); /* the kernel does the others */
        return;
    }
    if (off < 0 || start >= end) {
        fuse_reply_err(req, ENXIO);
        return;
    }
    int r = cg_image_walk(open->image, start, end - start, seek_extent, &seek, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "look for holes in", open->path);
    else if (r > 0)
        fuse_reply_lseek(req, (off_t)seek.found);
    else if (seek.data)
        fuse_reply_err(req, ENXIO);
    else
        fuse_reply_lseek(req, (off_t)end);
}
