/* Snapshots of several volumes at one moment, whoever writes them: all are held up, one after the
 * other, and when all are, the snapshots are taken, and each goes on as soon as its own is there.
 */
#ifndef CG_VOLUMES_MOMENT_H
#define CG_VOLUMES_MOMENT_H

#include <stddef.h>

#include "core/volumes/change_request.h"
#include "core/volumes/control.h"
#include "core/volumes/volume.h"

/* names: snapshots of different volumes.  All or none are there when it returns, or, when somebody
 * else next changes something in the pool, if this process dies. */
int cg_moment_snapshot(struct cg_volumes *space, const struct cg_name *names, size_t count,
                       struct cg_error *err);

/* Takes back what somebody left who died.  Nothing that can't be done is waited for or told. */
void cg_moment_clean(struct cg_volumes *space);

/* What the volume's writer answers to who snapshots it with others. */
int cg_moment_answer(struct cg_volume *v, struct cg_control_call *call,
                     const struct cg_change *change, struct cg_error *err);

#endif
