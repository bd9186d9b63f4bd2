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

#include "tests/unit/recorder-log.h"
#include "tests/unit/recorder.h"

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
static void (*in_syncs)(void);

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
    void (*fn)(void) = in_syncs;
    pthread_mutex_unlock(&lock);
    if (fn)
        fn();
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

void recorder_in_syncs(void (*fn)(void))
{
    pthread_mutex_lock(&lock);
    in_syncs = fn;
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

struct recorder_log recorder_log(void)
{
    return (struct recorder_log){ ops, count, node_count };
}
