/* The end of the server by a signal, whoever is connected.
 *
 * nbdkit alone waits for each client to leave, answers requests that come meanwhile with ESHUTDOWN
 * (an I/O error to the file system above, where a broken connection is one to be made again), and
 * leaves its socket.  To break connections under nbdkit 1.32 isn't safe: it aborts if a reply can't
 * be sent while another thread waits to send one.  So the plugin lets no request in any more,
 * waits for those that are in, closes all images, and ends the process. */
#ifndef CG_NBDKIT_ENDING_H
#define CG_NBDKIT_ENDING_H

#include <pthread.h>
#include <stdbool.h>

#include "core/base/error.h"

/* Each callback that uses an image or the gateway holds it shared; from the end on nobody gets it
 * any more. */
extern pthread_rwlock_t ending_gate;

/* Before the fork: remembers the unix socket to remove at the end; NULL: none.  0 or -errno. */
int ending_prepare(const char *socket, struct cg_error *err);

/* After the fork: takes over the signals that end nbdkit and starts the thread that waits for them.
 * At the end it calls close_images, which closes what is open if it is alone, and else, when
 * requests take too long, flushes it; *ret_idle: nobody is connected.  0 or -errno. */
int ending_start(int (*close_images)(bool alone, bool *ret_idle), struct cg_error *err);

/* When nbdkit ends by itself, with the last connection gone: ends that thread. */
void ending_finish(void);

#endif
