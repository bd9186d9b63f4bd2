/* Keeping points, and giving them up: holds and the trash (docs/format-repository.md). */
#ifndef CG_BACKUPS_HOLDS_H
#define CG_BACKUPS_HOLDS_H

#include "core/backups/repository.h"

/* Holds a point for uuid: it isn't removed before that is released.  Durable when it returns; twice
 * is fine.  -ENOENT: no such point; -EEXIST: the uuid holds another point. */
int cg_point_hold(struct cg_project *project, const char *volume, const char *name,
                  const char *uuid, struct cg_error *err);

/* Releases it; what isn't held needs no release, so that is fine. */
int cg_point_release(struct cg_project *project, const char *volume, const char *name,
                     const char *uuid, struct cg_error *err);

/* Puts a point into the trash: what it refers to stays until it's collected.  -EBUSY: held, the
 * message names by whom. */
int cg_point_trash(struct cg_project *project, const char *volume, const char *name,
                   struct cg_error *err);

#endif
