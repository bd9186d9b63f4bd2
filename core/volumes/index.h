/* Which layer of a stack holds which block, so that depth costs nothing.
 *
 * The layers don't change while an index of them exists, but for one being filled from a parent
 * (flatten): what was absent there then is answered as absent still, which leads to the parent, and
 * that has the same.  A window of the map (64 MiB of the volume) is looked up in all layers when it
 * is first asked for, and remembered as runs of blocks.  All indexes of the process share a limit
 * of memory; what wasn't used for long makes room, slowly: while there is none, most lookups in
 * other windows go to the layers' map files.  Any thread.
 */
#ifndef CG_VOLUMES_INDEX_H
#define CG_VOLUMES_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/volumes/layer.h"

struct cg_index;

/* An index of count layers, bottom to top, with references of its own.  One reference.  NULL if
 * memory is short or there are too many: then it goes without. */
struct cg_index *cg_index_new(struct cg_layer **layers, size_t count);
struct cg_index *cg_index_ref(struct cg_index *index);
void cg_index_unref(struct cg_index *index); /* NULL is fine */

/* The topmost layer that has something at block, by number, and the state there: for *ret_count
 * blocks, at least 1 and at most max.  Absent: none has, and *ret_layer means nothing.  Damaged:
 * that layer's map has no valid state there. */
int cg_index_run(struct cg_index *index, uint64_t block, uint64_t max, size_t *ret_layer,
                 enum cg_state *ret_state, uint64_t *ret_count, struct cg_error *err);

/* Sets the limit of memory for windows of more than one run, of all indexes together; those of one
 * run take none.  CG_INDEX_LIMIT is where it begins. */
#define CG_INDEX_LIMIT ((size_t)12 << 20)
void cg_index_set_limit(size_t bytes);

/* The bytes that count for the limit now. */
size_t cg_index_memory(void);

#endif
