/* What the files of the rbd space share. */
#ifndef CG_RBD_RBD_H
#define CG_RBD_RBD_H

#include <stdatomic.h>

#include "core/rbd/cluster.h"
#include "core/rbd/settings.h"
#include "core/rbd/rbd_image.h"
#include "core/space.h"

struct cg_rbd_opens;

struct cg_rbd {
    struct cg_rbd_config config;
    struct cg_rbd_cluster *cluster;
    struct cg_rbd_opens *opens;
    atomic_size_t hidden; /* names that listings left out because they aren't such as ours */
};

/* Where a name points to. */
struct cg_rbd_place {
    rados_ioctx_t io;
    const char *pool, *namespace; /* parts of the name; namespace "" for the default one */
    char image[CG_PART_MAX + 16]; /* as the cluster knows it: a draft has a hidden name */
    char text[CG_NAME_MAX];       /* for messages */
};

/* Drafts have a name that isn't one of ours. */
#define CG_RBD_DRAFT ".cowgate-draft."

/* Snapshots that were made for a clone of a head begin with this. */
#define CG_RBD_AUTO "cowgate-clone-"

#define CG_RBD_SNAP_MAX 512 /* bytes of a snapshot's name, which need not be one of ours */

/* -EACCES if the configuration doesn't give the pool's namespace (NULL: any of it) to this root. */
int cg_rbd_allowed(struct cg_rbd *rbd, const char *pool, const char *namespace,
                   struct cg_error *err);

/* Finds the pool of the name of an image, which must be allowed, for changing something there; name
 * must outlive the place.  -EINVAL: no image's name. */
int cg_rbd_place(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_place *ret,
                 struct cg_error *err);

/* The same for looking only: no request there takes longer than the time limit. */
int cg_rbd_place_to_look(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_place *ret,
                         struct cg_error *err);

/* The same for filling it beside guests. */
int cg_rbd_place_to_fill(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_place *ret,
                         struct cg_error *err);

/* As cg_rbd_place for what can only be done to an image, not a snapshot: what says what that is. */
int cg_rbd_place_head(struct cg_rbd *rbd, const struct cg_name *name, const char *what,
                      struct cg_rbd_place *ret, struct cg_error *err);

/* Opens what name says, not shared with others: for operations on it.  The caller closes it. */
int cg_rbd_open_once(struct cg_rbd *rbd, const struct cg_name *name, bool write,
                     struct cg_rbd_image **ret_image, struct cg_error *err);

/* Opens, for operations on it, the image that a snapshot is of (or that name is), for writing. */
int cg_rbd_open_head(struct cg_rbd *rbd, const struct cg_name *name,
                     struct cg_rbd_image **ret_image, struct cg_error *err);

/* As cg_rbd_open_head, and finds the snapshot's id.  -ENOENT: there is none of that name. */
int cg_rbd_open_head_of(struct cg_rbd *rbd, const struct cg_name *snapshot,
                        struct cg_rbd_image **ret_image, uint64_t *ret_id, struct cg_error *err);

/* opens.c: images open in this process, shared by all who open the same name in the same way. */
struct cg_rbd_opens *cg_rbd_opens_new(void);
void cg_rbd_opens_free(struct cg_rbd_opens *opens);

/* Opens what name says for looking at it; a snapshot that is open in this process isn't opened
 * again. The caller unshares it; NULL is fine. */
struct cg_rbd_shared;
int cg_rbd_share(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_shared **ret_shared,
                 struct cg_error *err);
void cg_rbd_unshare(struct cg_rbd_shared *shared);
void cg_rbd_unshare_cleanup(struct cg_rbd_shared **shared); /* for CG_CLEANUP */
rbd_image_t cg_rbd_shared_handle(struct cg_rbd_shared *shared);

/* hold.c: image is open for writing. */

/* Protects a snapshot, and marks that cowgate did unless it was protected before. */
int cg_rbd_protect(rbd_image_t image, const char *snapshot, struct cg_error *err);

/* Takes cowgate's protection of a snapshot away, and the whole snapshot if it was made for a clone,
 * unless somebody needs it: 1 then. */
int cg_rbd_tidy(rbd_image_t image, uint64_t id, struct cg_error *err);

/* clone.c: what a clone stands on. */
struct cg_rbd_parent {
    bool there; /* false: it stands on nothing */
    rados_ioctx_t io;
    char id[64]; /* of the image */
    uint64_t snapshot;
};

int cg_rbd_parent(struct cg_rbd *rbd, rbd_image_t image, enum cg_rbd_purpose purpose,
                  struct cg_rbd_parent *ret, struct cg_error *err);

/* A clone went or is flat: tidies, by a connection for changing, the snapshot that it stood on, as
 * far as possible. */
void cg_rbd_parent_left(const struct cg_rbd_parent *parent);

/* Several snapshots, all of one moment at which nobody writes any of the images (moment.c).  None
 * is left after a failure.  -EBUSY: there was no such moment; -ENOTSUP: an image has no lock. */
int cg_rbd_snapshot_moment(struct cg_rbd *rbd, const struct cg_name *names, size_t count,
                           struct cg_error *err);

/* Operations of the space, as struct cg_space_ops has them; self is a struct cg_rbd. */
int cg_rbd_open(void *self, const struct cg_name *name, unsigned flags, struct cg_image **ret_image,
                struct cg_error *err);
int cg_rbd_list(void *self, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
                struct cg_error *err);
int cg_rbd_identify(void *self, const struct cg_name *name, struct cg_identity *ret,
                    struct cg_error *err);
int cg_rbd_info(void *self, const struct cg_name *name, json_t **ret_info, struct cg_error *err);
int cg_rbd_create(void *self, const struct cg_name *name, uint64_t size, uint64_t original_size,
                  struct cg_error *err);
int cg_rbd_snapshot(void *self, const struct cg_name *names, size_t count, struct cg_error *err);
int cg_rbd_diff(void *self, const struct cg_name *from, const struct cg_name *to, cg_extent_fn *fn,
                void *opaque, struct cg_error *err);
int cg_rbd_clone(void *self, const char *parent, const struct cg_name *name, struct cg_error *err);
int cg_rbd_rollback(void *self, const struct cg_name *snapshot, struct cg_error *err);
int cg_rbd_flatten(void *self, const struct cg_name *name, uint64_t rate,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   struct cg_error *err);
int cg_rbd_freeze(void *self, struct cg_name *name, struct cg_error *err);
int cg_rbd_find(void *self, const struct cg_identity *identity, struct cg_name *name,
                struct cg_error *err);
int cg_rbd_hold(void *self, const struct cg_name *name, const char *uuid, struct cg_error *err);
int cg_rbd_release(void *self, const struct cg_name *name, const char *uuid, struct cg_error *err);
int cg_rbd_resize(void *self, const struct cg_name *name, uint64_t size, struct cg_error *err);
int cg_rbd_rename(void *self, const struct cg_name *from, const struct cg_name *to,
                  struct cg_error *err);
int cg_rbd_remove(void *self, const struct cg_name *name, unsigned flags, struct cg_error *err);
int cg_rbd_migrate_stream(void *self, const struct cg_name *name, const char *stream,
                          struct cg_error *err);
int cg_rbd_migrate_prepare(void *self, const struct cg_name *name, const char *spec,
                           struct cg_error *err);
int cg_rbd_migrate_step(void *self, const struct cg_name *name, enum cg_migration_step step,
                        int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                        struct cg_error *err);
int cg_rbd_migrate_status(void *self, const struct cg_name *name, const char *image_id,
                          const char *spec, struct cg_migration_status *ret, struct cg_error *err);

#endif
