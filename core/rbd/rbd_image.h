/* An RBD image or snapshot as an image. */
#ifndef CG_RBD_RBD_IMAGE_H
#define CG_RBD_RBD_IMAGE_H

#include <rbd/librbd.h>

#include "core/image/image.h"
#include "core/rbd/cluster.h"

struct cg_rbd_image;

/* Opens IMAGE (and snapshot, "" for the head) in a pool of the cluster, which was connected for
 * looking or, to write, for changing.  text is the whole name,
 * for messages.  Reading never takes the image's lock; a head open for writing takes it with the
 * first write, gives it to whoever asks, and takes it back with the next.  The caller closes it. */
int cg_rbd_image_open(struct cg_rbd_cluster *cluster, const struct cg_rbd_config *config,
                      rados_ioctx_t io, const char *image, const char *snapshot, bool write,
                      const char *text, struct cg_rbd_image **ret_image, struct cg_error *err);

/* Nothing is in flight but what timed out.  If the cluster is away, librbd is left with the image,
 * and the cluster pinned.  NULL is fine. */
void cg_rbd_image_close(struct cg_rbd_image *image);
void cg_rbd_image_cleanup(struct cg_rbd_image **image); /* for CG_CLEANUP */

/* As cg_rbd_image_close, image not NULL; closed(opaque) is called when librbd is done with it, also
 * if that is later, by a thread that nobody waits for.  NULL: it isn't asked for. */
void cg_rbd_image_close_then(struct cg_rbd_image *image, void (*closed)(void *opaque),
                             void *opaque);

/* Closes a handle of librbd's.  0 or what librbd says. */
int cg_rbd_close(rbd_image_t image);

/* librbd's own handle.  What it does synchronously ends in the time limit if the image was opened
 * to look; if it was opened to write, it waits for the cluster: see cg_rbd_image_limited. */
rbd_image_t cg_rbd_image_handle(struct cg_rbd_image *image);

/* Something synchronous that is done with an image; arg begins with this. */
struct cg_rbd_doing {
    struct cg_rbd_image *image;
    int (*run)(void *arg, rbd_image_t image); /* returns what librbd says */
    void (*free)(void *arg);
};

/* Runs it with the image's time limit.  True: *ret_result is what it returned.  False: it hasn't
 * ended in time, and is freed when it has. */
bool cg_rbd_image_limited(struct cg_rbd_image *image, struct cg_rbd_doing *doing, int *ret_result);

/* True if writes are acknowledged before the cluster has them: only this handle shows them then. */
bool cg_rbd_image_writes_back(struct cg_rbd_image *image);

/* True if the cluster has shut out the client that opened it: nothing will succeed any more. */
bool cg_rbd_image_shut_out(struct cg_rbd_image *image);

/* Bytes of Ceph's own image; as one of ours it has zeros up to the end of its last sector. */
uint64_t cg_rbd_image_end(struct cg_rbd_image *image);

/* The whole name, for messages. */
const char *cg_rbd_image_text(struct cg_rbd_image *image);

/* The number that the cluster gave the client which opened it. */
uint64_t cg_rbd_image_client(struct cg_rbd_image *image);

/* A failure of librbd as ours: "WHAT IMAGE: …". */
int cg_rbd_image_failed(struct cg_rbd_image *image, int64_t r, const char *what,
                        struct cg_error *err);

/* Takes the lock for good: nobody else can write until the image is closed.  -EBUSY names who has
 * the image open for writing.  An image without the feature has no lock: then only who has it open
 * already is seen. (lock.c) */
int cg_rbd_image_lock(struct cg_rbd_image *image, struct cg_error *err);

/* Describes extents as cg_image_ops has it (extents.c). */
int cg_rbd_image_extents(void *self, struct cg_extents *e, struct cg_error *err);

/* Wraps the image (several times is fine, with the same done and opaque), whose closing then is the
 * caller's again: done(opaque) is called instead when the wrapping closes. */
int cg_rbd_image_wrap(struct cg_rbd_image *image, bool read_only, void (*done)(void *opaque),
                      void *opaque, struct cg_image **ret_image, struct cg_error *err);

#endif
