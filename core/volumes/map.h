/* The states of a layer's blocks while it's open.
 *
 * Reading needs little memory: windows of the map file are loaded when they're looked at, empty
 * ones take none.  Writing changes states in the working map (work_map.h) and marks the sectors of
 * the map file that are to be written by the next flush.
 *
 * cg_map_run and cg_map_words may be called from any thread at any time.  cg_map_set is called
 * with the blocks' lock held (layer.c); cg_map_take and cg_map_put by one flusher at a time; the
 * rest while nobody else uses the map.
 */
#ifndef CG_VOLUMES_MAP_H
#define CG_VOLUMES_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/volumes/map_file.h"

struct cg_map;
struct cg_work_map;

/* Opens UUID.map in dirfd.  -EIO: damaged; -ENOENT; -ENOTSUP: newer. */
int cg_map_open(int dirfd, const char *uuid, struct cg_map **ret_map, struct cg_error *err);

/* Writes nothing.  NULL is fine. */
void cg_map_close(struct cg_map *map);

/* The map file: what the layer is locked by. */
int cg_map_fd(struct cg_map *map);

/* The layer's size in bytes. */
uint64_t cg_map_size(struct cg_map *map);

/* Takes over what a writer that died in this boot left in its working map, for reading; false in
 * *ret_found if there is none. */
int cg_map_follow(struct cg_map *map, const char *run, bool *ret_found, struct cg_error *err);

/* Makes the map writable: goes on with the working map that is there, or makes one.
 * *ret_adopted: there was one, so the data file may have unflushed writes. */
int cg_map_begin(struct cg_map *map, const char *run, bool *ret_adopted, struct cg_error *err);

/* After cg_map_begin, for who goes on with what somebody wrote of whom it isn't known whether he
 * got it onto the disk: the next flush writes all states again. */
int cg_map_mark_all(struct cg_map *map, struct cg_error *err);

/* After a flush: no more changes; removes the working map.  Nothing if begin wasn't called. */
int cg_map_end(struct cg_map *map, struct cg_error *err);

/* True if there is a working map of this layer. */
bool cg_map_left(struct cg_map *map, const char *run);

/* Removes what a dead writer of the layer UUID in dirfd may have left in the run directory. */
void cg_map_forget(int dirfd, const char *uuid, const char *run);

/* The state of block and for how many of at most max blocks it holds (at least 1).  Blocks beyond
 * the layer's end are absent. */
int cg_map_run(struct cg_map *map, uint64_t block, uint64_t max, enum cg_state *ret_state,
               uint64_t *ret_count, struct cg_error *err);

/* The states of a window's blocks, two bits each, count words of 32 from number first on; those
 * behind the layer's end are absent.  False in *ret_any if all are, and then nothing in ret counts.
 * Unlike cg_map_run it remembers no more than which windows are empty. */
int cg_map_words(struct cg_map *map, uint64_t window, size_t first, size_t count, uint64_t *ret,
                 bool *ret_any, struct cg_error *err);

/* Sets the state of blocks within the layer.  On failure (-ENOSPC: no memory for the working map;
 * -EIO: a state is damaged) some of them may be set. */
int cg_map_set(struct cg_map *map, uint64_t block, uint64_t count, enum cg_state state,
               struct cg_error *err);

/* Before blocks of the data file are written: makes room to remember that.  -ENOSPC. */
int cg_map_reserve(struct cg_map *map, uint64_t block, uint64_t count, struct cg_error *err);

/* The working map after cg_map_begin, for the marks of what was written; the map's own. */
struct cg_work_map *cg_map_work(struct cg_map *map);

/* Copies of dirty sectors. */
struct cg_map_batch {
    size_t count;
    uint64_t *sector; /* numbers, ascending */
    uint8_t *bytes;   /* CG_MAP_SECTOR each */
};

/* Copies the dirty sectors as they are now and clears their marks. */
int cg_map_take(struct cg_map *map, struct cg_map_batch *ret_batch, struct cg_error *err);

/* Writes the copies into the map file.  On failure all are dirty again. */
int cg_map_put(struct cg_map *map, const struct cg_map_batch *batch, struct cg_error *err);

void cg_map_batch_free(struct cg_map_batch *batch);

/* *ret_empty: all blocks are absent. */
int cg_map_is_empty(struct cg_map *map, bool *ret_empty, struct cg_error *err);

#endif
