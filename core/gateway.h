/* The gateway: a root with its configuration, the spaces in it, and images by name.  What faces
 * know. */
#ifndef CG_GATEWAY_H
#define CG_GATEWAY_H

#include "core/space.h"

struct cg_gateway;
struct cg_repository;

struct cg_gateway_options {
    const char *root;        /* NULL: $COWGATE_ROOT, else the default of this user */
    const char *project;     /* NULL: all; else names in other projects don't exist */
    const char *const *only; /* NULL: all; else no names but these do; ends with a NULL */
    bool read_only;          /* nothing is opened for writing */
    bool detect_zeros;       /* look for zeros in what can't change while it's open: see
                                cg_detect_open */
    bool serving;            /* names come from others: only the spaces that the root configures are
                                there */
};

/* Makes a root (it may be there, empty) with pool/ and repo/, or with the repository at the
 * absolute path or file:// URL repository, which is adopted if there is one and created if not.
 * -EEXIST if root is a root already. */
int cg_gateway_init(const char *root, const char *repository, struct cg_error *err);

/* Opens a root.  Starts no thread and connects to nothing.  The caller closes it. */
int cg_gateway_new(const struct cg_gateway_options *options, struct cg_gateway **ret_gateway,
                   struct cg_error *err);

/* All images must be closed.  NULL is fine. */
void cg_gateway_free(struct cg_gateway *gateway);

/* The root's absolute path. */
const char *cg_gateway_root(struct cg_gateway *gateway);

/* Where the root's images are served, as its configuration says ("advertise"), or NULL. */
const char *cg_gateway_advertise(struct cg_gateway *gateway);

/* Describes the pool as a JSON object that the caller owns; keys documented in cowgate(1). */
int cg_gateway_pool_info(struct cg_gateway *gateway, json_t **ret_info, struct cg_error *err);

/* True if the pool's file system is fuller than the configuration wants, and what to say then. */
bool cg_gateway_pool_full(struct cg_gateway *gateway, char *ret_text, size_t size);

/* Has say called when that becomes so or gets worse, and when it's over, from a thread which this
 * starts or one that calls cg_gateway_look_at_pool, until the gateway is freed. */
int cg_gateway_watch_pool(struct cg_gateway *gateway, void (*say)(const char *message),
                          struct cg_error *err);
void cg_gateway_look_at_pool(struct cg_gateway *gateway);

/* For what gives room back and finds none in the pool: true if there is a little now, which who
 * watches the pool had kept for that; to be tried again then. */
bool cg_gateway_use_spare(struct cg_gateway *gateway);

/* The project that the gateway is bound to, or NULL. */
const char *cg_gateway_project(struct cg_gateway *gateway);

/* True if the gateway has only some images (see only above), and this is the name of none of them;
 * with prefix, if none has a name below it either. */
bool cg_gateway_excludes(struct cg_gateway *gateway, const char *name, bool prefix);

/* Opens an image by a parsed name, a partition as a window.  flags: CG_OPEN_*; for what can only be
 * read CG_OPEN_WRITE gives a read-only image.  -ENOENT: no such image. */
int cg_gateway_open(struct cg_gateway *gateway, const struct cg_name *name, unsigned flags,
                    struct cg_image **ret_image, struct cg_error *err);

/* As cg_gateway_open for what a person at a command line may write: a name, a path or a URI.
 * Never for clients of a face. */
int cg_gateway_open_any(struct cg_gateway *gateway, const char *text, unsigned flags,
                        struct cg_image **ret_image, struct cg_error *err);

/* The space of an image's name, with the project checked; -ENOENT if the root has no such space. */
int cg_gateway_space(struct cg_gateway *gateway, const struct cg_name *name,
                     struct cg_space **ret_space, struct cg_error *err);

/* As cg_gateway_space for a prefix of names: that of a namespace in Ceph isn't the image of the
 * same name. */
int cg_gateway_space_below(struct cg_gateway *gateway, const struct cg_name *prefix,
                           struct cg_space **ret_space, struct cg_error *err);

/* True if the root's configuration has the space. */
bool cg_gateway_has(struct cg_gateway *gateway, enum cg_name_space space);

/* One level of names below prefix: the spaces (CG_NAME_ROOT), projects, images. */
int cg_gateway_list(struct cg_gateway *gateway, const struct cg_name *prefix, cg_entry_fn *fn,
                    void *opaque, struct cg_error *err);

/* Replaces in a name what stands for something else (latest) by what it means now, and tells what
 * identifies that image's content: as info shows it of what stands on it. */
int cg_gateway_identify(struct cg_gateway *gateway, struct cg_name *name,
                        char ret_identity[static CG_NAME_MAX], struct cg_error *err);

/* One word that tells what cg_gateway_open opens by a name from another image that has the name
 * before or after it, and a partition from one that lies elsewhere in the same image. */
int cg_gateway_image_id(struct cg_gateway *gateway, const struct cg_name *name,
                        char ret_id[static CG_NAME_MAX], struct cg_error *err);

/* How many names of Ceph the listings have left out so far, because they don't fit ours. */
size_t cg_gateway_hidden(struct cg_gateway *gateway);

/* All images below prefix, sorted; entry->name is the whole name.  With prefix->draft drafts too.
 */
int cg_gateway_list_all(struct cg_gateway *gateway, const struct cg_name *prefix, cg_entry_fn *fn,
                        void *opaque, struct cg_error *err);

/* The repository of the root, opened on first use; owned by the gateway. */
int cg_gateway_repository(struct cg_gateway *gateway, struct cg_repository **ret_repository,
                          struct cg_error *err);

#endif
