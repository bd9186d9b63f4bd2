/* The server that attach starts for an image: this program's serve, on a socket of its own, in a
 * session of its own.  It outlives whoever started it, since a device reads and writes through it.
 */
#ifndef CG_CLI_ATTACH_SERVER_H
#define CG_CLI_ATTACH_SERVER_H

#include "cli/attachment.h"

/* Ends the server that listens on the socket, whoever started it, and waits until it has ended;
 * none is fine. */
int cli_attach_server_stop(const char *socket, struct cg_error *err);

/* The same for one that doesn't answer: with what it was asked and hasn't done yet.  What it has
 * acknowledged isn't lost. */
int cli_attach_server_kill(const char *socket, struct cg_error *err);

/* Connects to the attachment's server, which is started if none listens, as soon as it answers.
 * -ESTALE: what it shows isn't what the attachment says. */
int cli_attach_connect(const struct cli_attachment *a, struct cli_nbd_link *ret_link,
                       struct cg_error *err);

/* As cli_attach_connect, and hands the connections to the device for those that are dead.  -ESTALE:
 * or the image has become smaller than the device.  *ret_said (may be NULL): what the server said;
 * its connections are gone. */
int cli_attach_reconnect(const struct cli_attachment *a, struct cli_nbd_link *ret_said,
                         struct cg_error *err);

#endif
