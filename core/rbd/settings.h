/* The part "rbd" of a root's configuration. */
#ifndef CG_RBD_SETTINGS_H
#define CG_RBD_SETTINGS_H

#include <stdbool.h>

#include <jansson.h>

#include "core/base/error.h"
#include "core/base/name.h"

/* When a write is acknowledged, and what may be read. */
enum cg_rbd_cache {
    CG_RBD_CACHE_OFF,          /* when the OSDs have it; reads come from them too */
    CG_RBD_CACHE_WRITETHROUGH, /* when the OSDs have it; reads may be from librbd's cache, so that
                                  another client's writes are seen late */
    CG_RBD_CACHE_WRITEBACK,    /* when it's in memory: lost with the process until a flush */
};

struct cg_rbd_config {
    char *conf;       /* path of ceph.conf; NULL: where librados looks by itself */
    char *id;         /* the user, without "client." */
    char *keyring;    /* NULL: as ceph.conf says */
    unsigned timeout; /* seconds an operation may take */
    double audit;     /* share of unchanged chunks that a backup reads and compares */
    enum cg_rbd_cache cache;
    json_t *pools; /* "POOL" or "POOL/NAMESPACE" to its project or null; NULL: all, of no project */
};

/* Reads the configuration; json NULL is an empty one.  cg_rbd_config_clear frees what ret holds,
 * also after a failure. */
int cg_rbd_config_read(const json_t *json, struct cg_rbd_config *ret, struct cg_error *err);
void cg_rbd_config_clear(struct cg_rbd_config *config);

/* True if names in this pool and namespace ("" for the default one) may be used; project NULL: by
 * anyone, else by who is bound to that project.  With namespace NULL: in the pool or any namespace
 * of it. */
bool cg_rbd_config_allows(const struct cg_rbd_config *config, const char *pool,
                          const char *namespace, const char *project);

#endif
