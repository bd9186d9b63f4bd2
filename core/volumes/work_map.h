/* The working map of a layer that is being written: its states in shared memory, in a file on the
 * run directory's tmpfs.  It outlives the process but not the boot, so that the next process goes
 * on with every acknowledged write.
 *
 * It's sparse: a window is in it once its bit says so, which is set after the window's content.  A
 * window's memory is reserved before it's touched, so a full tmpfs is an error and not a signal. */
#ifndef CG_VOLUMES_WORK_MAP_H
#define CG_VOLUMES_WORK_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct cg_work_map;

/* What tells whose working map it is: the layer, and the inode of its map file, so that a copy of
 * a pool on the same host doesn't meet the original's. */
struct cg_work_map_id {
    const char *run; /* the run directory */
    const char *uuid;
    uint64_t dev, inode;
    uint64_t windows;
};

/* Opens the working map that is there; with create, makes one if there is none (*ret_created says
 * so).  -ENOENT: there is none (the message is set all the same).  Read-only unless create. */
int cg_work_map_open(const struct cg_work_map_id *id, bool create, bool *ret_created,
                     struct cg_work_map **ret_map, struct cg_error *err);

/* Leaves the file where it is.  NULL is fine. */
void cg_work_map_close(struct cg_work_map *map);

/* Removes the file; its memory stays while it's mapped. */
int cg_work_map_unlink(struct cg_work_map *map, struct cg_error *err);

uint64_t cg_work_map_windows(struct cg_work_map *map);

/* True if the window has content. */
bool cg_work_map_has(struct cg_work_map *map, uint64_t window);

/* The window's words, CG_MAP_WINDOW / 8 of them; to be touched only if it has content or is
 * reserved. */
_Atomic uint64_t *cg_work_map_words(struct cg_work_map *map, uint64_t window);

/* Gives the window memory.  -ENOSPC: the tmpfs is full. */
int cg_work_map_reserve(struct cg_work_map *map, uint64_t window, struct cg_error *err);

/* Says that the window's words have been filled in. */
void cg_work_map_publish(struct cg_work_map *map, uint64_t window);

/* Where the data file was written in a window that has content: a bit for each MiB.  `written` has
 * what no sync began after, `syncing` what the running one covers, or the last if it failed. */
struct cg_work_marks {
    _Atomic uint64_t written, syncing;
};
struct cg_work_marks *cg_work_map_marks(struct cg_work_map *map, uint64_t window);

/* 1 from before a sync of the data file until it has succeeded: found so by a successor, it says
 * that the kernel may have dropped what the marks say and speaks of it no more. */
_Atomic uint64_t *cg_work_map_unsure(struct cg_work_map *map);

bool cg_work_map_exists(const struct cg_work_map_id *id);

/* Removes a layer's working map, if there is one, without looking into it. */
void cg_work_map_forget(const struct cg_work_map_id *id);

/* Removes from the run directory the working maps of other boots. */
void cg_work_map_clean(const char *run);

#endif
