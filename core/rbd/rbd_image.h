/* An RBD image or snapshot as an image. */
#ifndef CG_RBD_RBD_IMAGE_H
#define CG_RBD_RBD_IMAGE_H

#include <rbd/librbd.h>

#include "core/image/image.h"
#include "core/rbd/cluster.h"

struct cg_rbd_image;

/* Opens IMAGE (and snapshot, "" for the head) in a pool of the cluster.  text is the whole name,
 * for messages.  Reading never takes the image's lock; a head open for writing takes it with the
 * first write, gives it to whoever asks, and takes it back with the next.  The caller closes it. */
int cg_rbd_image_open(struct cg_rbd_cluster *cluster, const struct cg_rbd_config *config,
                      rados_ioctx_t io, const char *image, const char *snapshot, bool write,
                      const char *text, struct cg_rbd_image **ret_image, struct cg_error *err);

/* Nothing is in flight but calls that timed out.  NULL is fine. */
void cg_rbd_image_close(struct cg_rbd_image *image);

/* librbd's own handle, for what is done once and needs no time limit. */
rbd_image_t cg_rbd_image_handle(struct cg_rbd_image *image);

/* Takes the lock for good: nobody else can write until the image is closed.  -EBUSY names who has
 * the image open. */
int cg_rbd_image_lock(struct cg_rbd_image *image, struct cg_error *err);

/* Describes extents as cg_image_ops has it (extents.c). */
int cg_rbd_image_extents(void *self, struct cg_extents *e, struct cg_error *err);

/* Wraps the image, whose closing then is the caller's again: done(opaque) is called instead when
 * the wrapping closes. */
int cg_rbd_image_wrap(struct cg_rbd_image *image, void (*done)(void *opaque), void *opaque,
                      struct cg_image **ret_image, struct cg_error *err);

#endif
