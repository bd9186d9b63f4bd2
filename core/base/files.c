#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

/* Linux moves at most 0x7ffff000 bytes a call. */
#define IO_MAX ((size_t)1 << 30)

int cg_pread_full(int fd, void *buf, size_t len, uint64_t off)
{
    uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = pread(fd, p, len < IO_MAX ? len : IO_MAX, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ENODATA;
        p += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

int cg_pwrite_full(int fd, const void *buf, size_t len, uint64_t off)
{
    const uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len < IO_MAX ? len : IO_MAX, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        p += n;
        len -= (size_t)n;
        off += (uint64_t)n;
    }
    return 0;
}

int cg_file_read(int dirfd, const char *path, size_t max, char **ret_buf, size_t *ret_len,
                 struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return cg_error_set(err, errno, "stat %s", path);
    if (!S_ISREG(st.st_mode))
        return cg_error_say(err, EINVAL, "%s is not a regular file", path);
    if ((uint64_t)st.st_size > max)
        return cg_error_say(err, EFBIG, "%s has %llu bytes, more than %zu", path,
                            (unsigned long long)st.st_size, max);
    size_t len = (size_t)st.st_size;
    CG_CLEANUP(cg_free) char *buf = malloc(len + 1);
    if (!buf)
        return cg_error_set(err, ENOMEM, "read %s", path);
    int r = cg_pread_full(fd, buf, len, 0);
    if (r < 0)
        return cg_error_set(err, -r, "read %s", path);
    buf[len] = '\0';
    *ret_buf = buf;
    if (ret_len)
        *ret_len = len;
    buf = NULL;
    return 0;
}

int cg_dir_sync(int dirfd, const char *path, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open directory %s", path);
    if (fsync(fd) < 0)
        return cg_error_set(err, errno, "fsync directory %s", path);
    return 0;
}

/* The directory part of path: "." if it has none. */
static void parent_of(const char *path, char ret[static PATH_MAX])
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        strcpy(ret, ".");
    else if (slash == path)
        strcpy(ret, "/");
    else
        snprintf(ret, PATH_MAX, "%.*s", (int)(slash - path), path);
}

static int sync_parent(int dirfd, const char *path, struct cg_error *err)
{
    char parent[PATH_MAX];

    parent_of(path, parent);
    return cg_dir_sync(dirfd, parent, err);
}

/* A new file with these bytes, synced; on failure it's gone again. */
static int write_new(int dirfd, const char *path, const void *buf, size_t len, mode_t mode,
                     struct cg_error *err)
{
    CG_CLEANUP(cg_close)
    int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return cg_error_set(err, errno, "create %s", path);
    int r = cg_pwrite_full(fd, buf, len, 0);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(dirfd, path, 0);
        return cg_error_set(err, -r, "write %s", path);
    }
    return 0;
}

int cg_file_replace(int dirfd, const char *path, const void *buf, size_t len, mode_t mode,
                    struct cg_error *err)
{
    char tmp[PATH_MAX];
    uint8_t random[6];
    char hex[13];

    cg_random(random, sizeof random);
    cg_hex(hex, random, sizeof random);
    if ((size_t)snprintf(tmp, sizeof tmp, "%s.tmp-%s", path, hex) >= sizeof tmp)
        return cg_error_set(err, ENAMETOOLONG, "write %s", path);
    int r = write_new(dirfd, tmp, buf, len, mode, err);
    if (r < 0)
        return r;
    if (renameat(dirfd, tmp, dirfd, path) < 0) {
        r = cg_error_set(err, errno, "rename %s to %s", tmp, path);
        unlinkat(dirfd, tmp, 0);
        return r;
    }
    return sync_parent(dirfd, path, err);
}

int cg_file_create(int dirfd, const char *path, const void *buf, size_t len, mode_t mode,
                   struct cg_error *err)
{
    int r = write_new(dirfd, path, buf, len, mode, err);

    return r < 0 ? r : sync_parent(dirfd, path, err);
}

int cg_dir_make(int dirfd, const char *path, mode_t mode, struct cg_error *err)
{
    char parent[PATH_MAX];

    if (mkdirat(dirfd, path, mode) == 0)
        return sync_parent(dirfd, path, err);
    if (errno == ENOENT) {
        parent_of(path, parent);
        if (strcmp(parent, path) == 0 || strcmp(parent, ".") == 0)
            return cg_error_set(err, ENOENT, "create directory %s", path);
        int r = cg_dir_make(dirfd, parent, mode, err);
        if (r < 0)
            return r;
        if (mkdirat(dirfd, path, mode) == 0)
            return sync_parent(dirfd, path, err);
    }
    if (errno != EEXIST)
        return cg_error_set(err, errno, "create directory %s", path);
    struct stat st;
    if (fstatat(dirfd, path, &st, 0) < 0)
        return cg_error_set(err, errno, "stat %s", path);
    if (!S_ISDIR(st.st_mode))
        return cg_error_set(err, ENOTDIR, "create directory %s", path);
    return 0;
}

DIR *cg_dir_open(int dirfd, const char *path, int flags)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | flags);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (!dir)
        cg_close(&fd);
    return dir;
}

void cg_closedir(DIR **dir)
{
    int saved = errno;

    if (*dir)
        closedir(*dir);
    errno = saved;
}

int cg_tree_remove(int at, const char *path, struct cg_error *err)
{
    if (unlinkat(at, path, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return cg_error_set(err, errno, "remove %s", path);
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(at, path, O_NOFOLLOW);
    if (!dir)
        return cg_error_set(err, errno, "open directory %s", path);
    struct dirent *e;
    while (errno = 0, (e = readdir(dir))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        int r = cg_tree_remove(dirfd(dir), e->d_name, err);
        if (r < 0)
            return cg_error_prefix(err, r, "%s", path);
    }
    if (errno)
        return cg_error_set(err, errno, "list %s", path);
    if (unlinkat(at, path, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove %s", path);
    return 0;
}

static int is_tmpfs(const char *path)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

int cg_run_dir(char *ret, size_t size, struct cg_error *err)
{
    const char *own = getenv("COWGATE_RUN");
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    int n;

    if (own && *own && *own != '/') /* where it is has to be the same for every process */
        return cg_error_say(err, EINVAL, "COWGATE_RUN is %s: it has to be an absolute path", own);
    if (own && *own)
        n = snprintf(ret, size, "%s", own);
    else if (geteuid() == 0 && is_tmpfs("/run"))
        n = snprintf(ret, size, "/run/cowgate");
    else if (geteuid() != 0 && xdg && *xdg && is_tmpfs(xdg))
        n = snprintf(ret, size, "%s/cowgate", xdg);
    else
        n = snprintf(ret, size, "/dev/shm/cowgate-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= size)
        return cg_error_set(err, ENAMETOOLONG, "run directory");
    int r = cg_dir_make(AT_FDCWD, ret, 0700, err);
    if (r < 0)
        return r;
    struct stat st;
    if (lstat(ret, &st) < 0)
        return cg_error_set(err, errno, "stat %s", ret);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return cg_error_say(err, EPERM, "run directory %s belongs to somebody else", ret);
    if (st.st_mode & 022)
        return cg_error_say(err, EPERM, "run directory %s can be written by others: chmod 700 %s",
                            ret, ret);
    if (!is_tmpfs(ret))
        return cg_error_say(
            err, ENOTSUP, "run directory %s is not on tmpfs; set COWGATE_RUN to one that is", ret);
    return 0;
}

int cg_run_mount_path(const char *mountpoint, char *ret, size_t size, struct cg_error *err)
{
    int r = cg_run_dir(ret, size, err);

    if (r < 0)
        return r;
    size_t n = strlen(ret);
    uint32_t crc = cg_crc32c(mountpoint, strlen(mountpoint));
    if ((size_t)snprintf(ret + n, size - n, "/mount-%08x", (unsigned)crc) >= size - n)
        return cg_error_set(err, ENAMETOOLONG, "run directory");
    return 0;
}

void cg_files_raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int cg_boot_id(char ret[static 37], struct cg_error *err)
{
    CG_CLEANUP(cg_close)
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "read the boot id");
    int r = cg_pread_full(fd, ret, 36, 0);
    if (r < 0)
        return cg_error_set(err, -r, "read the boot id");
    ret[36] = '\0';
    return 0;
}
