/* Thread model: the log is guarded by lock; a call is done and logged under it, so that the log has
 * the order in which things happened. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/unit/recorder.h"

#define SECTOR 512u

enum kind {
    PWRITE,
    PWRITEV,
    FDATASYNC,
    FSYNC,
    FALLOCATE,
    FTRUNCATE,
    OPENAT,
    MKDIRAT,
    LINKAT,
    RENAMEAT,
    RENAMEAT2,
    UNLINKAT,
    KINDS
};

static const char *const kind_names[] = { "pwrite",    "pwritev",   "fdatasync",       "fsync",
                                          "fallocate", "ftruncate", "openat (create)", "mkdirat",
                                          "linkat",    "renameat",  "renameat2",       "unlinkat" };

enum what { WRITE, TRUNCATE, PUNCH, SYNC, LOST, CREATE, MKDIR, LINK, RENAME, UNLINK, MARK };

struct op {
    enum what what;
    unsigned file;        /* the file or directory that it is about */
    unsigned dir, to_dir; /* where names change */
    char name[100], to_name[100];
    uint64_t off, len;
    uint8_t *bytes;
    bool replaces;
};

/* A file or directory seen; number 0 is the root. */
struct node {
    dev_t dev;
    ino_t inode;
    bool live; /* the inode still stands for it */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool recording;
static struct op *ops;
static size_t count, allocated;
static struct node *nodes;
static unsigned node_count;
static unsigned fail_at, calls, failed, failed_syncs;
static int fail_errnum;

int __real_openat(int dirfd, const char *path, int flags, ...);
int __real_mkdirat(int dirfd, const char *path, mode_t mode);
int __real_linkat(int from, const char *path, int to, const char *name, int flags);
int __real_renameat(int from, const char *path, int to, const char *name);
int __real_renameat2(int from, const char *path, int to, const char *name, unsigned flags);
int __real_unlinkat(int dirfd, const char *path, int flags);
int __real_ftruncate(int fd, off_t len);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __real_fdatasync(int fd);
int __real_fsync(int fd);
ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t off);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static struct op *add(enum what what)
{
    if (count == allocated) {
        allocated = allocated ? 2 * allocated : 1024;
        ops = realloc(ops, allocated * sizeof *ops);
        must(ops);
    }
    ops[count] = (struct op){ .what = what };
    return &ops[count++];
}

static int node_of(const struct stat *st)
{
    for (unsigned i = 0; i < node_count; i++)
        if (nodes[i].live && nodes[i].dev == st->st_dev && nodes[i].inode == st->st_ino)
            return (int)i;
    return -1;
}

static unsigned add_node(const struct stat *st)
{
    int old = node_of(st);

    if (old >= 0) /* the inode's number is used anew */
        nodes[old].live = false;
    nodes = realloc(nodes, (node_count + 1) * sizeof *nodes);
    must(nodes);
    nodes[node_count] = (struct node){ st->st_dev, st->st_ino, true };
    return node_count++;
}

/* The node behind a descriptor; -1 if it isn't one of ours. */
static int node_of_fd(int fd)
{
    struct stat st;

    return recording && fstat(fd, &st) == 0 ? node_of(&st) : -1;
}

/* The directory in which path is, and its name there; -1 if it isn't one of ours. */
static int locate(int dirfd, const char *path, char ret_name[static 100])
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    struct stat st;

    if (!recording)
        return -1;
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    snprintf(ret_name, 100, "%s", slash ? slash + 1 : path);
    if (fstatat(dirfd, *dir ? dir : "/", &st, 0) < 0)
        return -1;
    return node_of(&st);
}

/* True if this call is the one that fails. */
static bool fails(enum kind kind)
{
    if (++calls != fail_at)
        return false;
    failed |= 1u << kind;
    errno = fail_errnum;
    return true;
}

int __wrap_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    struct stat st;
    char name[100];
    va_list ap;

    va_start(ap, flags);
    if (flags & O_CREAT)
        mode = (mode_t)va_arg(ap, unsigned);
    va_end(ap);
    if (!(flags & O_CREAT))
        return __real_openat(dirfd, path, flags);
    pthread_mutex_lock(&lock);
    bool there = fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int fd = fails(OPENAT) ? -1 : __real_openat(dirfd, path, flags, mode);
    int saved = errno;
    int dir = fd < 0 || there ? -1 : locate(dirfd, path, name);
    if (dir >= 0) {
        fstat(fd, &st);
        unsigned file = add_node(&st);
        struct op *op = add(CREATE);
        op->file = file;
        op->dir = (unsigned)dir;
        strcpy(op->name, name);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

int __wrap_mkdirat(int dirfd, const char *path, mode_t mode);
int __wrap_mkdirat(int dirfd, const char *path, mode_t mode)
{
    char name[100];
    struct stat st;

    pthread_mutex_lock(&lock);
    int r = fails(MKDIRAT) ? -1 : __real_mkdirat(dirfd, path, mode);
    int saved = errno;
    int dir = r < 0 ? -1 : locate(dirfd, path, name);
    if (dir >= 0) {
        fstatat(dirfd, path, &st, 0);
        unsigned file = add_node(&st);
        struct op *op = add(MKDIR);
        op->file = file;
        op->dir = (unsigned)dir;
        strcpy(op->name, name);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

int __wrap_linkat(int from, const char *path, int to, const char *to_path, int flags);
int __wrap_linkat(int from, const char *path, int to, const char *to_path, int flags)
{
    char name[100];
    struct stat st;

    pthread_mutex_lock(&lock);
    int r = fails(LINKAT) ? -1 : __real_linkat(from, path, to, to_path, flags);
    int saved = errno;
    int dir = r < 0 ? -1 : locate(to, to_path, name);
    if (dir >= 0 && fstatat(to, to_path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        struct op *op = add(LINK);
        op->file = (unsigned)node_of(&st);
        op->dir = (unsigned)dir;
        strcpy(op->name, name);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

static int do_rename(enum kind kind, int from, const char *path, int to, const char *to_path,
                     unsigned flags)
{
    char name[100], to_name[100];

    pthread_mutex_lock(&lock);
    int dir = locate(from, path, name), to_dir = locate(to, to_path, to_name);
    int r = fails(kind) ? -1 : __real_renameat2(from, path, to, to_path, flags);
    int saved = errno;
    if (r == 0 && dir >= 0 && to_dir >= 0) {
        struct op *op = add(RENAME);
        op->dir = (unsigned)dir;
        op->to_dir = (unsigned)to_dir;
        strcpy(op->name, name);
        strcpy(op->to_name, to_name);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

int __wrap_renameat(int from, const char *path, int to, const char *to_path);
int __wrap_renameat(int from, const char *path, int to, const char *to_path)
{
    return do_rename(RENAMEAT, from, path, to, to_path, 0);
}

int __wrap_renameat2(int from, const char *path, int to, const char *to_path, unsigned flags);
int __wrap_renameat2(int from, const char *path, int to, const char *to_path, unsigned flags)
{
    return do_rename(RENAMEAT2, from, path, to, to_path, flags);
}

int __wrap_unlinkat(int dirfd, const char *path, int flags);
int __wrap_unlinkat(int dirfd, const char *path, int flags)
{
    char name[100];

    pthread_mutex_lock(&lock);
    int dir = locate(dirfd, path, name);
    int r = fails(UNLINKAT) ? -1 : __real_unlinkat(dirfd, path, flags);
    int saved = errno;
    if (r == 0 && dir >= 0) {
        struct op *op = add(UNLINK);
        op->dir = (unsigned)dir;
        strcpy(op->name, name);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

static void add_data(enum what what, int fd, uint64_t off, uint64_t len, const void *bytes)
{
    int node = node_of_fd(fd);

    if (node < 0)
        return;
    struct op *op = add(what);
    op->file = (unsigned)node;
    op->off = off;
    op->len = len;
    if (bytes) {
        op->bytes = malloc(len);
        memcpy(op->bytes, bytes, len);
    }
}

int __wrap_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len)
{
    pthread_mutex_lock(&lock);
    int r = fails(FTRUNCATE) ? -1 : __real_ftruncate(fd, len);
    int saved = errno;
    if (r == 0)
        add_data(TRUNCATE, fd, 0, (uint64_t)len, NULL);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
    pthread_mutex_lock(&lock);
    int r = fails(FALLOCATE) ? -1 : __real_fallocate(fd, mode, off, len);
    int saved = errno;
    if (r == 0 && (mode & FALLOC_FL_PUNCH_HOLE))
        add_data(PUNCH, fd, (uint64_t)off, (uint64_t)len, NULL);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

static int do_sync(enum kind kind, int fd)
{
    pthread_mutex_lock(&lock);
    /* What a real one does on these file systems is of no interest here. */
    int r = fails(kind) ? -1 : 0;
    int saved = errno;
    add_data(r == 0 ? SYNC : LOST, fd, 0, 0, NULL);
    failed_syncs += r < 0 && kind == FDATASYNC;
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    return do_sync(FDATASYNC, fd);
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return do_sync(FSYNC, fd);
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    pthread_mutex_lock(&lock);
    ssize_t r = fails(PWRITE) ? -1 : __real_pwrite(fd, buf, len, off);
    int saved = errno;
    if (r > 0)
        add_data(WRITE, fd, (uint64_t)off, (uint64_t)r, buf);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

/* The first len bytes of a vector, as one write. */
static void add_vector(int fd, uint64_t off, size_t len, const struct iovec *iov)
{
    uint8_t *bytes = malloc(len);

    must(bytes);
    for (size_t at = 0; at < len; iov++) {
        size_t n = len - at < iov->iov_len ? len - at : iov->iov_len;
        memcpy(bytes + at, iov->iov_base, n);
        at += n;
    }
    add_data(WRITE, fd, off, len, bytes);
    free(bytes);
}

ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t off);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t off)
{
    pthread_mutex_lock(&lock);
    ssize_t r = fails(PWRITEV) ? -1 : __real_pwritev(fd, iov, n, off);
    int saved = errno;
    if (r > 0)
        add_vector(fd, (uint64_t)off, (size_t)r, iov);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return r;
}

void recorder_start(const char *root)
{
    struct stat st;

    pthread_mutex_lock(&lock);
    must(stat(root, &st) == 0);
    add_node(&st);
    recording = true;
    pthread_mutex_unlock(&lock);
}

size_t recorder_mark(unsigned number)
{
    pthread_mutex_lock(&lock);
    if (recording)
        add(MARK)->off = number;
    size_t n = count;
    pthread_mutex_unlock(&lock);
    return n;
}

size_t recorder_stop(void)
{
    pthread_mutex_lock(&lock);
    recording = false;
    pthread_mutex_unlock(&lock);
    return count;
}

void recorder_free(void)
{
    for (size_t i = 0; i < count; i++)
        free(ops[i].bytes);
    free(ops);
    free(nodes);
    ops = NULL;
    nodes = NULL;
    count = allocated = 0;
    node_count = 0;
}

void recorder_fail(unsigned n, int errnum)
{
    pthread_mutex_lock(&lock);
    fail_at = n;
    fail_errnum = errnum;
    calls = 0;
    pthread_mutex_unlock(&lock);
}

unsigned recorder_calls(void)
{
    return calls;
}

unsigned recorder_failed_syncs(void)
{
    return failed_syncs;
}

unsigned recorder_failed(void)
{
    return failed;
}

unsigned recorder_kinds(void)
{
    return (1u << KINDS) - 1;
}

const char *recorder_kind(unsigned bit)
{
    return kind_names[bit];
}

/* The replay: files and directories in memory, then on disk. */

struct entry {
    char name[100];
    unsigned node;
};

struct bytes {
    uint8_t *at;
    uint64_t len;
};

/* A file as programs see it, and as the disk has it: any sector may get there at any time, as it is
 * then, as long as it is dirty (a byte a sector, with the length that the cache has). */
struct replayed {
    bool directory;
    struct bytes cache, disk, dirty;
    struct entry *entry;
    size_t entries;
};

static unsigned draw(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return *seed >> 16;
}

static void set_length(struct bytes *b, uint64_t len)
{
    if (len > b->len) {
        b->at = realloc(b->at, len);
        must(b->at);
        memset(b->at + b->len, 0, len - b->len);
    }
    b->len = len;
}

static void write_back(struct replayed *file, uint64_t off, uint64_t end)
{
    end = end < file->cache.len ? end : file->cache.len;
    if (off >= end)
        return;
    if (end > file->disk.len)
        set_length(&file->disk, end);
    memcpy(file->disk.at + off, file->cache.at + off, end - off);
}

static void forget_dirty(struct replayed *file)
{
    if (file->dirty.len)
        memset(file->dirty.at, 0, file->dirty.len);
}

static void sync_file(struct replayed *file)
{
    set_length(&file->disk, file->cache.len);
    for (uint64_t i = 0; i < file->dirty.len; i++)
        if (file->dirty.at[i])
            write_back(file, i * SECTOR, (i + 1) * SECTOR);
    forget_dirty(file);
}

static void apply_data(struct replayed *file, const struct op *op)
{
    if (op->what == TRUNCATE) {
        set_length(&file->cache, op->len);
        return;
    }
    uint64_t end = op->off + op->len, sectors = (end + SECTOR - 1) / SECTOR;
    if (sectors > file->dirty.len)
        set_length(&file->dirty, sectors);
    for (uint64_t i = op->off / SECTOR; i < sectors; i++)
        file->dirty.at[i] = 1;
    if (op->what == WRITE) {
        if (end > file->cache.len)
            set_length(&file->cache, end);
        memcpy(file->cache.at + op->off, op->bytes, op->len);
    } else if (op->off < file->cache.len) {
        end = end < file->cache.len ? end : file->cache.len;
        memset(file->cache.at + op->off, 0, end - op->off);
    }
}

/* Some of the sectors that an operation changed get to the disk. */
static void write_back_some(struct replayed *file, const struct op *op, unsigned *seed)
{
    unsigned mode = draw(seed) % 3; /* none, all, some */

    if (op->what == TRUNCATE) {
        if (mode)
            set_length(&file->disk, op->len);
        return;
    }
    for (uint64_t at = op->off / SECTOR * SECTOR; mode && at < op->off + op->len; at += SECTOR)
        if (mode == 1 || draw(seed) % 2)
            write_back(file, at, at + SECTOR);
}

static struct entry *find_entry(struct replayed *dir, const char *name)
{
    for (size_t i = 0; i < dir->entries; i++)
        if (strcmp(dir->entry[i].name, name) == 0)
            return &dir->entry[i];
    return NULL;
}

static void set_entry(struct replayed *dir, const char *name, unsigned node)
{
    struct entry *e = find_entry(dir, name);

    if (!e) {
        dir->entry = realloc(dir->entry, (dir->entries + 1) * sizeof *dir->entry);
        e = &dir->entry[dir->entries++];
        strcpy(e->name, name);
    }
    e->node = node;
}

static unsigned drop_entry(struct replayed *dir, const char *name)
{
    struct entry *e = find_entry(dir, name);

    must(e);
    unsigned node = e->node;
    *e = dir->entry[--dir->entries];
    return node;
}

static void apply_name(struct replayed *all, const struct op *op)
{
    switch (op->what) {
    case MKDIR:
        all[op->file].directory = true;
        set_entry(&all[op->dir], op->name, op->file);
        break;
    case CREATE:
    case LINK:
        set_entry(&all[op->dir], op->name, op->file);
        break;
    case RENAME:
        set_entry(&all[op->to_dir], op->to_name, drop_entry(&all[op->dir], op->name));
        break;
    default:
        drop_entry(&all[op->dir], op->name);
    }
}

static bool is_data(const struct op *op)
{
    return op->what == WRITE || op->what == TRUNCATE || op->what == PUNCH;
}

static bool is_name(const struct op *op)
{
    return op->what >= CREATE && op->what <= UNLINK;
}

static bool synced_later(size_t i, size_t cut, unsigned node)
{
    for (size_t k = i + 1; k < cut; k++)
        if (ops[k].what == SYNC && ops[k].file == node)
            return true;
    return false;
}

/* How many operations' changes of names are there: at least up to the last that a sync of its
 * directory covers. */
static size_t names_until(size_t cut, enum recorder_loss loss, unsigned *seed)
{
    size_t least = 0;

    if (loss == LOSE_NOTHING)
        return cut;
    for (size_t i = 0; i < cut; i++) {
        unsigned dir = ops[i].what == RENAME ? ops[i].to_dir : ops[i].dir;
        if (is_name(&ops[i]) && synced_later(i, cut, dir))
            least = i + 1;
    }
    return loss == LOSE_ALL ? least : least + draw(seed) % (cut - least + 1);
}

static void build(struct replayed *all, size_t cut, enum recorder_loss loss, unsigned seed)
{
    size_t names = names_until(cut, loss, &seed);

    all[0].directory = true;
    for (size_t i = 0; i < cut; i++) {
        const struct op *op = &ops[i];
        if (is_name(op) && i < names)
            apply_name(all, op);
        if (op->what == SYNC)
            sync_file(&all[op->file]);
        if (op->what == LOST)
            forget_dirty(&all[op->file]);
        if (!is_data(op))
            continue;
        apply_data(&all[op->file], op);
        if (loss == LOSE_SOME)
            write_back_some(&all[op->file], op, &seed);
    }
    for (unsigned i = 0; loss == LOSE_NOTHING && i < node_count; i++) {
        set_length(&all[i].disk, all[i].cache.len);
        write_back(&all[i], 0, all[i].cache.len);
    }
}

static void write_out(struct replayed *all, unsigned node, const char *path,
                      char (*first)[PATH_MAX])
{
    struct replayed *r = &all[node];

    if (r->directory) {
        must(mkdir(path, 0700) == 0);
        for (size_t i = 0; i < r->entries; i++) {
            char sub[PATH_MAX];
            snprintf(sub, sizeof sub, "%s/%s", path, r->entry[i].name);
            write_out(all, r->entry[i].node, sub, first);
        }
        return;
    }
    if (*first[node]) {
        must(link(first[node], path) == 0);
        return;
    }
    snprintf(first[node], PATH_MAX, "%s", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    must(fd >= 0 && __real_ftruncate(fd, (off_t)r->disk.len) == 0);
    for (uint64_t at = 0; at < r->disk.len; at += 4096) {
        size_t n = r->disk.len - at < 4096 ? r->disk.len - at : 4096;
        static const uint8_t zeros[4096];
        if (memcmp(r->disk.at + at, zeros, n) != 0)
            must(__real_pwrite(fd, r->disk.at + at, n, (off_t)at) == (ssize_t)n);
    }
    close(fd);
}

unsigned recorder_replay(const char *dir, size_t cut, enum recorder_loss loss, unsigned seed)
{
    struct replayed *all = calloc(node_count, sizeof *all);
    char(*first)[PATH_MAX] = calloc(node_count, sizeof *first);
    unsigned mark = 0;

    must(all && first && cut <= count);
    for (size_t i = 0; i < cut; i++)
        if (ops[i].what == MARK)
            mark = (unsigned)ops[i].off;
    build(all, cut, loss, seed);
    write_out(all, 0, dir, first);
    for (unsigned i = 0; i < node_count; i++) {
        free(all[i].cache.at);
        free(all[i].disk.at);
        free(all[i].dirty.at);
        free(all[i].entry);
    }
    free(all);
    free(first);
    return mark;
}
