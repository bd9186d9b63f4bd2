/* Where a layer's data file was written, and whether that is known to be on disk: marks in the
 * working map, which outlive the process.
 *
 * The kernel calls what it couldn't write clean and tells that once.  So what was written before a
 * sync that failed, or whose process didn't live to see it succeed, has to be written again by who
 * goes on with the working map.
 *
 * cg_marks_written may be called from any thread; the rest by one flusher at a time. */
#ifndef CG_VOLUMES_MARKS_H
#define CG_VOLUMES_MARKS_H

#include <stdbool.h>
#include <stdint.h>

struct cg_work_map;

/* After blocks were written for which cg_map_reserve made room: no sync has covered them. */
void cg_marks_written(struct cg_work_map *work, uint64_t block, uint64_t count);

/* Around a sync of the data file; the end only if it succeeded. */
void cg_marks_sync_begin(struct cg_work_map *work);
void cg_marks_sync_end(struct cg_work_map *work);

/* True if a sync began and didn't end well. */
bool cg_marks_unsure(struct cg_work_map *work);

/* Finds from *block on the next blocks that may have been lost by that, whatever their states; they
 * may lie behind the layer's end.  False if there are no more. */
bool cg_marks_next_unsure(struct cg_work_map *work, uint64_t *block, uint64_t *ret_count);

#endif
