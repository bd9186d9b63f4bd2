/* The unix socket that serve listens on. */
#ifndef CG_CLI_SERVE_SOCKET_H
#define CG_CLI_SERVE_SOCKET_H

#include <sys/un.h>

#include "core/base/error.h"

#define CLI_SOCKET_PATH_SIZE sizeof((struct sockaddr_un *)0)->sun_path

/* Makes a listening unix socket at path (NULL: the one in the run directory) that only its owner
 * can connect to, as descriptor 3, which is where socket activation wants it; one that nobody
 * listens on any more is replaced.  Returns 0 and the path, or -errno with nothing made;
 * -EADDRINUSE if somebody listens there. */
int cli_serve_socket(const char *path, char ret_path[static CLI_SOCKET_PATH_SIZE],
                     struct cg_error *err);

#endif
