/* Decoded objects in memory, least recently used out first, each loaded once however many want
 * it. */
#ifndef CG_BACKUPS_CACHE_H
#define CG_BACKUPS_CACHE_H

#include "core/backups/object.h"

struct cg_cache;
struct cg_cached;

/* bytes bounds what is kept; what is in use at one moment may exceed it.  NULL if memory is
 * short. */
struct cg_cache *cg_cache_new(uint64_t bytes);

/* Nothing may be in use.  NULL is fine. */
void cg_cache_free(struct cg_cache *cache);

/* Fills buf, ref->len bytes.  Called without locks. */
typedef int cg_cache_load_fn(void *opaque, const struct cg_ref *ref, void *buf,
                             struct cg_error *err);

/* The content of ref (not a zero one), loaded if it isn't there; if another thread is loading it,
 * waits for that and shares its result or its error.  The caller releases it.  Any thread. */
int cg_cache_get(struct cg_cache *cache, const struct cg_ref *ref, cg_cache_load_fn *load,
                 void *opaque, struct cg_cached **ret_entry, struct cg_error *err);
const uint8_t *cg_cached_data(const struct cg_cached *entry);
void cg_cache_release(struct cg_cache *cache, struct cg_cached *entry);

/* True if it's there or being loaded. */
bool cg_cache_has(struct cg_cache *cache, const struct cg_ref *ref);

/* How many loads there were. */
uint64_t cg_cache_loads(struct cg_cache *cache);

#endif
