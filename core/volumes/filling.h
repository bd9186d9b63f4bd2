/* The layer `filling` in volume.json and in the head: it comes below all others, and when it's
 * whole takes the place of the parent, or of layers that the volume shares (gather.h) and the
 * parent; or it goes again.  Those that change it are called by who has the volume's lock. */
#ifndef CG_VOLUMES_FILLING_H
#define CG_VOLUMES_FILLING_H

#include "core/volumes/volume.h"

/* True if the volume has such a layer or needs one: it stands on a parent, or shares what it
 * inherited.  v->change is held (or nobody else knows v), as for the next one. */
bool cg_filling_needed(struct cg_volume *v);

/* Makes the layer, if there isn't one that is right for what is to go. */
int cg_filling_begin(struct cg_volume *v, struct cg_error *err);

/* The layer uuid is whole, and durable.  Nothing if it isn't the one to be filled any more; nor in
 * the next one. */
int cg_filling_end(struct cg_volume *v, const char *uuid, struct cg_error *err);

/* Takes it out, with what is in it: without room for all the guest needs what is left more. */
void cg_filling_drop(struct cg_volume *v, const char *uuid);

/* What is durable in it is read from there from here on, not from the parent. */
int cg_filling_show(struct cg_volume *v, const char *uuid, struct cg_error *err);

#endif
