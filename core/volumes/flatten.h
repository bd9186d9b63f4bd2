/* Flatten: a volume lets go of its parent, and of what it shares with what it was cloned from. */
#ifndef CG_VOLUMES_FLATTEN_H
#define CG_VOLUMES_FLATTEN_H

#include "core/volumes/control.h"
#include "core/volumes/volume.h"

/* Puts a new layer below all others, fills it from the parent, or from the layers that it shares
 * since it was cloned (gather.h), while the volume is read and written, then drops those and the
 * parent and releases its hold.  Another process that writes the volume is asked to fill; if there
 * is none this one does, without keeping anybody from writing, and asks who begins to meanwhile.  A
 * volume without either is flat already.  Interrupted, the volume stands on what it stood on, and
 * the next call goes on; without room for it what was filled is given up.
 * 1: flat, but the hold stays until those have closed it who read through the parent. */
int cg_flatten(struct cg_volumes *space, const struct cg_name *name, uint64_t rate,
               int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
               struct cg_error *err);

/* Lets go of the parent that an earlier flatten dropped, if it couldn't be yet.  1: somebody still
 * reads through it; < 0: the hold on it stays.  The volume is locked, v->change is held (or nobody
 * else knows v). */
int cg_flatten_finish_locked(struct cg_volume *v, struct cg_error *err);

/* Does it for another process. */
int cg_flatten_answer(struct cg_volume *v, struct cg_control_call *call, const json_t *request,
                      json_t *answer, struct cg_error *err);

#endif
