/* What a clone still shares with the volume that it was cloned from, or with that one's other
 * clones: the layers that it inherited, which a flatten gathers in one of its own.
 *
 * That one, the layer `filling`, lies below all chains while it's being filled, so that it shows
 * through nowhere; what is in it is what the layers that it's to replace show together, over the
 * parent if there is one.  Those stay as they are until then. */
#ifndef CG_VOLUMES_GATHER_H
#define CG_VOLUMES_GATHER_H

#include "core/volumes/volume.h"

/* How many of the lowest layers of all chains are to be gathered since something inherited among
 * them is shared; 0: none.  *ret_size: what they show, bytes.  The volume is locked, v->change is
 * held (or nobody else knows v). */
size_t cg_gather_count(struct cg_volume *v, uint64_t *ret_size);

/* The changes of volume.json: uuid, which is not in the chains yet, is to replace the count lowest
 * layers of all chains, of size bytes; it has; it isn't to any more. */
int cg_gather_begin(struct cg_volume_json *json, size_t count, uint64_t size, const char *uuid,
                    struct cg_error *err);
void cg_gather_end(struct cg_volume_json *json);
void cg_gather_drop(struct cg_volume_json *json);

/* Removes this volume's links to the layers that were replaced. */
void cg_gather_unlink(struct cg_volume *v);

/* An image of what count layers (at least 1) show over parent, which may be NULL.  It has
 * references of its own.  NULL if memory is short. */
struct cg_image *cg_gather_image(struct cg_layer **layers, size_t count, struct cg_parent *parent);

#endif
