/* The kernel's NBD client: devices nbdN, told what to do by netlink and looked at in /sys.  Only
 * the initial network namespace has it, and only root may. */
#ifndef CG_CLI_NBD_KERNEL_H
#define CG_CLI_NBD_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

#define CLI_NBD_CONNECTIONS_MAX 16
#define CLI_NBD_BACKEND_SIZE 64
#define CLI_NBD_SHOWS_SIZE 256

/* What the kernel is told about a device. */
struct cli_nbd_link {
    uint64_t size;            /* bytes */
    uint64_t block;           /* bytes of a logical block */
    uint64_t flags;           /* NBD_FLAG_*, as the server has them */
    uint64_t request_seconds; /* after these a request is sent again, on another connection */
    uint64_t dead_seconds;    /* that requests wait for a new connection when all are dead */
    const char *backend;      /* who connected it: the kernel wants to hear the same ever after */
    int fds[CLI_NBD_CONNECTIONS_MAX]; /* sockets after the handshake; the kernel takes references */
    unsigned count;
    char shows[CLI_NBD_SHOWS_SIZE]; /* the id of the image, which only our servers tell; or "" */
};

/* Loads the kernel's module if it isn't there.  0 or -errno. */
int cli_nbd_kernel_load(struct cg_error *err);

/* Makes the device index, or a free one that the kernel chooses if that is negative.  -EBUSY: it is
 * in use. */
int cli_nbd_kernel_connect(const struct cli_nbd_link *link, int index, int *ret_index,
                           struct cg_error *err);

/* Gives the device new connections for those that are dead; the kernel ignores what it can't use.
 * Its size becomes link's. */
int cli_nbd_kernel_reconnect(const struct cli_nbd_link *link, int index, struct cg_error *err);

/* Takes the connections away.  The device is free when nobody has it open any more. */
int cli_nbd_kernel_disconnect(int index, struct cg_error *err);

/* Hears of connections that died, from now on. */
struct cli_nbd_watch;
int cli_nbd_watch_new(struct cli_nbd_watch **ret_watch, struct cg_error *err);
void cli_nbd_watch_free(struct cli_nbd_watch *watch);    /* NULL is fine */
int cli_nbd_watch_fd(const struct cli_nbd_watch *watch); /* readable: there is news */

/* Takes in what there is, without waiting: true if a connection of the device may have died. */
bool cli_nbd_watch_read(struct cli_nbd_watch *watch, int index);

/* Whether the device is in use, by whomever. */
bool cli_nbd_connected(int index);

/* Whether it was connected by this backend, as far as that is known. */
bool cli_nbd_connected_by(int index, const char *backend);

/* Who connected it, "" if that isn't known (before Linux 5.14 the kernel doesn't keep it). */
void cli_nbd_backend(int index, char ret[static CLI_NBD_BACKEND_SIZE]);

#endif
