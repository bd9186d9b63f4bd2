/* One copy-on-write level of a volume: a sparse data file in which byte i is byte i of the volume,
 * and a map that says which blocks it has.
 *
 * An open layer is shared by reference.  One that was begun takes writes from any number of
 * threads; a sealed one never changes again.
 */
#ifndef CG_VOLUMES_LAYER_H
#define CG_VOLUMES_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/volumes/map_file.h"

struct cg_layer;

/* Makes the files of a layer of size bytes in dirfd, all absent, durably but for the directory. */
int cg_layer_create(int dirfd, const char *uuid, uint64_t size, struct cg_error *err);

/* Removes the files and what a dead writer may have left in the run directory. */
void cg_layer_remove(int dirfd, const char *uuid, const char *run);

/* Opens a layer for reading.  -ENOENT: no such files; -EIO: damaged.  One reference. */
int cg_layer_open(int dirfd, const char *uuid, struct cg_layer **ret_layer, struct cg_error *err);
struct cg_layer *cg_layer_ref(struct cg_layer *layer);
void cg_layer_unref(struct cg_layer *layer);

const char *cg_layer_uuid(struct cg_layer *layer);
uint64_t cg_layer_size(struct cg_layer *layer);

/* flock on the map file: LOCK_SH by who reads, LOCK_EX by who writes; with LOCK_NB -EWOULDBLOCK
 * is an ordinary answer, after which nothing is locked. */
int cg_layer_lock(struct cg_layer *layer, int operation, struct cg_error *err);

/* Locks it exclusively if nobody else has it: true.  Else it's locked shared, as before. */
bool cg_layer_claim(struct cg_layer *layer);

/* flock on the data file, exclusively and without waiting: by who fills a layer that others read.
 * -EWOULDBLOCK: somebody else does.  Until the layer is closed. */
int cg_layer_lock_data(struct cg_layer *layer, struct cg_error *err);

/* Goes on, for reading, with what a writer that died in this boot left; false in *ret_found if
 * there is nothing. */
int cg_layer_follow(struct cg_layer *layer, const char *run, bool *ret_found, struct cg_error *err);

/* True if a writer's working map of the layer is there. */
bool cg_layer_left(struct cg_layer *layer, const char *run);

/* After cg_layer_begin: the next flush writes all states again, which somebody may have left to the
 * kernel, or in vain, before he died or failed.  Their data is durable: states come after it. */
int cg_layer_mark_all(struct cg_layer *layer, struct cg_error *err);

/* Makes the layer writable, going on where a dead writer stopped. */
int cg_layer_begin(struct cg_layer *layer, const char *run, struct cg_error *err);

/* Makes durable what a writer that died in this boot left, without becoming a writer.  The working
 * map stays: it's for the caller to say that it doesn't count any more, and to remove it. */
int cg_layer_settle(int dirfd, const char *uuid, const char *run, struct cg_error *err);

/* Flushes and ends writing: the map file is the truth from here on. */
int cg_layer_end(struct cg_layer *layer, struct cg_error *err);

/* As cg_map_run: which state the blocks have. */
int cg_layer_run(struct cg_layer *layer, uint64_t block, uint64_t max, enum cg_state *ret_state,
                 uint64_t *ret_count, struct cg_error *err);

/* As cg_map_words. */
int cg_layer_words(struct cg_layer *layer, uint64_t window, size_t first, size_t count,
                   uint64_t *ret, bool *ret_any, struct cg_error *err);

/* Reads from the data file, whatever the states are. */
int cg_layer_read(struct cg_layer *layer, void *buf, size_t len, uint64_t off,
                  struct cg_error *err);

/* Writes a range whose blocks all have data; no state changes.  flags: CG_BULK. */
int cg_layer_overwrite(struct cg_layer *layer, const void *buf, size_t len, uint64_t off,
                       unsigned flags, struct cg_error *err);

/* Writes any range.  head and tail are the whole first and last block as they read in the layers
 * below, for the bytes around the range; they may be NULL if the range has none there, or if the
 * block isn't absent (a block never becomes absent again).  flags: CG_BULK. */
int cg_layer_write(struct cg_layer *layer, const void *buf, size_t len, uint64_t off,
                   unsigned flags, const uint8_t *head, const uint8_t *tail, struct cg_error *err);

/* Makes whole blocks zero and gives their space back. */
int cg_layer_zero(struct cg_layer *layer, uint64_t block, uint64_t count, struct cg_error *err);

/* Makes everything written before it durable.  Concurrent callers share the work.  -ENOSPC: no room
 * for the map, may be called again.  After a failed fsync the layer takes no more writes and
 * flushes (-EIO) until it's opened again.  Nothing to do if the layer wasn't begun. */
int cg_layer_flush(struct cg_layer *layer, struct cg_error *err);

/* *ret_empty: all blocks are absent. */
int cg_layer_is_empty(struct cg_layer *layer, bool *ret_empty, struct cg_error *err);

/* True if a clone has the layer too, or that can't be told. */
bool cg_layer_shared(struct cg_layer *layer);

#endif
