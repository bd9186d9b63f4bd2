/* What earlier changes of a volume had to leave undone, because of somebody who still read what
 * they replaced: done by whoever next has the volume's lock. */
#ifndef CG_VOLUMES_TIDY_H
#define CG_VOLUMES_TIDY_H

#include "core/volumes/volume.h"

/* Releases a parent that a flatten dropped, and drops layers of the head below the top that are
 * empty, if no snapshot, no clone and no reader has them: that only for who writes, since a brief
 * change may just have sealed a layer for a clone that hasn't linked it yet.  What can't be done is
 * left for the next time.  The volume is locked, v->change is held (or nobody else knows v). */
void cg_tidy_locked(struct cg_volume *v);

#endif
