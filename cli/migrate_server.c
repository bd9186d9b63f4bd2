#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/migrate_server.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/image/file.h"
#include "core/image/nbd.h"
#include "core/jobs/migrate_spec.h"

/* The server holds a flock on the file `server`, which has its pid, for as long as it lives: it
 * inherits the descriptor. */

#define START_SECONDS 60
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

/* Opens the file `server`; *ret_free: nobody holds it, and then we do. */
static int open_lock(const char *dir, bool create, int *ret_fd, bool *ret_free,
                     struct cg_error *err)
{
    char path[PATH_MAX];
    int r = server_path(dir, "server", path, err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_close) int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    *ret_free = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!*ret_free && errno != EWOULDBLOCK)
        return cg_error_set(err, errno, "lock %s", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

bool cli_migrate_server_runs(const char *dir)
{
    CG_CLEANUP(cg_close) int fd = -1;
    bool is_free;

    return open_lock(dir, false, &fd, &is_free, NULL) == 0 && !is_free;
}

/* In the child: becomes the server. */
static void become_server(const struct cli *cli, const struct cg_migration *m, const char *path)
{
    const struct cg_migration_record *record = &m->record;
    const char *args[24];
    size_t n = 0;

    args[n++] = "cowgate";
    args[n++] = "--quiet";
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
        if (record->insecure)
            args[n++] = "--insecure";
        if (cg_arg_kind(record->source) != CG_ARG_NAME) /* nobody may know its holes */
            args[n++] = "--detect-zeros";
    }
    args[n++] = "--read-only";
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
        if (ftruncate(lock, 0) < 0 || pwrite(lock, pid, (size_t)n, 0) != n ||
            dup2(lock, LOCK_FD) < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
            _exit(126);
        setsid();
        become_server(cli, m, path);
    }
    *ret_pid = child;
    return 0;
}

/* What the server said last. */
static int why_dead(const char *dir, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    char path[PATH_MAX];
    size_t len = 0;

    if (server_path(dir, "server.log", path, NULL) == 0)
        cg_file_read(AT_FDCWD, path, 1 << 20, &text, &len, NULL);
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    const char *last = text ? strrchr(text, '\n') : NULL;
    return cg_error_say(err, EIO, "the migration's server ended: %s",
                        last      ? last + 1
                        : len > 0 ? text
                                  : "it said nothing");
}

static int answers(const struct cg_migration *m, struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    char location[CG_NAME_MAX * 2];
    const struct cg_migration_image *last = &m->record.image[m->record.count - 1];
    int r = cg_migrate_location(m->record.address, last->name, location, err);

    if (r < 0)
        return r;
    return strcmp(m->record.stream, "nbd") == 0 ? cg_nbd_open(location, false, &image, err)
                                                : cg_file_open(location, false, &image, err);
}

static int wait_until_it_answers(const struct cg_migration *m, pid_t child, struct cg_error *err)
{
    const struct timespec pause = { .tv_nsec = 20000000 };
    int r = 0;

    for (unsigned i = 0; i < START_SECONDS * 50; i++) {
        int status;
        if (waitpid(child, &status, WNOHANG) == child)
            return why_dead(m->dir, err);
        r = answers(m, err);
        if (r == 0)
            return 0;
        nanosleep(&pause, NULL);
    }
    return cg_error_prefix(err, r, "the migration's server doesn't answer");
}

int cli_migrate_server_start(struct cli *cli, const struct cg_migration *m)
{
    CG_CLEANUP(cg_close) int lock = -1;
    char path[PATH_MAX];
    bool is_free;
    pid_t child = -1;
    bool file = strcmp(m->record.stream, "file") == 0;

    int r = open_lock(m->dir, true, &lock, &is_free, &cli->err);
    if (r < 0 || !is_free)
        return r;
    r = run_path(&m->record, file ? "" : ".sock", path, &cli->err);
    if (r == 0 && file && mkdir(path, 0700) < 0 && errno != EEXIST)
        r = cg_error_set(&cli->err, errno, "make %s", path);
    if (r == 0)
        r = spawn(cli, m, path, lock, &child, &cli->err);
    if (r == 0)
        r = wait_until_it_answers(m, child, &cli->err);
    if (r < 0) {
        struct cg_error ignored;
        close(lock);
        lock = -1;
        cli_migrate_server_stop(m, &ignored);
    }
    return r;
}

/* Asks the server, which holds the lock, to end, until it has. */
static int end_server(int lock, struct cg_error *err)
{
    const struct timespec pause = { .tv_nsec = 20000000 };
    char text[16] = "";

    if (pread(lock, text, sizeof text - 1, 0) <= 0 || atol(text) <= 0)
        return cg_error_say(err, EIO, "the migration's server left no pid");
    if (kill((pid_t)atol(text), SIGTERM) < 0 && errno != ESRCH)
        return cg_error_set(err, errno, "end the migration's server, process %ld", atol(text));
    for (unsigned i = 0; i < STOP_SECONDS * 50; i++) {
        if (flock(lock, LOCK_EX | LOCK_NB) == 0)
            return 0;
        nanosleep(&pause, NULL);
    }
    return cg_error_say(err, EBUSY, "the migration's server, process %ld, doesn't end", atol(text));
}

int cli_migrate_server_stop(const struct cg_migration *m, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int lock = -1;
    char path[PATH_MAX];
    bool is_free;

    int r = open_lock(m->dir, false, &lock, &is_free, err);
    if (r == -ENOENT)
        return 0;
    if (r == 0 && !is_free)
        r = end_server(lock, err);
    if (r == 0)
        r = run_path(&m->record, "", path, err);
    if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove %s", path);
    return r;
}
