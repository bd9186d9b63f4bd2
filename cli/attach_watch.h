#ifndef CG_CLI_ATTACH_WATCH_H
#define CG_CLI_ATTACH_WATCH_H

#include <time.h>

#include "cli/attachment.h"

/* A device that is attached, and what is needed to watch over it. */
struct cli_attach_watch {
    struct cli_attachment a;
    struct cli_nbd_watch *news;
    int signals;  /* a signalfd of what cli_attach_block_signals blocked */
    bool broken;  /* connections may be dead */
    time_t since; /* when they were made, by the monotonic clock */
};

/* Blocks the signals that the watch is told by, and returns a descriptor to read them from; or
 * -errno. */
int cli_attach_block_signals(struct cg_error *err);

/* Makes dead connections again, and a server that died, until the device is detached; by a signal
 * that wants this process to end, too, if nobody uses the device.  Then the server has ended.  What
 * happens is said on standard error. */
int cli_attach_watch(struct cli_attach_watch *w, struct cg_error *err);

#endif
