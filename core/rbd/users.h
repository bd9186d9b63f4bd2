/* Who needs an image or one of its snapshots, in words for a message. */
#ifndef CG_RBD_USERS_H
#define CG_RBD_USERS_H

#include <stddef.h>

#include <rbd/librbd.h>

#include "core/base/error.h"

#define CG_RBD_USERS_TEXT 512

/* The clones of the snapshot that the handle is set to, or of all if it's the head's: how many, and
 * "rbd/POOL/A, rbd/POOL/B and 3 more". */
int cg_rbd_children(rbd_image_t image, size_t *ret_count, char ret[static CG_RBD_USERS_TEXT],
                    struct cg_error *err);

/* Clients that have the image open for writing, without the handle's own: it reads only.  The text
 * says where the first one is. */
int cg_rbd_writers(rbd_image_t image, size_t *ret_count, char ret[static CG_RBD_USERS_TEXT],
                   struct cg_error *err);

/* An image's snapshots that people see: not those that Ceph keeps for clones or mirrors. */
struct cg_rbd_snaps {
    int count;
    rbd_snap_info_t *v;
    int all; /* with the others, behind count */
};

int cg_rbd_snaps_read(rbd_image_t image, struct cg_rbd_snaps *ret, struct cg_error *err);
void cg_rbd_snaps_clear(struct cg_rbd_snaps *snaps); /* for CG_CLEANUP too */

#endif
