/* Keeping points, and giving them up: holds and the trash (docs/format-repository.md). */
#ifndef CG_BACKUPS_HOLDS_H
#define CG_BACKUPS_HOLDS_H

#include "core/backups/repository.h"

/* Holds a point for uuid: it isn't removed before that is released.  Durable when it returns; twice
 * is fine.  -ENOENT: no such point; -EBUSY: it is being removed; -EEXIST: the uuid holds another
 * point. */
int cg_point_hold(struct cg_project *project, const char *volume, const char *name,
                  const char *uuid, struct cg_error *err);

/* Releases it; what isn't held needs no release, so that is fine.  A hold of this uuid that can't
 * be read goes too: it's nobody else's. */
int cg_point_release(struct cg_project *project, const char *volume, const char *name,
                     const char *uuid, struct cg_error *err);

/* Puts a point into the trash: what it refers to stays until it's collected.  -EBUSY: held, the
 * message names by whom. */
int cg_point_trash(struct cg_project *project, const char *volume, const char *name,
                   struct cg_error *err);

/* Who gives a name to a point of this volume, or takes one from it, waits for this lock of the
 * store and has it meanwhile: no name is used while it goes into the trash.  As the store's lock.
 */
int cg_point_lock_names(struct cg_project *project, const char *volume, struct cg_error *err);

/* 1 if the trash has a point of this name, 0 if not. */
int cg_point_in_trash(struct cg_project *project, const char *volume, const char *name,
                      struct cg_error *err);

#endif
