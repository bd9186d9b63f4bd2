/* Merging: a layer that no chain ends at any more, because its snapshot was deleted, takes what the
 * one above it has, which then goes. */
#ifndef CG_VOLUMES_MERGE_H
#define CG_VOLUMES_MERGE_H

#include "core/volumes/control.h"
#include "core/volumes/volume.h"

/* Merges what can be merged of a volume, while it's read and written.  A pair of layers is left as
 * it is while a clone has one of them, or somebody else reads them.  Another process that writes
 * the volume is asked to do it; if there is none this one does, without keeping anybody from
 * writing, and asks who begins to meanwhile.  Interrupted, the volume reads as before, and the next
 * call goes on; without room for what is to be copied only what the deleted snapshots alone had is
 * given back.  1: some layers stay, since somebody reads them. */
int cg_merge(struct cg_volumes *space, const struct cg_name *name,
             int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
             struct cg_error *err);

/* Does it for another process. */
int cg_merge_answer(struct cg_volume *v, struct cg_control_call *call, json_t *answer,
                    struct cg_error *err);

#endif
