#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/attach_server.h"
#include "cli/attach_watch.h"
#include "cli/cli.h"
#include "cli/detach.h"

enum {
    LOOK_MS = 5000, /* between looks at a device of which there is no news */
    RETRY_MS = 500, /* between attempts to reach a server, at first */
    RETRY_MAX_MS = 10000,
    SETTLE_MS = 50, /* that the other connections may take to die too */
    LOG_MAX = 1 << 20,
};

__attribute__((format(printf, 2, 3))) static void say(const struct cli_attach_watch *w,
                                                      const char *fmt, ...)
{
    char time_text[CLI_TIME_TEXT];
    va_list ap;

    cli_time_text(time_text, time(NULL));
    fprintf(stderr, "%s /dev/nbd%d: ", time_text, w->a.index);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

int cli_attach_block_signals(struct cg_error *err)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? cg_error_set(err, errno, "wait for signals") : fd;
}

static bool is_attached(const struct cli_attach_watch *w)
{
    return cli_nbd_connected_by(w->a.index, w->a.id);
}

/* True if one of them wants the device to be detached. */
static bool take_signals(struct cli_attach_watch *w)
{
    struct signalfd_siginfo info;
    bool end = false;

    while (read(w->signals, &info, sizeof info) == sizeof info)
        end |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT;
    return end;
}

/* The kernel sends a request that isn't answered in time again, and nothing keeps the server from
 * doing the first of the two late, over what was written since.  So a server of ours that is there,
 * when connections have been there for that time, ends first. */
static int end_stuck_server(struct cli_attach_watch *w, struct cg_error *err)
{
    if (!w->a.root[0] || cli_seconds() - w->since < (time_t)w->a.request_timeout)
        return 0;
    return cli_attach_server_kill(w->a.socket, err);
}

static void mend(struct cli_attach_watch *w, bool *said)
{
    const struct timespec settle = { .tv_nsec = SETTLE_MS * 1000000 };
    struct cg_error err;

    /* What is heard up to here is mended; what dies later is heard later. */
    nanosleep(&settle, NULL);
    cli_nbd_watch_read(w->news, w->a.index);
    int r = end_stuck_server(w, &err);
    if (r == 0)
        r = cli_attach_reconnect(&w->a, NULL, &err);
    if (r == 0) {
        say(w, "connected again");
        w->since = cli_seconds();
        w->broken = *said = false;
    } else if (!*said && is_attached(w)) {
        say(w, "%s; trying on", err.message);
        *said = true;
    }
}

/* A server that has no room may say so for each write.  The log is in memory, as are the maps of
 * volumes: it must not take all of that. */
static void cut_log(const struct cli_attach_watch *w)
{
    char path[PATH_MAX];
    struct stat st;

    if (cli_attachment_path(w->a.id, ".log", path, sizeof path, NULL) == 0 &&
        stat(path, &st) == 0 && st.st_size > LOG_MAX && truncate(path, 0) < 0)
        say(w, "cut %s: %s", path, strerror(errno));
}

/* In a process of its own: what is flushed may have to wait until connections that die are made
 * again, by this one. */
static void detach(const struct cli_attach_watch *w)
{
    struct cg_error err;
    pid_t pid = fork();

    if (pid < 0)
        say(w, "detach: %s", strerror(errno));
    if (pid != 0)
        return;
    if (cli_detach_device(w->a.index, &err) < 0)
        say(w, "%s", err.message);
    _exit(0);
}

int cli_attach_watch(struct cli_attach_watch *w, struct cg_error *err)
{
    struct pollfd p[] = {
        { .fd = cli_nbd_watch_fd(w->news), .events = POLLIN },
        { .fd = w->signals, .events = POLLIN },
    };
    bool said = false; /* why the server can't be reached */
    int retry = RETRY_MS;

    w->since = cli_seconds();
    while (is_attached(w)) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        cut_log(w);
        if (w->broken)
            mend(w, &said);
        if (!w->broken)
            retry = RETRY_MS;
        if (poll(p, 2, w->broken ? retry : LOOK_MS) < 0 && errno != EINTR)
            return cg_error_set(err, errno, "wait for news of /dev/nbd%d", w->a.index);
        retry = retry < RETRY_MAX_MS / 2 ? 2 * retry : RETRY_MAX_MS;
        bool end = take_signals(w);
        if (cli_nbd_watch_read(w->news, w->a.index))
            w->broken = true;
        if (end)
            detach(w);
    }
    return w->a.root[0] ? cli_attach_server_stop(w->a.socket, err) : 0;
}
