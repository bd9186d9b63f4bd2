#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/backups/store_dir.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

/* Thread model: nothing here changes after opening; the kernel's names are the only state. */

static int dir_get(struct cg_store *store, const char *path, void *buf, size_t size,
                   size_t *ret_len, uint64_t *ret_total, struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;
    struct stat st;

    /* Nothing here is anything but a file; a FIFO in its place would be waited for. */
    CG_CLEANUP(cg_close)
    int fd = openat(d->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && (errno == ELOOP || errno == ENXIO))
        return cg_error_say(err, EIO, "%s is not a regular file", path);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    if (fstat(fd, &st) < 0)
        return cg_error_set(err, errno, "stat %s", path);
    if (!S_ISREG(st.st_mode))
        return cg_error_say(err, EIO, "%s is not a regular file", path);
    size_t len = (size_t)cg_min(size, (uint64_t)st.st_size);
    int r = cg_pread_full(fd, buf, len, 0);
    if (r < 0)
        return cg_error_set(err, r == -ENODATA ? EIO : -r, "read %s", path);
    *ret_len = len;
    if (ret_total)
        *ret_total = (uint64_t)st.st_size;
    return 0;
}

int cg_store_dir_list(struct cg_store *store, const char *path, cg_store_list_fn *fn, void *opaque,
                      struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;
    struct dirent *e;

    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(d->fd, path, 0);
    if (!dir)
        return cg_error_set(err, errno, "list %s", path);
    while (errno = 0, (e = readdir(dir))) {
        if (e->d_name[0] == '.')
            continue; /* not ours, or being written */
        int r = fn(opaque, e->d_name, err);
        if (r != 0)
            return r;
    }
    return errno ? cg_error_set(err, errno, "list %s", path) : 0;
}

int cg_store_dir_parents(int dirfd, const char *path, struct cg_error *err)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (!slash)
        return 0;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    int r = mkdirat(dirfd, parent, CG_STORE_DIR);
    if (r == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT)
        return cg_error_set(err, errno, "create directory %s", parent);
    r = cg_store_dir_parents(dirfd, parent, err);
    if (r < 0)
        return r;
    if (mkdirat(dirfd, parent, CG_STORE_DIR) < 0 && errno != EEXIST)
        return cg_error_set(err, errno, "create directory %s", parent);
    return 0;
}

/* A new file without a name, or with one that no listing shows where the file system has no
 * O_TMPFILE; tmp is "" or that name. */
static int open_unnamed(int dirfd, const char *parent, char tmp[static PATH_MAX])
{
    uint8_t random[8];
    char hex[17];

    tmp[0] = '\0';
    int fd = openat(dirfd, parent, O_TMPFILE | O_RDWR | O_CLOEXEC, CG_STORE_FILE);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    cg_random(random, sizeof random);
    cg_hex(hex, random, sizeof random);
    if (snprintf(tmp, PATH_MAX, "%s/.tmp-%s", parent, hex) >= PATH_MAX) {
        tmp[0] = '\0';
        errno = ENAMETOOLONG;
        return -1;
    }
    return openat(dirfd, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, CG_STORE_FILE);
}

/* cg_file_create shows the file while it is being written; this one shows it when it is whole. */
static int dir_create(struct cg_store *store, const char *path, const void *buf, size_t len,
                      struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;
    char parent[PATH_MAX] = ".", tmp[PATH_MAX], self[64];
    const char *slash = strrchr(path, '/');

    if (slash) {
        snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
        int r = cg_dir_make(d->fd, parent, CG_STORE_DIR, err);
        if (r < 0)
            return r;
    }
    CG_CLEANUP(cg_close) int fd = open_unnamed(d->fd, parent, tmp);
    if (fd < 0)
        return cg_error_set(err, errno, "create %s", path);
    int r = cg_pwrite_full(fd, buf, len, 0);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r < 0) {
        cg_error_set(err, -r, "write %s", path);
    } else {
        snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        if (linkat(AT_FDCWD, self, d->fd, path, AT_SYMLINK_FOLLOW) < 0)
            r = cg_error_set(err, errno, "create %s", path);
    }
    if (tmp[0])
        unlinkat(d->fd, tmp, 0);
    return r < 0 ? r : cg_dir_sync(d->fd, parent, err);
}

static int dir_remove(struct cg_store *store, const char *path, struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;
    char parent[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');

    if (unlinkat(d->fd, path, 0) < 0)
        return errno == ENOENT ? 0 : cg_error_set(err, errno, "remove %s", path);
    if (slash)
        snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    return cg_dir_sync(d->fd, parent, err);
}

static int dir_lock(struct cg_store *store, const char *path, struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;

    int r = cg_store_dir_parents(d->fd, path, err);
    if (r < 0)
        return r;
    int fd = openat(d->fd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, CG_STORE_FILE);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    do {
        r = flock(fd, LOCK_EX);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        r = cg_error_set(err, errno, "lock %s", path);
        cg_close(&fd);
        return r;
    }
    return fd;
}

static void dir_unlock(struct cg_store *store, int lock)
{
    (void)store;
    close(lock);
}

static void dir_close(struct cg_store *store)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;

    close(d->fd);
    free(d);
}

static const struct cg_store_ops dir_ops = {
    .name = "directory",
    .get = dir_get,
    .list = cg_store_dir_list,
    .create = dir_create,
    .remove = dir_remove,
    .lock = dir_lock,
    .unlock = dir_unlock,
    .session_begin = cg_store_dir_session_begin,
    .session_write = cg_store_dir_session_write,
    .session_put = cg_store_dir_session_put,
    .session_sync = cg_store_dir_session_sync,
    .session_commit = cg_store_dir_session_commit,
    .session_end = cg_store_dir_session_end,
    .session_alive = cg_store_dir_session_alive,
    .close = dir_close,
};

int cg_store_dir_open(const char *path, struct cg_store **ret_store, struct cg_error *err)
{
    struct cg_store_dir *d = calloc(1, sizeof *d);

    if (!d)
        return cg_error_set(err, ENOMEM, "open repository %s", path);
    d->store.ops = &dir_ops;
    d->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->fd < 0) {
        int r = cg_error_set(err, errno, "open repository %s", path);
        free(d);
        return r;
    }
    *ret_store = &d->store;
    return 0;
}
