/* The directories of a pool: PROJECT/VOLUME, beside them drafts (.draft-VOLUME), volumes that are
 * being made (.new-UUID) and ones that are being deleted (.trash-UUID).  What has a final name is
 * whole: a volume gets and loses its name by one rename.  The lock of the pool is held for the
 * moments in which names change, never while data moves or a parent is reached. */
#ifndef CG_VOLUMES_POOL_DIR_H
#define CG_VOLUMES_POOL_DIR_H

#include "core/volumes/space.h"
#include "core/volumes/volume_json.h"

/* Takes the lock of the pool, which the caller closes. */
int cg_pool_dir_lock(struct cg_volumes *space, int *ret_fd, struct cg_error *err);

/* Makes the directory of a new volume of the project, under a name that nobody sees.  Held until
 * *ret_fd is closed; ret_path is relative to the pool. */
int cg_pool_dir_make(struct cg_volumes *space, const char *project,
                     char ret_path[static CG_NAME_MAX], int *ret_fd, struct cg_error *err);

/* Gives the directory path, whose content is durable, its name.  -EEXIST.  After a failure it has
 * the name path again, also if only the last fsync failed; where it can't have, the message says
 * that the volume is there. */
int cg_pool_dir_publish(struct cg_volumes *space, const char *path, const struct cg_name *name,
                        struct cg_error *err);

/* Takes the volume's name away and deletes it.  -EBUSY: in
 * use; the message names by whom where that can be told.  -ENOENT. */
int cg_pool_dir_remove(struct cg_volumes *space, const struct cg_name *name, struct cg_error *err);

/* -EEXIST if there is such a volume or draft. */
int cg_pool_dir_check_free(struct cg_volumes *space, const struct cg_name *name,
                           struct cg_error *err);

/* Removes what interrupted commands left, and releases what that held; what can't be is left. */
void cg_pool_dir_clean(struct cg_volumes *space);

#endif
