/* What map.c and map_work.c share: the map in memory.
 *
 * Thread model.  The status of a window only moves forward: UNKNOWN to EMPTY or OWN, then to
 * SHARED; moves happen under the lock `load`, looks are atomic and free.  A window's words in `own`
 * never change once it's OWN, those in the working map only under the blocks' locks of the layer,
 * by atomic stores.  When a window has become SHARED its memory in `own` is given back, and reads
 * as zeros from then on: who read words there looks at the status once more, and reads again if it
 * has moved.  Marks in `dirty` are set after the states.
 */
#ifndef CG_VOLUMES_MAP_INSIDE_H
#define CG_VOLUMES_MAP_INSIDE_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/base/bytes.h"
#include "core/volumes/map.h"
#include "core/volumes/work_map.h"

#define CG_MAP_WORDS (CG_MAP_WINDOW / 8)
#define CG_MAP_SECTOR_WORDS (CG_MAP_SECTOR / 8)

enum cg_map_status {
    CG_MAP_UNKNOWN, /* not looked at yet */
    CG_MAP_EMPTY,   /* all absent, takes no memory */
    CG_MAP_OWN,     /* as in the map file, in own memory */
    CG_MAP_SHARED,  /* in the working map */
};

struct cg_map {
    char uuid[CG_UUID_LEN + 1];
    int fd;
    uint64_t size, blocks, windows;
    pthread_mutex_t load; /* guards changes of status, own, and work's reservations */
    _Atomic uint8_t *status;
    _Atomic uint64_t *own; /* mapped, zeros, touched only for OWN windows */
    struct cg_work_map *work;
    _Atomic uint64_t *dirty; /* a bit a sector of states; NULL unless writable */
};

static inline uint64_t cg_map_dirty_words(const struct cg_map *map)
{
    return (map->windows * CG_MAP_WINDOW_SECTORS + 63) / 64;
}

static inline _Atomic uint64_t *cg_map_own_words(struct cg_map *map, uint64_t window)
{
    return map->own + window * CG_MAP_WORDS;
}

static inline void cg_map_mark(struct cg_map *map, uint64_t sector)
{
    uint64_t bit = UINT64_C(1) << (sector % 64);

    atomic_fetch_or(&map->dirty[sector / 64], bit);
}

/* map.c */

/* A window as the map file has it. */
int cg_map_read_window(struct cg_map *map, uint64_t window, uint64_t ret[static CG_MAP_WORDS],
                       struct cg_error *err);

/* Makes an UNKNOWN window EMPTY or OWN. */
int cg_map_load_locked(struct cg_map *map, uint64_t window, struct cg_error *err);

/* The window's words; NULL in *ret_words if it's empty. */
int cg_map_look(struct cg_map *map, uint64_t window, const _Atomic uint64_t **ret_words,
                struct cg_error *err);

/* map_work.c */

/* Gives the window a place in the working map. */
int cg_map_share(struct cg_map *map, uint64_t window, struct cg_error *err);

#endif
