#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/serve_socket.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

enum { ACTIVATION_FD = 3 };

static int socket_path(const char *wanted, struct sockaddr_un *ret, struct cg_error *err)
{
    char run[PATH_MAX], path[PATH_MAX + 16];

    if (wanted) {
        snprintf(path, sizeof path, "%s", wanted);
    } else {
        int r = cg_run_dir(run, sizeof run, err);
        if (r < 0)
            return r;
        snprintf(path, sizeof path, "%s/nbd.sock", run);
    }
    if (!path[0])
        return cg_error_say(err, EINVAL, "the socket has an empty path");
    if (strlen(path) >= sizeof ret->sun_path)
        return cg_error_say(err, ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", path,
                            sizeof ret->sun_path - 1);
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    strcpy(ret->sun_path, path);
    return 0;
}

/* Takes the lock of the socket's directory, given back by closing.  Of two that start at once one
 * then finds the other listening, where both might remove the same stale socket. */
static int lock_directory(const struct sockaddr_un *addr, int *ret_fd, struct cg_error *err)
{
    char copy[CLI_SOCKET_PATH_SIZE];

    strcpy(copy, addr->sun_path);
    const char *dir = dirname(copy);
    CG_CLEANUP(cg_close) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", dir);
    while (flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            return cg_error_set(err, errno, "lock %s", dir);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int remove_stale(const struct sockaddr_un *addr, struct cg_error *err)
{
    struct stat st;

    if (lstat(addr->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : cg_error_set(err, errno, "stat %s", addr->sun_path);
    if (!S_ISSOCK(st.st_mode))
        return cg_error_say(err, EEXIST, "%s exists and is no socket", addr->sun_path);
    CG_CLEANUP(cg_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return cg_error_set(err, errno, "make a socket");
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0)
        return cg_error_say(err, EADDRINUSE, "somebody serves on %s already; use --socket",
                            addr->sun_path);
    if (errno == ENOENT) /* one that was just ending */
        return 0;
    if (errno != ECONNREFUSED)
        return cg_error_set(err, errno, "connect to %s", addr->sun_path);
    if (unlink(addr->sun_path) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove the stale socket %s", addr->sun_path);
    return 0;
}

static int listen_on(const struct sockaddr_un *addr, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return cg_error_set(err, errno, "make a socket");
    mode_t mask = umask(0177);
    int r = bind(fd, (const struct sockaddr *)addr, sizeof *addr) < 0 ? errno : 0;
    umask(mask);
    if (r)
        return cg_error_set(err, r, "listen on %s", addr->sun_path);
    if (listen(fd, SOMAXCONN) < 0) {
        r = cg_error_set(err, errno, "listen on %s", addr->sun_path);
        unlink(addr->sun_path);
        return r;
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int listen_alone(const struct sockaddr_un *addr, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int lock = -1;
    int r = lock_directory(addr, &lock, err);

    if (r == 0)
        r = remove_stale(addr, err);
    if (r == 0)
        r = listen_on(addr, ret_fd, err);
    return r;
}

int cli_serve_socket(const char *path, char ret_path[static CLI_SOCKET_PATH_SIZE],
                     struct cg_error *err)
{
    struct sockaddr_un addr;
    int fd = -1;
    int r = socket_path(path, &addr, err);

    if (r == 0)
        r = listen_alone(&addr, &fd, err);
    if (r < 0)
        return r;
    /* A duplicate is without FD_CLOEXEC. */
    if (fd == ACTIVATION_FD)
        r = fcntl(fd, F_SETFD, 0);
    else
        r = dup2(fd, ACTIVATION_FD);
    r = r < 0 ? cg_error_set(err, errno, "listen on %s", addr.sun_path) : 0;
    if (r < 0)
        unlink(addr.sun_path);
    if (fd != ACTIVATION_FD)
        close(fd);
    strcpy(ret_path, addr.sun_path);
    return r;
}
