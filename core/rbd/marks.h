/* Marks: what cowgate notes about an image's snapshots in the image's own metadata, so that every
 * host sees it:
 *
 *     cowgate.IMAGE.SNAPSHOT.hold.UUID = HOST        a volume (its uuid) of that host stands on it
 *     cowgate.IMAGE.SNAPSHOT.protected.UUID = HOST   cowgate protected it (once for each UUID)
 *
 * IMAGE and SNAPSHOT are ids: Ceph copies metadata into clones and copies, where they say nothing.
 */
#ifndef CG_RBD_MARKS_H
#define CG_RBD_MARKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "core/base/error.h"
#include "core/rbd/mark_key.h"

struct cg_rbd_marks {
    size_t count;
    struct cg_rbd_mark *v;
};

/* Reads the marks of an image's snapshots.  The caller clears them. */
int cg_rbd_marks_read(rbd_image_t image, struct cg_rbd_marks *ret, struct cg_error *err);
void cg_rbd_marks_clear(struct cg_rbd_marks *marks); /* for CG_CLEANUP too */

/* Who holds the snapshot, or any (0); NULL: nobody. */
const struct cg_rbd_mark *cg_rbd_marks_holder(const struct cg_rbd_marks *marks, uint64_t snapshot);

/* True if cowgate protected the snapshot. */
bool cg_rbd_marks_protected(const struct cg_rbd_marks *marks, uint64_t snapshot);

/* Sets or removes a mark, durably; host is filled in.  Again is fine. */
int cg_rbd_mark_set(rbd_image_t image, const struct cg_rbd_mark *mark, struct cg_error *err);
int cg_rbd_mark_remove(rbd_image_t image, const struct cg_rbd_mark *mark, struct cg_error *err);

/* Removes the marks of the image that another was cloned from. */
void cg_rbd_marks_disown(rbd_image_t clone);

#endif
