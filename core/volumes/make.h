/* New volumes: empty ones and clones. */
#ifndef CG_VOLUMES_MAKE_H
#define CG_VOLUMES_MAKE_H

#include "core/volumes/space.h"

/* As create of struct cg_space_ops. */
int cg_make_empty(struct cg_volumes *space, const struct cg_name *name, uint64_t size,
                  uint64_t original_size, struct cg_error *err);

/* As clone of struct cg_space_ops. */
int cg_make_clone(struct cg_volumes *space, const char *parent, const struct cg_name *name,
                  struct cg_error *err);

#endif
