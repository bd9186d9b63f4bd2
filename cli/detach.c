#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#include "cli/attach_server.h"
#include "cli/detach.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

enum {
    BUSY_SECONDS = 3,  /* that a passing look at the device, like udev's, may take */
    FREE_SECONDS = 60, /* that the kernel may take to let a device go */
};

static void pause_a_little(void)
{
    const struct timespec pause = { .tv_nsec = 20000000 };

    nanosleep(&pause, NULL);
}

/* Whether a number is the device's or one of its partitions'. */
static bool is_ours(int index, dev_t dev)
{
    char path[64], name[PATH_MAX];

    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(dev), minor(dev));
    ssize_t n = readlink(path, name, sizeof name - 1);
    if (n < 0)
        return false;
    name[n] = '\0';
    const char *last = strrchr(name, '/');
    int number, end = 0;
    if (!last || sscanf(last, "/nbd%d%n", &number, &end) != 1 || number != index)
        return false;
    return !last[end] || last[end] == 'p';
}

/* A file system on it that is mounted, for this process or another. */
static bool find_mount(int index, const char *pid, struct cg_error *err)
{
    char path[64], line[PATH_MAX * 2], dir[PATH_MAX];
    unsigned major_, minor_;
    bool found = false;

    snprintf(path, sizeof path, "/proc/%.20s/mountinfo", pid);
    FILE *in = fopen(path, "re");
    while (in && !found && fgets(line, sizeof line, in)) {
        if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major_, &minor_, dir) == 3 &&
            is_ours(index, makedev(major_, minor_))) {
            cg_error_say(err, EBUSY, "/dev/nbd%d is in use: it's mounted on %.900s", index, dir);
            found = true;
        }
    }
    if (in)
        fclose(in);
    return found;
}

static bool find_open_file(int index, const char *pid, struct cg_error *err)
{
    char path[64], name[64] = "?";
    struct stat st;

    snprintf(path, sizeof path, "/proc/%.20s/fd", pid);
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(AT_FDCWD, path, 0);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (fstatat(dirfd(dir), e->d_name, &st, 0) < 0 || !S_ISBLK(st.st_mode) ||
            !is_ours(index, st.st_rdev))
            continue;
        snprintf(path, sizeof path, "/proc/%.20s/comm", pid);
        FILE *in = fopen(path, "re");
        if (in && !fgets(name, sizeof name, in))
            strcpy(name, "?");
        if (in)
            fclose(in);
        name[strcspn(name, "\n")] = '\0';
        cg_error_say(err, EBUSY, "/dev/nbd%d is in use: process %s (%s) has it open", index, pid,
                     name);
        return true;
    }
    return false;
}

/* Another block device that stands on it: device mapper, md.  holders: of a disk or partition. */
static bool find_device(int index, const char *holders, struct cg_error *err)
{
    char path[PATH_MAX + 64], name[256];

    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(AT_FDCWD, holders, 0);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s", e->d_name);
        snprintf(path, sizeof path, "%s/%s/dm/name", holders, e->d_name);
        FILE *in = fopen(path, "re");
        if (in && !fgets(name, sizeof name, in))
            snprintf(name, sizeof name, "%s", e->d_name);
        if (in)
            fclose(in);
        name[strcspn(name, "\n")] = '\0';
        cg_error_say(err, EBUSY, "/dev/nbd%d is in use: the device %s stands on it", index, name);
        return true;
    }
    return false;
}

static bool find_devices(int index, struct cg_error *err)
{
    char path[PATH_MAX + 64], prefix[32];

    snprintf(path, sizeof path, "/sys/block/nbd%d/holders", index);
    if (find_device(index, path, err))
        return true;
    snprintf(path, sizeof path, "/sys/block/nbd%d", index);
    snprintf(prefix, sizeof prefix, "nbd%dp", index);
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(AT_FDCWD, path, 0);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0) {
            snprintf(path, sizeof path, "/sys/block/nbd%d/%s/holders", index, e->d_name);
            if (find_device(index, path, err))
                return true;
        }
    }
    return false;
}

static bool find_swap(int index, struct cg_error *err)
{
    char line[PATH_MAX + 128], path[PATH_MAX];
    struct stat st;
    bool found = false;
    FILE *in = fopen("/proc/swaps", "re");

    while (in && !found && fgets(line, sizeof line, in)) {
        if (sscanf(line, "%4095s", path) == 1 && stat(path, &st) == 0 && S_ISBLK(st.st_mode) &&
            is_ours(index, st.st_rdev)) {
            cg_error_say(err, EBUSY, "/dev/nbd%d is in use: %s is swap space", index, path);
            found = true;
        }
    }
    if (in)
        fclose(in);
    return found;
}

/* Whoever uses the device, with a message that says who. */
static bool find_user(int index, struct cg_error *err)
{
    if (find_devices(index, err) || find_swap(index, err))
        return true;
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(AT_FDCWD, "/proc", 0);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        if (e->d_name[strspn(e->d_name, "0123456789")] == '\0' &&
            (find_mount(index, e->d_name, err) || find_open_file(index, e->d_name, err)))
            return true;
    }
    return false;
}

/* Opens the device for this process alone. */
static int open_alone(int index, int *ret_fd, struct cg_error *err)
{
    char path[32];

    snprintf(path, sizeof path, "/dev/nbd%d", index);
    for (unsigned i = 0; find_user(index, err); i++) {
        if (i >= BUSY_SECONDS * 50)
            return -EBUSY;
        pause_a_little();
    }
    CG_CLEANUP(cg_close) int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
    if (fd < 0 && errno == EBUSY)
        return cg_error_say(err, EBUSY, "%s is in use, by the kernel itself", path);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int wait_until_free(int index, struct cg_error *err)
{
    for (unsigned i = 0; i < FREE_SECONDS * 50; i++) {
        if (!cli_nbd_connected(index))
            return 0;
        pause_a_little();
    }
    return cg_error_say(err, EBUSY,
                        "/dev/nbd%d is disconnected, but somebody has it open still: it is free "
                        "when that has ended",
                        index);
}

int cli_detach_device(int index, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    int r = open_alone(index, &fd, err);

    if (r < 0)
        return r;
    if (fsync(fd) < 0)
        return cg_error_set(err, errno, "flush /dev/nbd%d, which stays attached", index);
    ioctl(fd, BLKFLSBUF, 0); /* pages of what may be another image next time */
    r = cli_nbd_kernel_disconnect(index, err);
    close(fd);
    fd = -1;
    return r < 0 ? r : wait_until_free(index, err);
}

/* Nobody watches it: what the watcher would have done. */
static int clean_up(const struct cli_attachment *a, struct cg_error *err)
{
    int r = a->socket[0] ? cli_attach_server_stop(a->socket, err) : 0;

    if (r == 0)
        cli_attachment_remove(a);
    return r;
}

/* The watcher finds the device gone, ends its server and itself. */
static int wait_for_watcher(const struct cli_attachment *a, int lock, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = pidfd_open(a->watcher, 0);

    /* While that is locked the pid is his, and so is fd. */
    if (flock(lock, LOCK_SH | LOCK_NB) == 0)
        return 0;
    if (fd >= 0 && pidfd_send_signal(fd, SIGHUP, NULL, 0) < 0 && errno != ESRCH)
        return cg_error_set(err, errno, "wake process %ld", (long)a->watcher);
    while (flock(lock, LOCK_SH) < 0) {
        if (errno != EINTR)
            return cg_error_set(err, errno, "wait for process %ld", (long)a->watcher);
    }
    return 0;
}

/* Requests may be waiting for connections that nobody makes again. */
static int revive(const struct cli_attachment *a, struct cg_error *err)
{
    int r = cli_attach_reconnect(a, NULL, err);

    return r < 0 ? cg_error_prefix(err, r,
                                   "it can't be flushed, so it stays attached (but with "
                                   "--force)")
                 : 0;
}

static int force(int index, struct cg_error *err)
{
    int r = cli_nbd_kernel_disconnect(index, err);

    return r < 0 ? r : wait_until_free(index, err);
}

static int detach(int index, bool forced, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int lock = -1;
    struct cli_attachment a = { .index = index };
    char backend[CLI_NBD_BACKEND_SIZE];
    bool watched = false;
    int r = cli_nbd_kernel_load(err);

    if (r < 0)
        return r;
    cli_nbd_backend(index, backend);
    bool connected = cli_nbd_connected(index);
    r = cli_attachment_read(index, &a, &lock, &watched, err);
    if (r < 0 && r != -ENOENT)
        return r;
    bool known = r == 0 && (!*backend || strcmp(backend, a.id) == 0 || !connected);
    if (!connected) {
        if (known && watched) /* it is just about to find out */
            wait_for_watcher(&a, lock, NULL);
        else if (known)
            r = clean_up(&a, err);
        return known && r < 0 ? r : cg_error_say(err, ENODEV, "/dev/nbd%d isn't attached", index);
    }
    if (!known && strncmp(backend, CLI_ATTACHMENT_ID_PREFIX, strlen(CLI_ATTACHMENT_ID_PREFIX)))
        return cg_error_say(err, EINVAL,
                            "/dev/nbd%d was attached by somebody else; 'nbd-client -d' detaches it",
                            index);
    if (!known) { /* attach was killed in between: its server goes by the id */
        snprintf(a.id, sizeof a.id, "%s", backend);
        r = cli_attachment_path(a.id, ".sock", a.socket, sizeof a.socket, err);
        if (r < 0)
            return r;
    }
    if (known && !watched && !forced)
        r = revive(&a, err);
    else
        r = 0;
    if (r == 0)
        r = forced ? force(index, err) : cli_detach_device(index, err);
    if (r == 0)
        r = known && watched ? wait_for_watcher(&a, lock, err) : clean_up(&a, err);
    return r;
}

int cli_detach(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "force", no_argument, NULL, 'f' }, { 0 } };
    bool forced = false;

    CLI_ARGS(options, cli_set_flag, &forced, 1, 1);
    int index = cli_attachment_index(argv[optind]);
    if (index < 0)
        return cli_misused("detach", "%s is no device /dev/nbdN", argv[optind]);
    return detach(index, forced, &cli->err) < 0 ? cli_failed(cli) : CLI_OK;
}
