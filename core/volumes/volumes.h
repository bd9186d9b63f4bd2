/* The space of local copy-on-write volumes: a pool in a directory (docs/format-volumes.md). */
#ifndef CG_VOLUMES_VOLUMES_H
#define CG_VOLUMES_VOLUMES_H

#include "core/space.h"

/* Opens the pool in the directory pool, which must be there.  parents is copied and must stay valid
 * until the space is freed. */
int cg_volumes_open(const char *pool, const struct cg_parents *parents, struct cg_space **ret_space,
                    struct cg_error *err);

#endif
