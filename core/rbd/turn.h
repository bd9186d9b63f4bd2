/* A turn: in each pool's namespace one client of cowgate at a time does what others would disturb.
 */
#ifndef CG_RBD_TURN_H
#define CG_RBD_TURN_H

#include <rados/librados.h>

#include "core/base/error.h"

/* Waits for the turn, no longer than timeout seconds (-EBUSY then).  Again, by the same connection,
 * is fine.  Whoever died has let go after a minute, and so has who takes longer. */
int cg_rbd_turn_begin(rados_ioctx_t io, unsigned timeout, struct cg_error *err);

/* Gives it back; not having it is fine. */
void cg_rbd_turn_end(rados_ioctx_t io);

#endif
