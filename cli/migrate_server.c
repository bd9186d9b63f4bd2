#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/migrate_check.h"
#include "cli/migrate_server.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/image/file.h"
#include "core/image/nbd.h"
#include "core/jobs/migrate_spec.h"

/* The server holds a lock on the file `server`, which has its pid, for as long as it lives: it
 * inherits the descriptor, and with it the lock of the open file (fcntl(2)), which others can look
 * at without taking it. */

#define START_SECONDS 60
#define REACH_SECONDS 5 /* that one which serves may take to be reached */
#define STOP_SECONDS 60
#define LOCK_FD 100 /* out of the way of what a server's descriptors are numbered by */

static int server_path(const char *dir, const char *name, char ret[static PATH_MAX],
                       struct cg_error *err)
{
    return snprintf(ret, PATH_MAX, "%s/%s", dir, name) < PATH_MAX
               ? 0
               : cg_error_set(err, ENAMETOOLONG, "%s", dir);
}

/* Where this migration's socket or mount is. */
static int run_path(const struct cg_migration_record *record, const char *suffix,
                    char ret[static PATH_MAX], struct cg_error *err)
{
    char run[PATH_MAX];
    int r = cg_run_dir(run, sizeof run, err);

    if (r == 0 && snprintf(ret, PATH_MAX, "%s/migrate-%s%s", run, record->uuid, suffix) >= PATH_MAX)
        r = cg_error_set(err, ENAMETOOLONG, "%s", run);
    return r;
}

int cli_migrate_server_address(const struct cg_migration_record *record, const char *stream,
                               char ret[static CG_NAME_MAX], struct cg_error *err)
{
    char path[PATH_MAX];
    bool nbd = strcmp(stream, "nbd") == 0;
    int n;

    if (!record->own) { /* of a server that listens where it does by default */
        if (!nbd)
            return cg_error_say(err, EINVAL,
                                "where is it mounted? Say --advertise DIR, or --serve");
        int r = cg_run_dir(path, sizeof path, err);
        if (r < 0)
            return r;
        n = snprintf(ret, CG_NAME_MAX, "nbd+unix:///?socket=%s/nbd.sock", path);
    } else if (nbd && record->listen[0]) {
        n = snprintf(ret, CG_NAME_MAX, "%s://%s", record->certificates[0] ? "nbds" : "nbd",
                     record->listen);
    } else {
        int r = run_path(record, nbd ? ".sock" : "", path, err);
        if (r < 0)
            return r;
        n = snprintf(ret, CG_NAME_MAX, "%s%s", nbd ? "nbd+unix:///?socket=" : "", path);
    }
    return n < CG_NAME_MAX ? 0 : cg_error_set(err, ENAMETOOLONG, "%s", record->listen);
}

static int open_lock(const char *dir, bool create, int *ret_fd, struct cg_error *err)
{
    char path[PATH_MAX];
    int r = server_path(dir, "server", path, err);

    if (r < 0)
        return r;
    *ret_fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    return *ret_fd < 0 ? cg_error_set(err, errno, "open %s", path) : 0;
}

static bool is_locked(int fd)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

bool cli_migrate_server_runs(const char *dir)
{
    CG_CLEANUP(cg_close) int fd = -1;

    return open_lock(dir, false, &fd, NULL) == 0 && is_locked(fd);
}

/* Takes the lock for a server that is to be started.  An old pid must not stay beside it: it may be
 * somebody else's by now. */
static int take_lock(int fd, struct cg_error *err)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    if (fcntl(fd, F_OFD_SETLK, &lock) < 0 || ftruncate(fd, 0) < 0)
        return cg_error_set(err, errno, "lock the migration's server");
    return 0;
}

/* In the child: becomes the server. */
static void become_server(const struct cli *cli, const struct cg_migration *m, const char *path)
{
    const struct cg_migration_record *record = &m->record;
    const char **args = calloc(24 + 2 * record->count, sizeof *args);
    size_t n = 0;

    if (!args)
        _exit(126);
    args[n++] = "cowgate";
    args[n++] = "--root";
    args[n++] = cg_gateway_root(cli->gateway);
    if (strcmp(record->stream, "file") == 0) {
        args[n++] = "mount";
        args[n++] = "--foreground";
        args[n++] = path;
    } else {
        args[n++] = "serve";
        args[n++] = record->listen[0] ? "--listen" : "--socket";
        args[n++] = record->listen[0] ? record->listen : path;
        if (record->certificates[0]) {
            args[n++] = "--tls-certificates";
            args[n++] = record->certificates;
        }
        if (record->verify_peer)
            args[n++] = "--tls-verify-peer";
        if (record->insecure)
            args[n++] = "--insecure";
        if (cg_arg_kind(record->source) != CG_ARG_NAME) /* nobody may know its holes */
            args[n++] = "--detect-zeros";
    }
    args[n++] = "--read-only";
    for (size_t i = 0; i < record->count; i++) {
        args[n++] = "--only";
        args[n++] = record->image[i].name;
    }
    args[n] = NULL;
    execv("/proc/self/exe", (char *const *)args);
    _exit(127);
}

/* Where the child prints to. */
static int open_log(const char *dir, struct cg_error *err)
{
    char path[PATH_MAX];
    int r = server_path(dir, "server.log", path, err);

    if (r < 0)
        return r;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return fd < 0 ? cg_error_set(err, errno, "open %s", path) : fd;
}

static int spawn(const struct cli *cli, const struct cg_migration *m, const char *path, int lock,
                 pid_t *ret_pid, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int log = open_log(m->dir, err);
    CG_CLEANUP(cg_close) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char pid[16];

    if (log < 0)
        return log;
    if (null < 0)
        return cg_error_set(err, errno, "open /dev/null");
    pid_t child = fork();
    if (child < 0)
        return cg_error_set(err, errno, "start a server");
    if (child == 0) {
        int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
        if (pwrite(lock, pid, (size_t)n, 0) != n || dup2(lock, LOCK_FD) < 0 || dup2(null, 0) < 0 ||
            dup2(log, 1) < 0 || dup2(log, 2) < 0)
            _exit(126);
        setsid();
        become_server(cli, m, path);
    }
    *ret_pid = child;
    return 0;
}

#define LOG_SIZE 4096

/* What the server said first or last, "" for nothing. */
static void read_log(const char *dir, bool last, char ret[static LOG_SIZE])
{
    char path[PATH_MAX];
    int r = server_path(dir, "server.log", path, NULL);
    CG_CLEANUP(cg_close) int fd = r < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = pread(fd, ret, LOG_SIZE - 1, last && size >= LOG_SIZE ? size - LOG_SIZE + 1 : 0);

    while (n > 0 && ret[n - 1] == '\n')
        n--;
    ret[n > 0 ? n : 0] = '\0';
}

int cli_migrate_server_died(const char *dir, struct cg_error *err)
{
    char text[LOG_SIZE];

    read_log(dir, true, text);
    char *usage = strstr(text, "\nusage:"); /* no news */
    if (usage)
        *usage = '\0';
    const char *last = strrchr(text, '\n');
    return cg_error_say(err, EIO, "the migration's server ended: %.800s",
                        last    ? last + 1
                        : *text ? text
                                : "it said nothing");
}

static int open_at(const struct cg_migration *m, const char *address, struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    char location[CG_NAME_MAX * 2];
    const struct cg_migration_image *last = &m->record.image[m->record.count - 1];
    int r = cg_migrate_location(address, last->name, location, err);

    if (r < 0)
        return r;
    return strcmp(m->record.stream, "file") == 0 ? cg_file_open(location, false, &image, err)
                                                 : cg_nbd_open(location, false, &image, err);
}

/* Whether it serves, be it that nobody reaches it: by what it says, as somebody else may answer at
 * an address that ours is still trying to take, or by its own mount. */
static bool serves(const struct cg_migration *m)
{
    char text[LOG_SIZE], path[PATH_MAX];

    if (strcmp(m->record.stream, "file") == 0)
        return run_path(&m->record, "", path, NULL) == 0 && open_at(m, path, NULL) == 0;
    read_log(m->dir, false, text);
    return strstr(text, "serving on ") != NULL;
}

static int wait_until_it_answers(struct cli *cli, const struct cg_migration *m, int lock)
{
    const struct timespec pause = { .tv_nsec = 20000000 };
    struct cg_error *err = &cli->err;
    time_t end = cli_seconds() + START_SECONDS;
    bool up = false;
    int r;

    do {
        if (!is_locked(lock))
            return cli_migrate_server_died(m->dir, err);
        if (!up && serves(m)) {
            up = true;
            end = cli_seconds() + REACH_SECONDS;
        }
        r = up ? open_at(m, m->record.address, err)
               : cg_error_say(err, EAGAIN, "it isn't ready yet");
        if (r == 0)
            return 0;
        if (cli_interrupted())
            return cg_error_say(err, ECANCELED, "interrupted");
        nanosleep(&pause, NULL);
    } while (cli_seconds() < end);
    return cg_error_prefix(err, r,
                           up ? "the migration's server doesn't answer at %s"
                              : "the migration's server doesn't answer",
                           m->record.address);
}

/* Starts it; afterwards only it has the lock. */
static int start(struct cli *cli, const struct cg_migration *m)
{
    CG_CLEANUP(cg_close) int lock = -1;
    char path[PATH_MAX];
    pid_t child;
    bool file = strcmp(m->record.stream, "file") == 0;

    int r =
        cli_migrate_check_sources(cli, &m->record); /* of a server one sees only that it fails */
    if (r == 0)
        r = open_lock(m->dir, true, &lock, &cli->err);
    if (r == 0)
        r = take_lock(lock, &cli->err);
    if (r == 0)
        r = run_path(&m->record, file ? "" : ".sock", path, &cli->err);
    if (r == 0 && file && mkdir(path, 0700) < 0 && errno != EEXIST)
        r = cg_error_set(&cli->err, errno, "make %s", path);
    return r < 0 ? r : spawn(cli, m, path, lock, &child, &cli->err);
}

static int wait_for_it(struct cli *cli, const struct cg_migration *m)
{
    CG_CLEANUP(cg_close) int lock = -1;
    int r = open_lock(m->dir, false, &lock, &cli->err);

    return r < 0 ? r : wait_until_it_answers(cli, m, lock);
}

int cli_migrate_server_start(struct cli *cli, const struct cg_migration *m)
{
    if (cli_migrate_server_runs(m->dir)) {
        int r = wait_for_it(cli, m);
        if (r == 0 || cli_migrate_server_runs(m->dir))
            return r;
    } /* else it was just ending */
    int r = start(cli, m);
    return r < 0 ? r : wait_for_it(cli, m);
}

/* Asks the server, which holds the lock, to end, until it has. */
static int end_server(int lock, struct cg_error *err)
{
    const struct timespec pause = { .tv_nsec = 20000000 };
    char text[16];
    long asked = 0;

    for (unsigned i = 0; i < STOP_SECONDS * 50; i++) {
        ssize_t n = pread(lock, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        long pid = atol(text); /* 0: it is just starting */
        if (!is_locked(lock))
            return 0;
        if (pid > 0 && pid != asked && kill((pid_t)pid, SIGTERM) < 0 && errno != ESRCH)
            return cg_error_set(err, errno, "end the migration's server, process %ld", pid);
        asked = pid;
        nanosleep(&pause, NULL);
    }
    return cg_error_say(err, EBUSY, "the migration's server, process %ld, doesn't end", asked);
}

/* What one that didn't end by itself leaves. */
static int remove_leftovers(const struct cg_migration_record *record, struct cg_error *err)
{
    char dir[PATH_MAX], path[PATH_MAX];
    int r = run_path(record, ".sock", path, err);

    if (r == 0)
        r = run_path(record, "", dir, err);
    if (r < 0)
        return r;
    if (unlink(path) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove %s", path);
    if (rmdir(dir) == 0 || errno == ENOENT)
        return 0;
    if (errno == EBUSY || errno == ENOTCONN) {
        r = cli_unmount(dir, true, err);
        if (r == 0)
            r = cg_run_mount_path(dir, path, sizeof path, err);
        if (r < 0)
            return r;
        unlink(path);
    }
    return rmdir(dir) == 0 ? 0 : cg_error_set(err, errno, "remove %s", dir);
}

int cli_migrate_server_stop(const struct cg_migration *m, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int lock = -1;

    int r = open_lock(m->dir, false, &lock, err);
    if (r == 0)
        r = end_server(lock, err);
    return r < 0 && r != -ENOENT ? r : remove_leftovers(&m->record, err);
}
