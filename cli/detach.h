#ifndef CG_CLI_DETACH_H
#define CG_CLI_DETACH_H

#include "core/base/error.h"

/* Flushes a device that nobody uses and disconnects it, so that it is free afterwards.  -EBUSY,
 * with a message that says by whom, if somebody uses it; it stays attached then, as it does if it
 * can't be flushed. */
int cli_detach_device(int index, struct cg_error *err);

#endif
