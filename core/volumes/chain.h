/* A stack of layers, bottom to top, over an optional parent image: what an open volume reads from.
 *
 * A chain never changes, so that whoever reads needs only a reference and no lock: a snapshot or
 * resize of an open volume makes a new chain.  Writing goes to the top layer, which must have been
 * begun.  Ranges have been checked against the size.  Any thread.
 *
 * Depth costs nothing: an index (index.h) says which of the layers below the top has a block.
 */
#ifndef CG_VOLUMES_CHAIN_H
#define CG_VOLUMES_CHAIN_H

#include <stdatomic.h>

#include "core/image/image.h"
#include "core/volumes/layer.h"
#include "core/volumes/parent.h"

struct cg_chain;

/* A chain of count layers (at least 1), of size bytes.  Takes references of its own to the layers
 * and to parent, which may be NULL.  NULL if memory is short. */
struct cg_chain *cg_chain_new(uint64_t size, struct cg_layer **layers, size_t count,
                              struct cg_parent *parent);

/* The same with one more layer on top, whose size is that of the new chain.  sealed, unless NULL,
 * is the top of chain, opened anew. */
struct cg_chain *cg_chain_push(struct cg_chain *chain, struct cg_layer *sealed,
                               struct cg_layer *layer);

struct cg_chain *cg_chain_ref(struct cg_chain *chain);
void cg_chain_unref(struct cg_chain *chain);
void cg_chain_cleanup(struct cg_chain **chain); /* for CG_CLEANUP */

/* Gives the owner's reference back, of one that nobody begins to read from any more, and counts it
 * in *count, which must outlive it, until those who read from it are done. */
void cg_chain_retire(struct cg_chain *chain, atomic_uint *count);

uint64_t cg_chain_size(struct cg_chain *chain);
size_t cg_chain_count(struct cg_chain *chain);
struct cg_layer *cg_chain_layer(struct cg_chain *chain, size_t i);        /* 0 is the lowest */
struct cg_layer *cg_chain_find(struct cg_chain *chain, const char *uuid); /* NULL: it isn't there */
struct cg_layer *cg_chain_top(struct cg_chain *chain);
struct cg_parent *cg_chain_parent(struct cg_chain *chain); /* may be NULL */

int cg_chain_read(struct cg_chain *chain, void *buf, size_t len, uint64_t off,
                  struct cg_error *err);

/* Writes a range whose blocks all have data in the top layer.  Returns 1 when that was so, 0 if
 * something else has to be done (nothing is written then), -errno. */
int cg_chain_overwrite(struct cg_chain *chain, const void *buf, size_t len, uint64_t off,
                       unsigned flags, struct cg_error *err);

/* The first and last block of a write as the layers below the top have them: filled in where the
 * write covers them only partly.  May take long (the parent may be far away), so no lock should be
 * held; stays right as long as the chain is the volume's. */
struct cg_chain_edges {
    const uint8_t *head, *tail;
    uint8_t block[2][CG_BLOCK];
};
int cg_chain_edges(struct cg_chain *chain, size_t len, uint64_t off, struct cg_chain_edges *ret,
                   struct cg_error *err);

int cg_chain_write(struct cg_chain *chain, const void *buf, size_t len, uint64_t off,
                   unsigned flags, const struct cg_chain_edges *edges, struct cg_error *err);

/* Makes whole blocks read as zeros; does nothing where they do already. */
int cg_chain_zero(struct cg_chain *chain, uint64_t block, uint64_t count, struct cg_error *err);

/* As extents of struct cg_image_ops. */
int cg_chain_extents(struct cg_chain *chain, struct cg_extents *e, struct cg_error *err);

/* Calls fn for the ranges of chain that some layer from number first on has something in, and for
 * what lies behind grown; types are those in chain. */
int cg_chain_diff(struct cg_chain *chain, size_t first, uint64_t grown, cg_extent_fn *fn,
                  void *opaque, struct cg_error *err);

void cg_chain_prefetch(struct cg_chain *chain, uint64_t len, uint64_t off);

#endif
