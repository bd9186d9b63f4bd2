#include "config.h"

#include <errno.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/marks.h"
#include "core/rbd/rbd.h"

/* An image of that name is in the way of a draft: 0 if it can be gone on with, else it's removed
 * and -ENOENT. */
static int reuse_draft(struct cg_rbd *rbd, const struct cg_name *name, uint64_t size,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    uint64_t found;

    int r = cg_rbd_open_once(rbd, name, false, &im, err);
    if (r == 0) {
        r = rbd_get_size(cg_rbd_image_handle(im), &found);
        if (r < 0)
            return cg_rbd_failed(r, err, "look at an unfinished image");
    }
    if (r < 0 || found == size)
        return r;
    r = cg_rbd_remove(rbd, name, 0, err);
    return r < 0 ? r : -ENOENT;
}

int cg_rbd_create(void *self, const struct cg_name *name, uint64_t size, uint64_t original_size,
                  struct cg_error *err)
{
    struct cg_rbd_place p;
    rbd_image_options_t options;

    (void)original_size; /* an image of Ceph knows one size */
    int r = cg_rbd_place_head(self, name, "create", &p, err);
    if (r == 0 && name->draft) {
        r = reuse_draft(self, name, size, err);
        if (r != -ENOENT)
            return r < 0 ? cg_error_prefix(err, r, "create %s", p.text) : 0;
        r = 0;
    }
    if (r < 0)
        return r;
    rbd_image_options_create(&options);
    r = rbd_create4(p.io, p.image, size, options);
    rbd_image_options_destroy(options);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", p.text);
    return r < 0 ? cg_rbd_failed(r, err, "create %s", p.text) : 0;
}

int cg_rbd_rollback(void *self, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    if (!name->snapshot[0])
        return cg_error_say(err, EINVAL, "roll back to %s: it is an image, write IMAGE@SNAPSHOT",
                            text);
    int r = cg_rbd_open_head(self, name, &im, err);
    if (r == 0)
        r = cg_rbd_image_lock(im, err);
    if (r < 0)
        return cg_error_prefix(err, r, "roll back to %s", text);
    r = rbd_snap_rollback(cg_rbd_image_handle(im), name->snapshot);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", text);
    return r < 0 ? cg_rbd_failed(r, err, "roll back to %s", text) : 0;
}

static int check_not_migrating(rbd_image_t image, struct cg_error *err)
{
    uint64_t features;
    int r = rbd_get_features(image, &features);

    if (r < 0)
        return cg_rbd_failed(r, err, "look into the image");
    return features & RBD_FEATURE_MIGRATING
               ? cg_error_say(err, EBUSY, "it is being migrated: commit that first")
               : 0;
}

struct flattening {
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
    uint64_t object_size;
    bool cancelled;
};

/* librbd counts objects. */
static int flattened(uint64_t done, uint64_t total, void *opaque)
{
    struct flattening *f = opaque;

    if (f->progress && f->progress(f->opaque, done * f->object_size, total * f->object_size))
        f->cancelled = true;
    return f->cancelled ? -ECANCELED : 0;
}

int cg_rbd_flatten(void *self, const struct cg_name *name, uint64_t rate,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    struct flattening f = { .progress = progress, .opaque = opaque };
    struct cg_rbd_parent parent;
    struct cg_rbd_place p;
    rbd_image_info_t info;

    if (rate)
        return cg_error_say(err, ENOTSUP, "flatten: Ceph's own pace can't be limited by a rate");
    int r = cg_rbd_place_head(self, name, "flatten", &p, err);
    if (r == 0)
        r = cg_rbd_open_once(self, name, true, &im, err);
    if (r == 0 && (r = check_not_migrating(cg_rbd_image_handle(im), err)) < 0)
        return cg_error_prefix(err, r, "flatten %s", p.text);
    if (r == 0)
        r = cg_rbd_parent(self, cg_rbd_image_handle(im), CG_RBD_CHANGE, &parent, err);
    if (r < 0 || !parent.there)
        return r;
    r = rbd_stat(cg_rbd_image_handle(im), &info, sizeof info);
    f.object_size = info.obj_size;
    if (r == 0)
        r = rbd_flatten_with_progress(cg_rbd_image_handle(im), flattened, &f);
    if (r < 0 && f.cancelled)
        return cg_error_say(err, ECANCELED, "flatten %s: interrupted", p.text);
    if (r < 0)
        return cg_rbd_failed(r, err, "flatten %s", p.text);
    cg_rbd_parent_left(&parent);
    return 0;
}

int cg_rbd_resize(void *self, const struct cg_name *name, uint64_t size, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    struct cg_rbd_place p;
    uint64_t now;

    int r = cg_rbd_place_head(self, name, "resize", &p, err);
    if (r == 0)
        r = cg_rbd_open_once(self, name, true, &im, err);
    if (r < 0)
        return r;
    r = rbd_get_size(cg_rbd_image_handle(im), &now);
    if (r == 0 && size < now)
        return cg_error_say(err, EINVAL, "%s can only grow", p.text);
    if (r == 0)
        r = rbd_resize2(cg_rbd_image_handle(im), size, false, NULL, NULL);
    return r < 0 ? cg_rbd_failed(r, err, "resize %s", p.text) : 0;
}

/* Volumes remember what they stand on by its name, and migrations what they fill. */
static int check_not_held(struct cg_rbd *rbd, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    CG_CLEANUP(cg_rbd_marks_clear) struct cg_rbd_marks marks = { 0 };

    int r = cg_rbd_open_once(rbd, name, false, &im, err);
    if (r == 0)
        r = check_not_migrating(cg_rbd_image_handle(im), err);
    if (r == 0)
        r = cg_rbd_marks_read(cg_rbd_image_handle(im), &marks, err);
    const struct cg_rbd_mark *holder = r == 0 ? cg_rbd_marks_holder(&marks, 0) : NULL;
    if (holder)
        return cg_error_say(
            err, EBUSY,
            "a volume of host %s (uuid %s) stands on one of its snapshots and knows "
            "it by this name: flatten or delete that first",
            holder->host, holder->uuid);
    return r;
}

int cg_rbd_rename(void *self, const struct cg_name *from, const struct cg_name *to,
                  struct cg_error *err)
{
    struct cg_rbd_place f, t;

    int r = cg_rbd_place_head(self, from, "rename", &f, err);
    if (r == 0)
        r = cg_rbd_place_head(self, to, "rename to", &t, err);
    if (r < 0)
        return r;
    if (f.io != t.io)
        return cg_error_say(err, EXDEV, "%s and %s are in different pools or namespaces", f.text,
                            t.text);
    r = check_not_held(self, from, err);
    if (r < 0)
        return cg_error_prefix(err, r, "rename %s", f.text);
    r = rbd_rename(f.io, f.image, t.image);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", t.text);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", f.text);
    return r < 0 ? cg_rbd_failed(r, err, "rename %s", f.text) : 0;
}
