/* What librbd really does with writes to an image. */
#ifndef CG_RBD_POLICY_H
#define CG_RBD_POLICY_H

#include <stdbool.h>

#include <rbd/librbd.h>

struct cg_rbd_policy {
    bool writes_back; /* a write may be acknowledged before the OSDs have it */
    bool zero_copy;   /* a write's buffer is used until it's answered */
};

/* The settings that count for an open image: its own ("rbd config image set") and its pool's go
 * before what was set on the connection.  Returns 0 or -errno. */
int cg_rbd_policy(rbd_image_t image, struct cg_rbd_policy *ret);

#endif
