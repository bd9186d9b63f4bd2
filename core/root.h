/* A root: the directory that holds a pool, names a repository, and has the configuration
 * (cowgate.json). */
#ifndef CG_ROOT_H
#define CG_ROOT_H

#include <jansson.h>

#include "core/base/error.h"

struct cg_root {
    char *path;         /* absolute */
    char *pool;         /* absolute */
    char *repository;   /* absolute */
    char *advertise;    /* where its images are served, for migrations; NULL if it doesn't say */
    unsigned pool_warn; /* percent of the pool's file system from which on to warn; 101: never */
    unsigned pool_interval; /* seconds between two looks at that */
    json_t *rbd;            /* what the configuration says of rbd/; NULL if nothing */
};

/* See cg_gateway_init. */
int cg_root_init(const char *path, const char *repository, struct cg_error *err);

/* Reads the configuration of the root at path (NULL: the default place).  -ENOENT: none there.
 * cg_root_clear frees what ret holds. */
int cg_root_load(const char *path, struct cg_root *ret, struct cg_error *err);
void cg_root_clear(struct cg_root *root);

/* What the configuration text of the root at the absolute path says.  -EINVAL: it makes no sense;
 * -ENOTSUP: of a newer format. */
int cg_root_decode(const char *path, const char *text, size_t len, struct cg_root *ret,
                   struct cg_error *err);

#endif
