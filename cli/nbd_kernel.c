#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/nbd-netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>

#include "cli/nbd_kernel.h"
#include "core/base/cleanup.h"

/* What the kernel said to a request. */
struct answer {
    int error; /* its -errno, or 0 */
    int index; /* of the device that it chose, or -1 */
};

static int keep_error(struct sockaddr_nl *from, struct nlmsgerr *e, void *opaque)
{
    struct answer *a = opaque;

    (void)from;
    a->error = e->error;
    return NL_STOP;
}

/* The device that a message from the kernel is about, -1 if it's about none. */
static int message_index(struct nl_msg *msg)
{
    struct nlattr *attrs[NBD_ATTR_MAX + 1];

    if (genlmsg_parse(nlmsg_hdr(msg), 0, attrs, NBD_ATTR_MAX, NULL) < 0 || !attrs[NBD_ATTR_INDEX])
        return -1;
    return (int)nla_get_u32(attrs[NBD_ATTR_INDEX]);
}

static int keep_index(struct nl_msg *msg, void *opaque)
{
    struct answer *a = opaque;

    a->index = message_index(msg);
    return NL_OK;
}

static void free_sock(struct nl_sock **sock)
{
    nl_socket_free(*sock);
}

static void free_msg(struct nl_msg **msg)
{
    nlmsg_free(*msg);
}

/* One function turns libnl's errors into ours. */
static int nl_failed(int r, const char *what, struct cg_error *err)
{
    int errnum = r == -NLE_PERM || r == -NLE_NOACCESS ? EPERM
                 : r == -NLE_NOMEM                    ? ENOMEM
                 : r == -NLE_OBJ_NOTFOUND             ? ENOENT
                                                      : EIO;

    return cg_error_say(err, errnum, "%s: %s", what, nl_geterror(r));
}

static int open_sock(struct nl_sock **ret_sock, int *ret_family, struct cg_error *err)
{
    CG_CLEANUP(free_sock) struct nl_sock *sock = nl_socket_alloc();

    if (!sock)
        return cg_error_set(err, ENOMEM, "speak to the kernel");
    int r = genl_connect(sock);
    if (r < 0)
        return nl_failed(r, "speak to the kernel by netlink", err);
    int family = genl_ctrl_resolve(sock, NBD_GENL_FAMILY_NAME);
    if (family < 0)
        return nl_failed(family, "find the kernel's NBD client", err);
    *ret_sock = sock;
    *ret_family = family;
    sock = NULL;
    return 0;
}

static int modprobe(void)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        execlp("modprobe", "modprobe", "nbd", NULL);
        execl("/sbin/modprobe", "modprobe", "nbd", NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ENOENT;
}

int cli_nbd_kernel_load(struct cg_error *err)
{
    CG_CLEANUP(free_sock) struct nl_sock *sock = NULL;
    int family;

    if (geteuid() != 0)
        return cg_error_say(err, EPERM, "only root can attach and detach devices");
    int r = open_sock(&sock, &family, err);
    if (r == -ENOENT && modprobe() == 0)
        r = open_sock(&sock, &family, err);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT,
                            "the kernel has no NBD client: its module nbd isn't loaded, and "
                            "'modprobe nbd' fails");
    return r;
}

static int put_fds(struct nl_msg *msg, const struct cli_nbd_link *link)
{
    struct nlattr *all = nla_nest_start(msg, NBD_ATTR_SOCKETS);

    if (!all)
        return -1;
    for (unsigned i = 0; i < link->count; i++) {
        struct nlattr *item = nla_nest_start(msg, NBD_SOCK_ITEM);
        if (!item || nla_put_u32(msg, NBD_SOCK_FD, (uint32_t)link->fds[i]) < 0)
            return -1;
        nla_nest_end(msg, item);
    }
    nla_nest_end(msg, all);
    return 0;
}

static int put_link(struct nl_msg *msg, const struct cli_nbd_link *link, bool anew)
{
    if (nla_put_u64(msg, NBD_ATTR_SIZE_BYTES, link->size) < 0 ||
        nla_put_string(msg, NBD_ATTR_BACKEND_IDENTIFIER, link->backend) < 0 ||
        put_fds(msg, link) < 0)
        return -1;
    if (!anew)
        return 0;
    return nla_put_u64(msg, NBD_ATTR_BLOCK_SIZE_BYTES, link->block) < 0 ||
                   nla_put_u64(msg, NBD_ATTR_TIMEOUT, link->request_seconds) < 0 ||
                   nla_put_u64(msg, NBD_ATTR_DEAD_CONN_TIMEOUT, link->dead_seconds) < 0 ||
                   nla_put_u64(msg, NBD_ATTR_SERVER_FLAGS, link->flags) < 0 ||
                   nla_put_u64(msg, NBD_ATTR_CLIENT_FLAGS, 0) < 0
               ? -1
               : 0;
}

/* Sends a command about the device index (negative: about none yet) and takes the answer. */
static int ask(uint8_t command, int index, const struct cli_nbd_link *link, struct answer *ret,
               struct cg_error *err)
{
    CG_CLEANUP(free_sock) struct nl_sock *sock = NULL;
    CG_CLEANUP(free_msg) struct nl_msg *msg = nlmsg_alloc();
    struct answer a = { .index = -1 };
    int family;

    int r = open_sock(&sock, &family, err);
    if (r < 0)
        return r;
    if (!msg || !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, command, 0) ||
        (index >= 0 && nla_put_u32(msg, NBD_ATTR_INDEX, (uint32_t)index) < 0) ||
        (link && put_link(msg, link, command == NBD_CMD_CONNECT) < 0))
        return cg_error_set(err, ENOMEM, "speak to the kernel");
    nl_socket_modify_err_cb(sock, NL_CB_CUSTOM, keep_error, &a);
    nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, keep_index, &a);
    r = nl_send_auto(sock, msg);
    if (r >= 0)
        r = nl_wait_for_ack(sock);
    if (a.error)
        return a.error;
    if (r < 0)
        return nl_failed(r, "speak to the kernel by netlink", err);
    *ret = a;
    return 0;
}

int cli_nbd_kernel_connect(const struct cli_nbd_link *link, int index, int *ret_index,
                           struct cg_error *err)
{
    struct answer a = { 0 };
    int r = ask(NBD_CMD_CONNECT, index, link, &a, err);

    if (r == -EBUSY && index >= 0)
        return cg_error_say(err, EBUSY, "/dev/nbd%d is in use", index);
    if (r == 0 && index < 0 && a.index < 0)
        r = -EPROTO;
    if (r < 0)
        return cg_error_set(err, -r, "connect a device nbd");
    *ret_index = index >= 0 ? index : a.index;
    return 0;
}

int cli_nbd_kernel_reconnect(const struct cli_nbd_link *link, int index, struct cg_error *err)
{
    struct answer a;
    int r = ask(NBD_CMD_RECONFIGURE, index, link, &a, err);

    return r < 0 ? cg_error_set(err, -r, "connect /dev/nbd%d again", index) : 0;
}

int cli_nbd_kernel_disconnect(int index, struct cg_error *err)
{
    struct answer a;
    int r = ask(NBD_CMD_DISCONNECT, index, NULL, &a, err);

    return r < 0 ? cg_error_set(err, -r, "disconnect /dev/nbd%d", index) : 0;
}

struct cli_nbd_watch {
    struct nl_sock *sock;
    int index;
    bool died;
};

static int hear(struct nl_msg *msg, void *opaque)
{
    struct cli_nbd_watch *w = opaque;
    const struct genlmsghdr *header = nlmsg_data(nlmsg_hdr(msg));

    if (header->cmd == NBD_CMD_LINK_DEAD && message_index(msg) == w->index)
        w->died = true;
    return NL_OK;
}

int cli_nbd_watch_new(struct cli_nbd_watch **ret_watch, struct cg_error *err)
{
    struct cli_nbd_watch *w = calloc(1, sizeof *w);
    int family;

    if (!w)
        return cg_error_set(err, ENOMEM, "watch the kernel's NBD client");
    int r = open_sock(&w->sock, &family, err);
    if (r < 0)
        goto fail;
    r = genl_ctrl_resolve_grp(w->sock, NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
    if (r >= 0)
        r = nl_socket_add_membership(w->sock, r);
    if (r >= 0)
        r = nl_socket_set_nonblocking(w->sock);
    if (r < 0) {
        r = nl_failed(r, "watch the kernel's NBD client", err);
        goto fail;
    }
    nl_socket_disable_seq_check(w->sock);
    nl_socket_modify_cb(w->sock, NL_CB_VALID, NL_CB_CUSTOM, hear, w);
    *ret_watch = w;
    return 0;
fail:
    cli_nbd_watch_free(w);
    return r;
}

void cli_nbd_watch_free(struct cli_nbd_watch *w)
{
    if (w)
        nl_socket_free(w->sock);
    free(w);
}

int cli_nbd_watch_fd(const struct cli_nbd_watch *w)
{
    return nl_socket_get_fd(w->sock);
}

bool cli_nbd_watch_read(struct cli_nbd_watch *w, int index)
{
    int r;

    w->index = index;
    w->died = false;
    do
        r = nl_recvmsgs_default(w->sock);
    while (r >= 0);
    return w->died || r != -NLE_AGAIN; /* news were lost: they may have been these */
}

bool cli_nbd_connected(int index)
{
    char path[64];

    snprintf(path, sizeof path, "/sys/block/nbd%d/pid", index);
    return access(path, F_OK) == 0;
}

bool cli_nbd_connected_by(int index, const char *backend)
{
    char now[CLI_NBD_BACKEND_SIZE];

    if (!cli_nbd_connected(index))
        return false;
    cli_nbd_backend(index, now);
    return !*now || strcmp(now, backend) == 0;
}

void cli_nbd_backend(int index, char ret[static CLI_NBD_BACKEND_SIZE])
{
    char path[64];

    ret[0] = '\0';
    snprintf(path, sizeof path, "/sys/block/nbd%d/backend", index);
    FILE *in = fopen(path, "re");
    if (!in)
        return;
    if (!fgets(ret, CLI_NBD_BACKEND_SIZE, in))
        ret[0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
    fclose(in);
}
