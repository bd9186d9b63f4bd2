/* Connections to an NBD server that are handed to the kernel when the handshake is over. */
#ifndef CG_CLI_NBD_HANDSHAKE_H
#define CG_CLI_NBD_HANDSHAKE_H

#include "cli/nbd_kernel.h"

/* Where the server is: at a URI, or, uri NULL, on a unix socket under the empty export name. */
struct cli_nbd_address {
    const char *uri, *socket;
};

/* Connects as the kernel can go on: in the clear, with simple replies.  wanted connections, or one
 * if the server doesn't promise that more share a cache; sets size, block, flags, fds, count and
 * shows of link, whose fds the caller closes by cli_nbd_link_close.  read_only: whatever the server
 * allows.
 */
int cli_nbd_shake_hands(const struct cli_nbd_address *address, unsigned wanted, bool read_only,
                        struct cli_nbd_link *link, struct cg_error *err);

void cli_nbd_link_close(struct cli_nbd_link *link);

#endif
