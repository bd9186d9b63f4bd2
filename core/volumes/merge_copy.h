/* Copying what a layer has into the one below it, in place.  The upper one goes on overriding the
 * lower: interrupted at any point, and as often as one likes, the two read the same; only the lower
 * one alone doesn't show any moment any more.  Takes no lock of the volume, so guests read and
 * write meanwhile, here or elsewhere. */
#ifndef CG_VOLUMES_MERGE_COPY_H
#define CG_VOLUMES_MERGE_COPY_H

#include <stdatomic.h>

#include "core/volumes/layer.h"

struct cg_merge_copy {
    int dirfd; /* the volume's directory, held */
    /* Opened for this, of the same size, locked so that nobody writes into them.  The lower one is
     * to be closed afterwards. */
    struct cg_layer *lower, *upper;
    /* Counts the chains without the upper one that are still read from here; NULL for none. */
    const atomic_uint *reading;
    /* Called now and then with how far it is.  Non-zero ends it with that result. */
    int (*report)(void *opaque, uint64_t done, uint64_t total, struct cg_error *err);
    void *opaque;
};

/* 0: all of it is in the lower layer, durably.  -ENOSPC: there is no room for that; but what the
 * upper one overrides takes no room in the lower one any more, unless somebody goes on reading who
 * began before there was the upper one.  Else what report said, or -errno. */
int cg_merge_copy(const struct cg_merge_copy *copy, struct cg_error *err);

#endif
