#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "fuse/mountpoint.h"

extern char **environ;

/* What is mounted on a path. */
struct mounted {
    char device[32]; /* MAJOR:MINOR */
    bool ours;
};

/* Undoes the octal escapes of /proc/self/mountinfo, in place. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *p = text; *p;) {
        if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] && p[3]) {
            *to++ = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
            p += 4;
        } else {
            *to++ = *p++;
        }
    }
    *to = '\0';
}

static void close_file(FILE **file)
{
    if (*file)
        fclose(*file);
}

/* The topmost mount on path by the kernel's table, which can be read even if the mount hangs (its
 * format: proc(5)).  False if nothing is mounted there. */
static bool find_mount(const char *path, struct mounted *ret)
{
    CG_CLEANUP(close_file) FILE *file = fopen("/proc/self/mountinfo", "re");
    CG_CLEANUP(cg_free) char *line = NULL;
    size_t size = 0;
    bool found = false;

    if (!file)
        return false;
    while (getline(&line, &size, file) > 0) {
        char device[32], on[PATH_MAX], type[64];
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %31s %*s %4095s", device, on) != 2 ||
            sscanf(rest, " - %63s", type) != 1)
            continue;
        unescape(on);
        if (strcmp(on, path) != 0)
            continue;
        strcpy(ret->device, device);
        ret->ours = strcmp(type, CG_MOUNTPOINT_TYPE) == 0;
        found = true;
    }
    return found;
}

/* The real path, also of a directory that can't be looked into: then of what it lies in. */
static int real_path(const char *dir, char ret[static PATH_MAX])
{
    char parent[PATH_MAX], copy[PATH_MAX];

    if (realpath(dir, ret))
        return 0;
    if (errno != ENOTCONN && errno != EIO)
        return -errno;
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    if (len >= sizeof copy)
        return -ENAMETOOLONG;
    memcpy(copy, dir, len);
    copy[len] = '\0';
    char *slash = strrchr(copy, '/');
    const char *last = slash ? slash + 1 : copy;
    if (strcmp(last, "") == 0 || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return -ENOTCONN;
    if (slash)
        *slash = '\0';
    if (!realpath(!slash ? "." : (slash == copy ? "/" : copy), parent))
        return -errno;
    const char *between = strcmp(parent, "/") == 0 ? "" : "/";
    if ((size_t)snprintf(ret, PATH_MAX, "%s%s%s", parent, between, last) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

/* Takes a mount out of the tree; who is still in it keeps it. */
static int detach(const char *path)
{
    const char *argv[] = { "fusermount3", "-u", "-z", "-q", "--", path, NULL };
    pid_t pid;
    int status;

    if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return 0;
    if (errno != EPERM)
        return -errno;
    int r = posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)argv, environ);
    if (r != 0)
        return -r;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

/* Asks what the kernel can't answer by itself from its caches. */
static bool is_dead(const char *path)
{
    struct statvfs st;

    return statvfs(path, &st) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

int cg_mountpoint_prepare(const char *dir, char ret_path[static PATH_MAX], struct cg_error *err)
{
    char path[PATH_MAX];
    struct mounted mounted;
    struct stat st;

    int r = real_path(dir, path);
    if (r < 0)
        return cg_error_set(err, -r, "mount on %s", dir);
    bool found = find_mount(path, &mounted);
    if (found && mounted.ours) {
        if (!is_dead(path))
            return cg_error_say(err, EBUSY, "mount on %s: it's mounted already", path);
        r = detach(path);
        if (r < 0)
            return cg_error_set(err, -r, "detach the dead mount on %s", path);
    }
    if (stat(path, &st) < 0)
        return cg_error_set(err, errno, "mount on %s", path);
    if (!S_ISDIR(st.st_mode))
        return cg_error_set(err, ENOTDIR, "mount on %s", path);
    strcpy(ret_path, path);
    return 0;
}

/* Opens and locks the file: 0 with *ret_fd -1 if somebody has it. */
static int try_lock(const char *file, int *ret_fd)
{
    CG_CLEANUP(cg_close) int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat mine, there;

    *ret_fd = -1;
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
    /* Its last owner may have removed it while we opened it. */
    if (fstat(fd, &mine) < 0)
        return -errno;
    if (stat(file, &there) < 0 || there.st_ino != mine.st_ino || there.st_dev != mine.st_dev)
        return 0;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int cg_mountpoint_lock(const char *path, int *ret_fd, struct cg_error *err)
{
    const struct timespec pause = { .tv_nsec = 20 * 1000 * 1000 };
    char file[PATH_MAX];
    struct mounted mounted;
    int fd;

    int r = cg_run_mount_path(path, file, sizeof file, err);
    if (r < 0)
        return r;
    for (;;) {
        r = try_lock(file, &fd);
        if (r < 0)
            return cg_error_set(err, -r, "lock %s", file);
        if (fd >= 0)
            break;
        if (find_mount(path, &mounted) && mounted.ours)
            return cg_error_say(err, EBUSY, "mount on %s: it's mounted already", path);
        nanosleep(&pause, NULL);
    }
    *ret_fd = fd;
    return 0;
}

void cg_mountpoint_unlock(const char *path, int fd)
{
    char file[PATH_MAX];
    struct cg_error ignored;

    if (fd < 0)
        return;
    if (cg_run_mount_path(path, file, sizeof file, &ignored) == 0)
        unlink(file);
    close(fd);
}

bool cg_mountpoint_read_ahead(const char *path, uint64_t bytes)
{
    struct mounted mounted;
    char file[PATH_MAX];

    if (!find_mount(path, &mounted))
        return false;
    snprintf(file, sizeof file, "/sys/class/bdi/%s/read_ahead_kb", mounted.device);
    CG_CLEANUP(close_file) FILE *f = fopen(file, "we");
    if (!f)
        return false;
    return fprintf(f, "%llu\n", (unsigned long long)bytes / 1024) > 0 && fflush(f) == 0;
}
