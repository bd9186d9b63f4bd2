/* Filling a volume's lowest layer with what its parent has, or what the layers above it have that
 * it is to replace: blocks that are absent get that content, so whoever reads sees the same before
 * and after, through whichever of the two.  What was filled in stays: who fills the layer later
 * goes on.
 *
 * The layer's states are those that are on disk: what a killed process had in a working map is
 * filled in again.  It takes no lock of the volume, so guests write meanwhile, here or elsewhere;
 * reads of the parent by clients of this process have right of way. */
#ifndef CG_VOLUMES_FILL_H
#define CG_VOLUMES_FILL_H

#include "core/volumes/parent.h"

struct cg_fill {
    int dirfd;        /* the volume's directory, held */
    const char *uuid; /* of the layer */
    struct cg_image *from;
    struct cg_parent *parent; /* whose clients have right of way; NULL if there is none */
    uint64_t rate;            /* bytes a second; 0: no limit */
    /* Called now and then with how far it is; saved: more of the layer is durable than at the last
     * call.  Non-zero ends it with that result. */
    int (*report)(void *opaque, uint64_t done, uint64_t total, bool saved, struct cg_error *err);
    void *opaque;
};

/* 0: the layer is whole, and durable; 1: it isn't the one to be filled any more; -errno, or what
 * report said.  -EBUSY: another process fills it. */
int cg_fill(const struct cg_fill *fill, struct cg_error *err);

#endif
