/* What there is in a pool, and what a volume is. */
#ifndef CG_VOLUMES_LIST_H
#define CG_VOLUMES_LIST_H

#include "core/volumes/space.h"

/* As list and info of struct cg_space_ops.  Neither locks anything. */
int cg_list(struct cg_volumes *space, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
            struct cg_error *err);
int cg_list_info(struct cg_volumes *space, const struct cg_name *name, json_t **ret_info,
                 struct cg_error *err);

int cg_list_usage(struct cg_volumes *space, struct cg_space_usage *ret, struct cg_error *err);

#endif
