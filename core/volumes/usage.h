/* What volumes take of their pool, and could still take. */
#ifndef CG_VOLUMES_USAGE_H
#define CG_VOLUMES_USAGE_H

#include "core/volumes/space.h"
#include "core/volumes/volume_json.h"

struct cg_usage {
    uint64_t used;    /* bytes on disk that are only this volume's */
    uint64_t shared;  /* in layers that clones have too, or it's a clone itself */
    uint64_t reserve; /* what writes could still take: all of it but what the top layer has */
};

/* Of the volume in dirfd. */
void cg_usage(int dirfd, const struct cg_volume_json *json, struct cg_usage *ret);

#endif
