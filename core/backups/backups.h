/* The space of backups: a repository of chunks and points (docs/format-repository.md). */
#ifndef CG_BACKUPS_BACKUPS_H
#define CG_BACKUPS_BACKUPS_H

#include <stdint.h>

#include "core/space.h"

struct cg_repository;

/* Makes a repository in the directory path (absolute; made if missing, must be empty).  -EEXIST if
 * there is one. */
int cg_repository_create(const char *path, struct cg_error *err);

/* Opens the repository in the directory path; cache_bytes bounds its decoded chunks in memory (0:
 * the default of 256 MiB).  -ENOENT: none there; -ENOTSUP: of a newer format.  Starts no thread. */
int cg_repository_open(const char *path, uint64_t cache_bytes,
                       struct cg_repository **ret_repository, struct cg_error *err);

/* All images and spaces over it must be closed.  NULL is fine. */
void cg_repository_close(struct cg_repository *repository);

/* The points of the repository as a space, which doesn't own the repository. */
int cg_backups_space(struct cg_repository *repository, struct cg_space **ret_space,
                     struct cg_error *err);

#endif
