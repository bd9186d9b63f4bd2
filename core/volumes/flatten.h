/* Flatten: a volume lets go of its parent. */
#ifndef CG_VOLUMES_FLATTEN_H
#define CG_VOLUMES_FLATTEN_H

#include "core/volumes/control.h"
#include "core/volumes/volume.h"

/* Fills a new lowest layer from the parent while the volume is read and written, then drops the
 * parent and releases its hold.  A volume without a parent is flat already.  Another process that
 * writes the volume is asked to do it.  Interrupted, nothing has changed. */
int cg_flatten(struct cg_volumes *space, const struct cg_name *name,
               int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
               struct cg_error *err);

/* Lets go of the parent that an earlier flatten dropped, if it couldn't be yet.  1: somebody still
 * reads through it; < 0: the hold on it stays.  The volume is locked, v->change is held (or nobody
 * else knows v). */
int cg_flatten_finish_locked(struct cg_volume *v, struct cg_error *err);

/* Does it for another process. */
int cg_flatten_answer(struct cg_volume *v, struct cg_control_call *call, struct cg_error *err);

#endif
