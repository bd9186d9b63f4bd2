/* What the files of the rbd space share. */
#ifndef CG_RBD_RBD_H
#define CG_RBD_RBD_H

#include "core/rbd/cluster.h"
#include "core/rbd/settings.h"
#include "core/rbd/rbd_image.h"
#include "core/space.h"

struct cg_rbd_opens;

struct cg_rbd {
    struct cg_rbd_config config;
    struct cg_rbd_cluster *cluster;
    struct cg_rbd_opens *opens;
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

/* Opens what name says, not shared with others: for operations on it.  The caller closes it. */
int cg_rbd_open_once(struct cg_rbd *rbd, const struct cg_name *name, bool write,
                     struct cg_rbd_image **ret_image, struct cg_error *err);

/* opens.c: images open in this process, shared by all who open the same name in the same way. */
struct cg_rbd_opens *cg_rbd_opens_new(void);
void cg_rbd_opens_free(struct cg_rbd_opens *opens);

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
int cg_rbd_resize(void *self, const struct cg_name *name, uint64_t size, struct cg_error *err);
int cg_rbd_rename(void *self, const struct cg_name *from, const struct cg_name *to,
                  struct cg_error *err);
int cg_rbd_remove(void *self, const struct cg_name *name, unsigned flags, struct cg_error *err);

#endif
