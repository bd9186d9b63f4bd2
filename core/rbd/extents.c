#include "config.h"

#include <errno.h>

#include "core/base/bytes.h"
#include "core/rbd/rbd_image.h"

/* What is asked for at once: of the object map, which is one read; of the objects themselves, which
 * is a request each. */
#define MAP_WINDOW (UINT64_C(64) << 30)
#define OBJECTS_WINDOW 64

struct found {
    struct cg_extents *e;
    struct cg_error *err;
    int r;
};

static int found(uint64_t off, size_t len, int exists, void *opaque)
{
    struct found *f = opaque;

    if (off < f->e->next) /* out of order, or twice: what lies between may be missing */
        f->r = cg_error_say(f->err, EIO, "librbd describes a range out of order");
    if (f->r == 0)
        f->r = cg_extents_to(f->e, off, CG_HOLE, f->err);
    if (f->r == 0)
        f->r = cg_extents_to(f->e, off + len, exists ? CG_DATA : CG_HOLE, f->err);
    return f->r;
}

/* Describes [e->next, end) in one go, whole objects or exactly. */
static int describe(rbd_image_t image, struct cg_extents *e, uint64_t end, bool whole,
                    struct cg_error *err)
{
    struct found f = { .e = e, .err = err };
    uint64_t off = e->next;

    int r = rbd_diff_iterate2(image, NULL, off, end - off, 1, whole, found, &f);
    if (f.r < 0)
        return f.r;
    if (r < 0)
        return cg_rbd_failed(r, err, "ask for the extents of an image");
    return cg_extents_to(e, end, CG_HOLE, err);
}

/* True if the image has an object map that says truly which objects exist. */
static bool has_map(rbd_image_t image)
{
    uint64_t features, flags;

    return rbd_get_features(image, &features) == 0 && (features & RBD_FEATURE_FAST_DIFF) &&
           rbd_get_flags(image, &flags) == 0 &&
           !(flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID));
}

int cg_rbd_image_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    rbd_image_t image = cg_rbd_image_handle(self);
    rbd_image_info_t info;
    uint64_t start = e->next, end = e->end;

    int r = rbd_stat(image, &info, sizeof info);
    if (r < 0)
        return cg_rbd_failed(r, err, "ask for the extents of an image");
    if (has_map(image)) {
        struct cg_extents map;
        end = cg_min(end, start + MAP_WINDOW);
        cg_extents_init(&map, start, end, 1);
        r = describe(image, &map, end, true, err);
        struct cg_extent first = r == 0 ? map.v[0] : (struct cg_extent){ 0 };
        cg_extents_clear(&map);
        if (r < 0)
            return r;
        if (first.type != CG_DATA)
            return cg_extents_to(e, first.off + first.len, CG_HOLE, err);
        end = first.off + first.len;
    }
    return describe(image, e, cg_min(end, start + OBJECTS_WINDOW * info.obj_size), false, err);
}
