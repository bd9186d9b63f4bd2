/* cowgate-fuse ROOT DIR [-o OPTION,…] [-f]: shows the images of a root as files below DIR.
 *
 * The life of a mount:
 *   1. All that can be wrong is found out while errors still reach the caller: the root is opened
 *      (which starts no thread), the options are checked, a dead mount on DIR is detached, the lock
 *      of DIR is taken, DIR is mounted.
 *   2. fork.  The child serves; the parent waits until the kernel has greeted the child, so that
 *      the mount is usable when the parent exits with 0, or exits with 1 after the child.
 *   3. The loop ends when DIR is unmounted, or at SIGTERM, SIGINT or SIGHUP, which unmount it.
 *   4. Everything still open is flushed and closed, and only then the lock goes.
 *
 * The lock is a flock on the file that cg_run_mount_path names, held from before the mount until
 * the process ends, however it ends; the file is removed at a clean end.  So whoever unmounts
 * (cowgate umount) opens that file first, unmounts, and waits for the lock: then all is flushed.
 *
 * Threads: none before the fork.  Then the workers of order.c, and this one, which only waits for
 * them.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/gateway.h"
#include "fuse/log.h"
#include "fuse/mountpoint.h"
#include "fuse/ops.h"
#include "fuse/options.h"
#include "fuse/order.h"

/* Reads of a point are decoded in the thread that asks, and one that waits for a slow repository
 * must not keep the others waiting. */
#define THREADS 16

static int usage(FILE *to, int status)
{
    fputs("Usage: cowgate-fuse ROOT DIR [-o OPTION,...] [-f]\n"
          "Shows the images of a root as files below DIR.\n"
          "  -o ro         nothing can be written\n"
          "  -o project=P  only project P is there\n"
          "  -o only=NAME  only this image is there (may be given several times)\n"
          "  -o ...        options of mount(8) and mount.fuse3(8): allow_other, ...\n"
          "  -f            stay in the foreground, messages to standard error\n",
          to);
    return status;
}

/* Everything of one mount.  Released by clear in any state. */
struct mount {
    struct cg_options options;
    char path[PATH_MAX];
    int lock;
    struct fuse_session *session;
    bool mounted;
    struct cg_fs fs;
};

static void clear(struct mount *m)
{
    if (m->mounted)
        fuse_session_unmount(m->session);
    if (m->fs.opens)
        cg_ops_shutdown(&m->fs);
    if (m->session)
        fuse_session_destroy(m->session);
    cg_order_free(m->fs.order);
    cg_opens_free(m->fs.opens);
    cg_nodes_free(m->fs.nodes);
    cg_gateway_free(m->fs.gateway);
    cg_mountpoint_unlock(m->path, m->lock);
    cg_options_clear(&m->options);
}

static int open_root(struct mount *m, struct cg_error *err)
{
    const struct cg_gateway_options options = {
        .serving = true,
        .root = m->options.root,
        .project = m->options.project,
        .only = (const char *const *)m->options.only,
        .read_only = m->options.read_only,
    };
    int r = cg_gateway_new(&options, &m->fs.gateway, err);

    if (r < 0)
        return r;
    m->fs.nodes = cg_nodes_new();
    m->fs.opens = cg_opens_new();
    m->fs.order = cg_order_new();
    if (!m->fs.nodes || !m->fs.opens || !m->fs.order)
        return cg_error_set(err, ENOMEM, "mount");
    m->fs.read_only = m->options.read_only;
    m->fs.max_read = m->options.max_read;
    m->fs.uid = getuid();
    m->fs.gid = getgid();
    m->fs.started = time(NULL);
    m->fs.root.kind = CG_NODE_DIRECTORY;
    return 0;
}

/* The options for libfuse: what the user gave, and what mount(8) shows as source and type. */
static int make_session(struct mount *m, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *names = NULL;
    CG_CLEANUP(cg_free) char *source = NULL;

    if (asprintf(&source, "fsname=%s", cg_gateway_root(m->fs.gateway)) < 0 ||
        fuse_opt_add_opt_escaped(&names, source) < 0 ||
        fuse_opt_add_opt(&names, "subtype=cowgate-fuse") < 0 ||
        fuse_opt_add_arg(&m->options.rest, "-o") < 0 ||
        fuse_opt_add_arg(&m->options.rest, names) < 0)
        return cg_error_set(err, ENOMEM, "mount");
    m->session = fuse_session_new(&m->options.rest, &cg_ops, sizeof cg_ops, &m->fs);
    if (!m->session)
        return cg_error_say(err, EINVAL, "the options are wrong");
    return 0;
}

static int mount_it(struct mount *m, struct cg_error *err)
{
    int r = cg_mountpoint_prepare(m->options.dir, m->path, err);

    if (r == 0)
        r = cg_mountpoint_lock(m->path, &m->lock, err);
    if (r < 0)
        return r;
    m->fs.mountpoint = m->path;
    if (fuse_session_mount(m->session, m->path) != 0)
        return cg_error_say(err, EIO, "can't mount on %s", m->path);
    m->mounted = true;
    return 0;
}

/* To the child: where to say that the mount is usable. */
static int ready_fd = -1;

static void be_ready(void)
{
    CG_CLEANUP(cg_close) int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (ready_fd < 0)
        return;
    cg_log_to_syslog();
    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        dup2(null, fd);
    if (write(ready_fd, "", 1) != 1)
        cg_log("nobody waits for the mount");
    close(ready_fd);
    ready_fd = -1;
}

/* A descriptor that can be read when a signal asks for the end; all threads are to come after. */
static int catch_signals(void)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void warn(const char *message)
{
    cg_log("warning: %s", message);
}

/* Until the mount is gone.  Returns the exit status. */
static int serve(struct mount *m)
{
    CG_CLEANUP(cg_close) int stop = catch_signals();
    struct cg_error err;

    if (!m->options.read_only && cg_gateway_watch_pool(m->fs.gateway, warn, &err) < 0)
        cg_log("%s", err.message);
    int r = stop < 0 ? -errno : cg_order_serve(m->fs.order, m->session, THREADS, stop, be_ready);

    if (r < 0)
        cg_log("serve %s: %s", m->path, strerror(-r));
    return r < 0 ? 1 : 0;
}

/* The parent's part: the status to exit with. */
static int wait_until_ready(int fd, pid_t child)
{
    char byte;
    int status;
    ssize_t n;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1)
        return 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return 1; /* the child has said why */
}

/* Goes on in a child of its own session; returns there.  The parent doesn't. */
static int go_to_background(struct cg_error *err)
{
    int pipe_fds[2];

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return cg_error_set(err, errno, "make a pipe");
    pid_t child = fork();
    if (child < 0) {
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        return cg_error_set(err, errno, "fork");
    }
    if (child > 0) {
        close(pipe_fds[1]);
        _exit(wait_until_ready(pipe_fds[0], child)); /* the mount is the child's */
    }
    close(pipe_fds[0]);
    ready_fd = pipe_fds[1];
    setsid();
    return chdir("/") == 0 ? 0 : cg_error_set(err, errno, "chdir to /");
}

static int run(struct mount *m, struct cg_error *err)
{
    int r = open_root(m, err);

    if (r == 0)
        r = make_session(m, err);
    if (r == 0)
        r = mount_it(m, err);
    if (r < 0 || m->options.foreground)
        return r;
    return go_to_background(err);
}

int main(int argc, char **argv)
{
    struct mount m = { .lock = -1 };
    struct cg_error err;
    int status = 1;

    cg_log_start();
    cg_files_raise_limit();
    if (cg_options_parse(argc, argv, &m.options, &err) < 0) {
        cg_log("%s", err.message);
        usage(stderr, 0);
    } else if (m.options.help) {
        status = usage(stdout, 0);
    } else if (m.options.version) {
        printf("cowgate-fuse %s, libfuse %s\n", PACKAGE_VERSION, fuse_pkgversion());
        status = 0;
    } else if (run(&m, &err) < 0) {
        cg_log("%s", err.message);
    } else {
        status = serve(&m);
    }
    clear(&m);
    return status;
}
