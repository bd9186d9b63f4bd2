/* The history of a volume up to a point as one read-only virtual qcow2 file: one internal snapshot
 * per point, the last of which is also the active content (docs/history-qcow2.md).  Here is what
 * lies where in it; history_image.c makes its bytes.
 *
 * Data is kept in slots of a chunk each.  A chunk that changes from one point to the next gets a
 * slot of its own, numbered point by point; one that stays the same keeps its slot, so that whoever
 * compares two snapshots by host offsets (librbd) sees just what changed.  L2 tables are shared in
 * the same way.
 *
 * Thread model: a history doesn't change once it's made.
 */
#ifndef CG_BACKUPS_HISTORY_H
#define CG_BACKUPS_HISTORY_H

#include "core/backups/page.h"
#include "core/backups/repository.h"

struct cg_history;

#define CG_HISTORY_L2_CHUNKS 128 /* chunks that one L2 table describes: 512 MiB */
#define CG_HISTORY_L2_SPAN (CG_HISTORY_L2_CHUNKS * (uint64_t)CG_CHUNK_SIZE)

/* What a chunk is in a point. */
enum cg_history_kind {
    CG_HISTORY_NEVER, /* zeros, as in all points before */
    CG_HISTORY_ZERO,  /* zeros, but not always */
    CG_HISTORY_DATA,  /* in a slot */
};

/* The history of a volume up to the point of that name: all its points with a sequence up to that
 * one's.  Reads the pages in which they differ.  -EFBIG: more data than the format's offsets take.
 * The caller frees it. */
int cg_history_new(struct cg_project *project, const char *volume, const char *point,
                   struct cg_history **ret_history, struct cg_error *err);
void cg_history_free(struct cg_history *history);

/* The points, in order of their sequence; the last is the active one too. */
unsigned cg_history_count(const struct cg_history *history);
const struct cg_point *cg_history_point(const struct cg_history *history, unsigned i);

/* What chunk number chunk of the i-th point is, and with CG_HISTORY_DATA its slot. */
enum cg_history_kind cg_history_chunk(const struct cg_history *history, unsigned i, uint64_t chunk,
                                      uint64_t *ret_slot);

/* Which L2 table describes the number-th span of the i-th point; false: none is needed. */
bool cg_history_l2(const struct cg_history *history, unsigned i, uint64_t number, uint64_t *ret_l2);

/* How many slots and L2 tables there are. */
uint64_t cg_history_slots(const struct cg_history *history);
uint64_t cg_history_l2_tables(const struct cg_history *history);

/* Where a slot's data is, and how many of the snapshots and the active image have it. */
struct cg_history_use {
    unsigned point; /* the first that has it */
    uint64_t chunk; /* of a slot: its number; of an L2 table: the first it describes */
    unsigned refs;
};

void cg_history_slot(const struct cg_history *history, uint64_t slot, struct cg_history_use *ret);
void cg_history_table(const struct cg_history *history, uint64_t l2, struct cg_history_use *ret);

/* The reference to a slot's chunk. */
int cg_history_ref(const struct cg_history *history, uint64_t slot, struct cg_ref *ret,
                   struct cg_error *err);

#endif
