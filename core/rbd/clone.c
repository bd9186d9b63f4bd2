#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/marks.h"
#include "core/rbd/rbd.h"

#define TRIES 5

/* Clones as the cluster does it: format 2, or format 1, which wants the snapshot protected. */
static int clone_snapshot(struct cg_rbd *rbd, const struct cg_name *parent,
                          const struct cg_rbd_place *from, const struct cg_rbd_place *to,
                          struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    rbd_image_options_t options;
    int r;

    rbd_image_options_create(&options);
    for (unsigned i = 0;; i++) { /* until nobody unprotects it in between */
        r = rbd_clone3(from->io, from->image, parent->snapshot, to->io, to->image, options);
        if (r != -EINVAL || i == TRIES)
            break;
        r = im ? 0 : cg_rbd_open_head(rbd, parent, &im, err);
        if (r == 0)
            r = cg_rbd_protect(cg_rbd_image_handle(im), parent->snapshot, err);
        if (r < 0) {
            rbd_image_options_destroy(options);
            return r;
        }
    }
    rbd_image_options_destroy(options);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", to->text);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no such snapshot");
    return r < 0 ? cg_rbd_failed(r, err, "let Ceph clone it") : 0;
}

/* Opens what an image stands on.  1: it stands on nothing. */
static int open_parent(struct cg_rbd *rbd, rbd_image_t image, rbd_image_t *ret,
                       struct cg_error *err)
{
    struct cg_rbd_parent p;

    int r = cg_rbd_parent(rbd, image, CG_RBD_LOOK, &p, err);
    if (r < 0 || !p.there)
        return r < 0 ? r : 1;
    r = rbd_open_by_id_read_only(p.io, p.id, ret, NULL);
    return r < 0 ? cg_rbd_failed(r, err, "open the parent") : 0;
}

/* How many images a clone stands on, counted no further than one too many. */
static int depth_of(struct cg_rbd *rbd, struct cg_rbd_image *im, unsigned *ret,
                    struct cg_error *err)
{
    rbd_image_t image = cg_rbd_image_handle(im), parent;
    unsigned depth = 0;
    int r = 0;

    while (depth <= CG_DEPTH_MAX && (r = open_parent(rbd, image, &parent, err)) == 0) {
        if (depth++ > 0)
            cg_rbd_close(image);
        image = parent;
    }
    if (depth > 0)
        cg_rbd_close(image);
    if (r < 0)
        return r;
    *ret = depth;
    return 0;
}

/* The clone is there: 1 if it's too deep. */
static int look_at_clone(struct cg_rbd *rbd, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    unsigned depth;

    int r = cg_rbd_open_once(rbd, name, true, &im, err);
    if (r < 0)
        return r;
    cg_rbd_marks_disown(cg_rbd_image_handle(im));
    r = depth_of(rbd, im, &depth, err);
    return r < 0 ? r : depth > CG_DEPTH_MAX;
}

static int clone_frozen(struct cg_rbd *rbd, const struct cg_name *parent,
                        const struct cg_name *name, struct cg_error *err)
{
    struct cg_rbd_place from, to;

    int r = cg_rbd_place(rbd, parent, &from, err);
    if (r == 0)
        r = cg_rbd_place_head(rbd, name, "clone to", &to, err);
    if (r == 0)
        r = clone_snapshot(rbd, parent, &from, &to, err);
    if (r < 0)
        return r;
    r = look_at_clone(rbd, name, err);
    if (r < 0)
        cg_rbd_remove(rbd, name, 0, NULL);
    return r;
}

/* A snapshot made for a clone goes: at once if the clone came to nothing or Ceph keeps what it
 * needs, else when the clone lets go. */
static void tidy(struct cg_rbd *rbd, const struct cg_name *snapshot)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    uint64_t id;

    if (cg_rbd_open_head_of(rbd, snapshot, &im, &id, NULL) == 0)
        cg_rbd_tidy(cg_rbd_image_handle(im), id, NULL);
}

int cg_rbd_clone(void *self, const char *text, const struct cg_name *name, struct cg_error *err)
{
    struct cg_name parent;
    struct cg_rbd_place place;
    char to[CG_NAME_MAX];
    int r = 0;

    if (cg_arg_kind(text) == CG_ARG_NAME)
        r = cg_name_parse(text, &parent, err);
    if (r == 0)
        r = cg_rbd_place_head(self, name, "clone to", &place, err);
    if (r < 0)
        return r;
    if (cg_arg_kind(text) != CG_ARG_NAME || parent.space != CG_NAME_RBD || parent.partition)
        return cg_error_say(err, EXDEV,
                            "%s: in rbd/ only whole RBD images and snapshots can be cloned", text);
    bool head = !parent.snapshot[0];
    r = cg_rbd_freeze(self, &parent, err);
    if (r == 0)
        r = clone_frozen(self, &parent, name, err);
    if (head || r < 0)
        tidy(self, &parent);
    return r < 0 ? cg_error_prefix(err, r, "clone %s to %s", text, cg_name_text(name, true, to))
                 : r;
}

int cg_rbd_parent(struct cg_rbd *rbd, rbd_image_t image, enum cg_rbd_purpose purpose,
                  struct cg_rbd_parent *ret, struct cg_error *err)
{
    rbd_linked_image_spec_t parent;
    rbd_snap_spec_t snap;

    *ret = (struct cg_rbd_parent){ 0 };
    int r = rbd_get_parent(image, &parent, &snap);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return cg_rbd_failed(r, err, "ask for the image's parent");
    r = cg_rbd_cluster_pool(rbd->cluster, purpose, parent.pool_name,
                            parent.pool_namespace ? parent.pool_namespace : "", &ret->io, err);
    snprintf(ret->id, sizeof ret->id, "%s", parent.image_id);
    ret->snapshot = snap.id;
    ret->there = r == 0;
    rbd_linked_image_spec_cleanup(&parent);
    rbd_snap_spec_cleanup(&snap);
    return r;
}

void cg_rbd_parent_left(const struct cg_rbd_parent *parent)
{
    rbd_image_t image;

    if (!parent->there || rbd_open_by_id(parent->io, parent->id, &image, NULL) < 0)
        return;
    cg_rbd_tidy(image, parent->snapshot, NULL);
    cg_rbd_close(image);
}
