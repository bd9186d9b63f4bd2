/* A change of a volume's structure, as it is asked for and as it goes to the volume's writer. */
#ifndef CG_VOLUMES_CHANGE_REQUEST_H
#define CG_VOLUMES_CHANGE_REQUEST_H

#include <stdint.h>

#include <jansson.h>

#include "core/base/bytes.h"
#include "core/base/error.h"
#include "core/base/name.h"

enum cg_change_op {
    CG_CHANGE_SNAPSHOT,
    CG_CHANGE_REMOVE_SNAPSHOT,
    CG_CHANGE_RESIZE,
    CG_CHANGE_ROLLBACK,
    CG_CHANGE_SEAL,
    CG_CHANGE_MOMENT, /* a snapshot in steps: see moment.h */
};

struct cg_change {
    enum cg_change_op op;
    char snapshot[CG_PART_MAX + 1]; /* "" for RESIZE and SEAL */
    uint64_t size;                  /* for RESIZE */
    char uuid[CG_UUID_LEN + 1];     /* for REMOVE_SNAPSHOT: only the one that is known by this, if
                                       it's there at all; "" for the one of that name */
    char id[CG_UUID_LEN + 1];       /* of the request; a new snapshot's uuid */
};

/* As a JSON object that the caller owns; NULL if memory is short. */
json_t *cg_change_request_encode(const struct cg_change *change);

/* -EINVAL: it makes no sense. */
int cg_change_request_decode(const json_t *request, struct cg_change *ret, struct cg_error *err);

#endif
