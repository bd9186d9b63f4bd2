#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

#include "cli/attach_server.h"
#include "cli/cli.h"
#include "core/base/cleanup.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

enum {
    START_SECONDS = 120, /* that a server may take to answer */
    STOP_SECONDS = 120,  /* that it may take to end, with everything flushed */
};

/* -EIO with what the server that ended said last. */
static int server_died(const struct cli_attachment *a, struct cg_error *err)
{
    char path[PATH_MAX], line[800], last[800] = "it said nothing";
    int r = cli_attachment_path(a->id, ".log", path, sizeof path, err);

    if (r < 0)
        return r;
    FILE *in = fopen(path, "re");
    while (in && fgets(line, sizeof line, in))
        strcpy(last, line);
    if (in)
        fclose(in);
    last[strcspn(last, "\n")] = '\0';
    return cg_error_say(err, EIO, "the server of %.400s ended: %.500s", a->image, last);
}

/* Becomes the server. */
static void become_server(const struct cli_attachment *a)
{
    const char *args[16];
    sigset_t none;
    size_t n = 0;

    args[n++] = "cowgate";
    args[n++] = "--root";
    args[n++] = a->root;
    args[n++] = "--quiet";
    args[n++] = "serve";
    args[n++] = a->image;
    args[n++] = "--socket";
    args[n++] = a->socket;
    args[n++] = "--only";
    args[n++] = a->image;
    if (a->read_only)
        args[n++] = "--read-only";
    args[n] = NULL;
    setsid();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* The kernel may write to the device to get memory: it must not wait for that on behalf of him
     * who has to take what is written.  Only a wish: it needs a capability. */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    if (chdir("/") < 0) /* what it would keep from being unmounted */
        _exit(126);
    execv("/proc/self/exe", (char *const *)args);
    _exit(127);
}

/* In a child that ends at once, for nbdkit ends with its parent (1.32 does, unasked) and the server
 * is to outlive us: starts the server and tells its pid. */
static void leave_server(const struct cli_attachment *a, int log, int pipe)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    pid_t self = getpid(), child = fork();

    if (child == 0) {
        while (getppid() == self)
            nanosleep(&pause, NULL);
        int null = open("/dev/null", O_RDONLY);
        if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
            _exit(126);
        become_server(a);
    }
    _exit(child > 0 && write(pipe, &child, sizeof child) == sizeof child ? 0 : 1);
}

static int start_server(const struct cli_attachment *a, int *ret_fd, struct cg_error *err)
{
    char path[PATH_MAX];
    int ends[2], status;
    pid_t server = -1;
    int r = cli_attachment_path(a->id, ".log", path, sizeof path, err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_close) int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return cg_error_set(err, errno, "open %s", path);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return cg_error_set(err, errno, "start a server");
    pid_t child = fork();
    if (child == 0)
        leave_server(a, log, ends[1]);
    r = child < 0 ? errno : 0;
    close(ends[1]);
    ssize_t n = r ? 0 : read(ends[0], &server, sizeof server);
    close(ends[0]);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (r || n != sizeof server)
        return cg_error_set(err, r ? r : EAGAIN, "start a server");
    int fd = pidfd_open(server, 0);
    if (fd < 0 && errno == ESRCH)
        return server_died(a, err);
    if (fd < 0)
        return cg_error_set(err, errno, "start a server");
    *ret_fd = fd;
    return 0;
}

static bool has_ended(int server, int milliseconds)
{
    struct pollfd p = { .fd = server, .events = POLLIN };

    return poll(&p, 1, milliseconds) == 1;
}

static void end_server(int server)
{
    if (pidfd_send_signal(server, SIGTERM, NULL, 0) == 0)
        has_ended(server, STOP_SECONDS * 1000);
}

/* Who listens on a socket: -1 if nobody does. */
static pid_t listener(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct ucred who;
    socklen_t len = sizeof who;
    CG_CLEANUP(cg_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
        return -1;
    return who.pid;
}

static int end_listener(const char *socket, int sig, struct cg_error *err)
{
    pid_t pid = listener(socket);

    if (pid <= 0) {
        unlink(socket); /* what one leaves that was killed */
        return 0;
    }
    CG_CLEANUP(cg_close) int fd = pidfd_open(pid, 0);
    if (fd < 0 || listener(socket) != pid) /* it ended by itself */
        return 0;
    if (pidfd_send_signal(fd, sig, NULL, 0) < 0 && errno != ESRCH)
        return cg_error_set(err, errno, "end the server, process %ld", (long)pid);
    if (!has_ended(fd, STOP_SECONDS * 1000))
        return cg_error_say(err, EBUSY, "the server, process %ld, doesn't end", (long)pid);
    return 0;
}

int cli_attach_server_stop(const char *socket, struct cg_error *err)
{
    return end_listener(socket, SIGTERM, err);
}

int cli_attach_server_kill(const char *socket, struct cg_error *err)
{
    return end_listener(socket, SIGKILL, err);
}

static int shake_hands(const struct cli_attachment *a, struct cli_nbd_link *link,
                       struct cg_error *err)
{
    const struct cli_nbd_address address = cli_attachment_address(a);

    return cli_nbd_shake_hands(&address, a->connections, a->read_only, link, err);
}

/* Until the server that we started answers, or ends. */
static int wait_for_server(const struct cli_attachment *a, int server, struct cli_nbd_link *link,
                           struct cg_error *err)
{
    time_t end = cli_seconds() + START_SECONDS;
    unsigned refused = 0;
    int r;

    do {
        r = shake_hands(a, link, err);
        if (r == 0)
            return 0;
        if (listener(a->socket) > 0 && ++refused > 1) /* the first time it may just have begun to */
            return r;
        if (has_ended(server, 10))
            return server_died(a, err);
    } while (cli_seconds() < end);
    return r;
}

/* Another image may have taken the name: what the kernel has in its caches must never reach that.
 */
static int check_same(const struct cli_attachment *a, const struct cli_nbd_link *link,
                      struct cg_error *err)
{
    if (a->root[0] && !link->shows[0])
        return cg_error_say(err, EPROTO, "the server of %s doesn't tell its id", a->image);
    if (!a->shows[0] || strcmp(a->shows, link->shows) == 0)
        return 0;
    return cg_error_say(err, ESTALE,
                        "%.400s is another image or range now than /dev/nbd%d shows: id %s, not "
                        "%s. To give the device up, with what isn't written yet: cowgate detach "
                        "--force /dev/nbd%d",
                        a->image, a->index, link->shows[0] ? link->shows : "unknown", a->shows,
                        a->index);
}

static int connect_any(const struct cli_attachment *a, struct cli_nbd_link *ret_link,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_close) int server = -1;

    *ret_link = (struct cli_nbd_link){ .backend = a->id,
                                       .request_seconds = a->request_timeout,
                                       .dead_seconds = a->timeout };
    int r = shake_hands(a, ret_link, err);
    if (r == 0 || !a->root[0] || listener(a->socket) > 0)
        return r;
    r = start_server(a, &server, err);
    if (r < 0)
        return r;
    r = wait_for_server(a, server, ret_link, err);
    if (r < 0)
        end_server(server);
    return r;
}

int cli_attach_connect(const struct cli_attachment *a, struct cli_nbd_link *ret_link,
                       struct cg_error *err)
{
    int r = connect_any(a, ret_link, err);

    if (r < 0)
        return r;
    r = check_same(a, ret_link, err);
    if (r < 0) {
        cli_nbd_link_close(ret_link);
        if (a->root[0]) /* it holds what isn't ours */
            cli_attach_server_stop(a->socket, NULL);
    }
    return r;
}

/* What the kernel has as the device's size. */
static int device_size(int index, uint64_t *ret_size, struct cg_error *err)
{
    char path[64];
    unsigned long long sectors;

    snprintf(path, sizeof path, "/sys/block/nbd%d/size", index);
    FILE *in = fopen(path, "re");
    int n = in ? fscanf(in, "%llu", &sectors) : 0;
    if (in)
        fclose(in);
    if (n != 1)
        return cg_error_say(err, EIO, "read %s: it makes no sense", path);
    *ret_size = sectors * 512;
    return 0;
}

int cli_attach_reconnect(const struct cli_attachment *a, struct cli_nbd_link *ret_said,
                         struct cg_error *err)
{
    struct cli_nbd_link link;
    uint64_t size = 0;
    int r = cli_attach_connect(a, &link, err);

    if (r < 0)
        return r;
    r = device_size(a->index, &size, err);
    if (r == 0 && link.size < size)
        r = cg_error_say(err, ESTALE, "%s has %llu bytes now, fewer than /dev/nbd%d", a->image,
                         (unsigned long long)link.size, a->index);
    if (r == 0)
        r = cli_nbd_kernel_reconnect(&link, a->index, err);
    if (r == 0 && ret_said)
        *ret_said = link;
    cli_nbd_link_close(&link);
    return r;
}
