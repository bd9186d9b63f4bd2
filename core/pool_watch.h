/* How full the pool's file system is, and somebody who says so in time. */
#ifndef CG_POOL_WATCH_H
#define CG_POOL_WATCH_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "core/base/error.h"

struct cg_pool_watch;
struct cg_space;

/* True if the file system of the pool at the path is at least `level` percent full, and what is to
 * be said then. */
bool cg_pool_full(const char *pool, unsigned level, char *ret_text, size_t size);

/* Describes it, and what its volumes may still need, as a JSON object that the caller owns; keys
 * documented in cowgate(1). */
int cg_pool_info(const char *pool, unsigned level, struct cg_space *volumes, json_t **ret_info,
                 struct cg_error *err);

/* Calls say, from a thread that this starts or from cg_pool_watch_look, one call at a time: when
 * the pool at the path (which stays) is found at least `level` percent full, again for each percent
 * more, and when it's below again.  Looks every `interval` seconds. */
int cg_pool_watch_start(const char *pool, unsigned level, unsigned interval,
                        void (*say)(const char *message), struct cg_pool_watch **ret_watch,
                        struct cg_error *err);

/* Looks now.  NULL is fine, also for the next. */
void cg_pool_watch_look(struct cg_pool_watch *watch);
void cg_pool_watch_stop(struct cg_pool_watch *watch);

#endif
