/* What a failed sync left in doubt is written once more. */
#ifndef CG_VOLUMES_REWRITE_H
#define CG_VOLUMES_REWRITE_H

#include "core/volumes/map.h"

/* After cg_map_begin found a dead writer's working map: if the last sync of the data file fd (of
 * layer uuid) isn't known to have succeeded, reads what may be concerned, which the page cache may
 * still have as it was written, and writes it again, so that the next sync covers it.  What can't
 * be read stays as it is: who reads it gets the error.  Nothing else uses the layer meanwhile. */
int cg_rewrite_unsure(struct cg_map *map, int fd, const char *uuid, struct cg_error *err);

#endif
