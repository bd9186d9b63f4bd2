/* What attach writes down about a device, below the run directory (so that it ends with the boot):
 * attach/nbdN.json.  Whoever watches the device holds a lock on it for as long as he does. */
#ifndef CG_CLI_ATTACHMENT_H
#define CG_CLI_ATTACHMENT_H

#include <limits.h>
#include <sys/types.h>

#include "cli/cli.h"
#include "cli/nbd_handshake.h"
#include "cli/serve_socket.h"

struct cli_attachment {
    int index;                         /* of the device nbdN */
    char id[CLI_NBD_BACKEND_SIZE];     /* random: what the kernel calls the backend */
    char image[2 * CG_NAME_MAX];       /* as the user named it: a name or a URI */
    char root[PATH_MAX];               /* of its own server; "" if it uses one at a URI */
    char socket[CLI_SOCKET_PATH_SIZE]; /* of its own server */
    char shows[CLI_NBD_SHOWS_SIZE];    /* the id of what the device shows; "" if unknown */
    bool read_only;
    unsigned connections, timeout, request_timeout;
    pid_t watcher; /* who watches; meaningful while the record is locked */
};

#define CLI_ATTACHMENT_ID_PREFIX "cowgate-"

/* Chooses an id, and by it where its own server listens. */
int cli_attachment_name(struct cli_attachment *a, struct cg_error *err);

/* The socket, and the log of its watcher and its server, that go with an id. */
int cli_attachment_path(const char *id, const char *suffix, char *ret, size_t size,
                        struct cg_error *err);

/* Where its server is. */
struct cli_nbd_address cli_attachment_address(const struct cli_attachment *a);

/* Writes the record, in place of an older one, locked: *ret_lock is closed to give it up.  -EBUSY
 * if the older one of this attachment is locked. */
int cli_attachment_write(const struct cli_attachment *a, int *ret_lock, struct cg_error *err);

/* Reads a device's record.  *ret_fd: to wait for its lock on; *ret_watched: somebody has it.
 * -ENOENT: there is none. */
int cli_attachment_read(int index, struct cli_attachment *ret, int *ret_fd, bool *ret_watched,
                        struct cg_error *err);

/* Removes the record if it is still this attachment's, and its log. */
void cli_attachment_remove(const struct cli_attachment *a);

/* Calls fn with each device that has a record, by its number. */
int cli_attachment_each(int (*fn)(void *opaque, int index), void *opaque, struct cg_error *err);

/* Finds a device, but for the device except and those that are read-only, which is the image or one
 * of its partitions, of a root (an absolute path).  *ret_index: -1 if there is none. */
int cli_attachment_find(const char *root, const struct cg_name *image, int except, int *ret_index,
                        struct cg_error *err);

/* -EBUSY if an image, or a partition of it, is a device, but for those that are read-only; also one
 * whose server and watcher have died.  For who is about to change it behind the back of whoever has
 * the device mounted. */
int cli_refuse_attached(struct cli *cli, const struct cg_name *image);

/* The N of "/dev/nbdN", or -1. */
int cli_attachment_index(const char *device);

#endif
