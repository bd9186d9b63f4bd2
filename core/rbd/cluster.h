/* The connections to a Ceph cluster: made at the first use, for the whole process.
 *
 * There are two.  On the one for looking each request ends with an error when the time limit is
 * past.  Changing would not survive that: librbd takes a lock's or an object map's lost request for
 * a broken image.  There requests wait for the cluster, and whoever waits for them gives up: see
 * call.h and limit.h. */
#ifndef CG_RBD_CLUSTER_H
#define CG_RBD_CLUSTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rados/librados.h>

#include "core/base/error.h"
#include "core/rbd/settings.h"

struct cg_rbd_cluster;

enum cg_rbd_purpose {
    CG_RBD_LOOK, /* no request takes longer than the time limit */
    CG_RBD_CHANGE,
    CG_RBD_FILL, /* a whole image, beside guests who use it: few objects at a time */
};

#define CG_RBD_FSID 36 /* characters of a cluster's id */

/* Connects to nothing yet.  config must outlive the cluster.  NULL if memory is short. */
struct cg_rbd_cluster *cg_rbd_cluster_new(const struct cg_rbd_config *config);

/* All images are closed.  Leaves everything as it is while it's pinned.  NULL is fine. */
void cg_rbd_cluster_free(struct cg_rbd_cluster *cluster);

/* The pool and namespace ("" for the default one), connecting first if need be.  Owned by the
 * cluster, valid as long as it is.  -ENOENT: no such pool; -ETIMEDOUT: what holds it is away.  Any
 * thread. */
int cg_rbd_cluster_pool(struct cg_rbd_cluster *cluster, enum cg_rbd_purpose purpose,
                        const char *pool, const char *namespace, rados_ioctx_t *ret_io,
                        struct cg_error *err);

/* The cluster has shut out the client that io belongs to: what is opened from now on comes by a new
 * connection. */
void cg_rbd_cluster_shut_out(struct cg_rbd_cluster *cluster, rados_ioctx_t io);
bool cg_rbd_cluster_is_shut_out(struct cg_rbd_cluster *cluster, rados_ioctx_t io);

/* Counts what was left behind when something in a pool didn't answer in time (limit.h); lives as
 * long as the cluster. */
atomic_uint *cg_rbd_cluster_left(struct cg_rbd_cluster *cluster, rados_ioctx_t io);

/* The cluster's id, connecting first if need be. */
int cg_rbd_cluster_fsid(struct cg_rbd_cluster *cluster, char ret[static CG_RBD_FSID + 1],
                        struct cg_error *err);

/* Calls fn with the name of each pool. */
int cg_rbd_cluster_pools(struct cg_rbd_cluster *cluster,
                         int (*fn)(void *opaque, const char *pool, struct cg_error *err),
                         void *opaque, struct cg_error *err);

/* True while something that timed out is still unanswered: then the connection can't be taken
 * down, and the process ends with it. */
void cg_rbd_cluster_pin(struct cg_rbd_cluster *cluster);
void cg_rbd_cluster_unpin(struct cg_rbd_cluster *cluster);

/* Turns a result of librados or librbd into ours, with what was being done before it. */
int cg_rbd_failed(int r, struct cg_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
