/* Sealing: everything acknowledged so far gets into layers that don't change any more, and a new
 * top layer takes what follows.
 *
 * In steps, so that several volumes can be sealed at one moment: most of the work is done before
 * writes are held up (prepare); when they are (hold), nothing is being written and what was
 * acknowledged is on disk; then volume.json is replaced (take), or not, and writes go on (end). */
#ifndef CG_VOLUMES_SEAL_H
#define CG_VOLUMES_SEAL_H

#include "core/volumes/change_request.h"
#include "core/volumes/volume.h"

/* How what is done with sealed layers changes volume.json, along with the new top. */
typedef int cg_seal_edit(struct cg_volume_json *json, const struct cg_layers *sealed,
                         const struct cg_change *change, struct cg_error *err);

struct cg_seal {
    struct cg_volume *v;
    struct cg_layer *old, *top; /* references */
    struct cg_layer *sealed; /* old opened anew, without the memory of a working map; may be NULL */
    bool held;               /* has the gate exclusively */
    bool taken;
};

/* All of these with v->change held, from prepare to end by one thread.  After a failure of prepare
 * there is nothing to end; after one of the others there is.  size: the new top's, bytes. */
int cg_seal_prepare(struct cg_seal *s, struct cg_volume *v, uint64_t size, struct cg_error *err);
int cg_seal_hold(struct cg_seal *s, struct cg_error *err);

/* *ret_sealed (may be NULL): the layers up to the moment. */
int cg_seal_take(struct cg_seal *s, cg_seal_edit *edit, const struct cg_change *change,
                 struct cg_layers *ret_sealed, struct cg_error *err);

/* As cg_seal_take, without the new top if it would stand on nothing new: then the layers below the
 * old one stand for the moment. */
int cg_seal_take_changed(struct cg_seal *s, cg_seal_edit *edit, const struct cg_change *change,
                         struct cg_layers *ret_sealed, struct cg_error *err);

/* Lets writes go on, and removes what was prepared and not taken. */
void cg_seal_end(struct cg_seal *s);

/* All steps; the first only if there is something new. */
int cg_seal(struct cg_volume *v, cg_seal_edit *edit, const struct cg_change *change,
            struct cg_layers *ret_sealed, struct cg_error *err);
int cg_seal_renew(struct cg_volume *v, uint64_t size, cg_seal_edit *edit,
                  const struct cg_change *change, struct cg_layers *ret_sealed,
                  struct cg_error *err);

/* A new top layer, durable but for volume.json, locked and taking writes if the volume does. */
int cg_seal_make_top(struct cg_volume *v, uint64_t size, struct cg_layer **ret_layer,
                     struct cg_error *err);

#endif
