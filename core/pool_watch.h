/* How full the pool's file system is, and somebody who says so in time. */
#ifndef CG_POOL_WATCH_H
#define CG_POOL_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct cg_pool_room {
    uint64_t size, free; /* bytes; free for this user */
    unsigned percent;    /* of what this user may have that is used, rounded up */
};

int cg_pool_room(const char *pool, struct cg_pool_room *ret, struct cg_error *err);

/* What is to be said of a pool that is fuller than it should be. */
#define CG_POOL_TEXT 512
void cg_pool_room_text(const char *pool, const struct cg_pool_room *room,
                       char ret[static CG_POOL_TEXT]);

struct cg_pool_watch;

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
