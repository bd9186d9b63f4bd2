#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/rbd/rbd_image.h"

/* What is asked for at once: of the object map, which is one read; of the objects themselves, which
 * is a request each. */
#define MAP_WINDOW (UINT64_C(64) << 30)
#define OBJECTS_WINDOW 256

struct range {
    uint64_t off, end;
};

/* A question to librbd: which ranges hold data.  It tells them in threads of its own, one at a
 * time. */
struct asking {
    struct cg_rbd_doing doing;
    uint64_t off, len;
    bool whole; /* objects as a whole */
    size_t count, allocated;
    struct range *v;
};

static void free_asking(void *arg)
{
    struct asking *a = arg;

    free(a->v);
    free(a);
}

static int told(uint64_t off, size_t len, int exists, void *opaque)
{
    struct asking *a = opaque;

    if (!exists)
        return 0;
    struct range *v = cg_array_room(a->v, a->count, &a->allocated, sizeof *v);
    if (!v)
        return -ENOMEM;
    a->v = v;
    a->v[a->count++] = (struct range){ off, off + len };
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return x->off < y->off ? -1 : x->off > y->off;
}

static int ask_run(void *arg, rbd_image_t image)
{
    struct asking *a = arg;

    int r = rbd_diff_iterate2(image, NULL, a->off, a->len, 1, a->whole, told, a);
    if (a->count > 1) /* with striping, some versions tell them as the objects come */
        qsort(a->v, a->count, sizeof *a->v, by_offset);
    return r < 0 ? r : 0;
}

/* Describes [e->next, end) in one go, whole objects or exactly. */
static int describe(struct cg_rbd_image *im, struct cg_extents *e, uint64_t end, bool whole,
                    struct cg_error *err)
{
    struct asking *a = calloc(1, sizeof *a);
    int r;

    if (!a)
        return cg_rbd_image_failed(im, -ENOMEM, "ask for the extents of", err);
    a->doing = (struct cg_rbd_doing){ .run = ask_run, .free = free_asking };
    a->off = e->next;
    a->len = end - e->next;
    a->whole = whole;
    if (!cg_rbd_image_limited(im, &a->doing, &r))
        return cg_rbd_image_failed(im, -ETIMEDOUT, "ask for the extents of", err);
    if (r < 0)
        r = cg_rbd_image_failed(im, r, "ask for the extents of", err);
    for (size_t i = 0; r == 0 && i < a->count && a->v[i].off < end; i++) {
        r = cg_extents_to(e, a->v[i].off, CG_HOLE, err);
        if (r == 0)
            r = cg_extents_to(e, cg_min(a->v[i].end, end), CG_DATA, err);
    }
    if (r == 0)
        r = cg_extents_to(e, end, CG_HOLE, err);
    free_asking(a);
    return r;
}

struct nature {
    struct cg_rbd_doing doing;
    uint64_t object_size;
    bool map;       /* the image has an object map that says truly which objects exist */
    bool migrating; /* what isn't there is read from a stream */
};

static int nature_run(void *arg, rbd_image_t image)
{
    struct nature *n = arg;
    rbd_image_info_t info;
    uint64_t features, flags;

    int r = rbd_stat(image, &info, sizeof info);
    if (r == 0)
        r = rbd_get_features(image, &features);
    if (r == 0)
        r = rbd_get_flags(image, &flags);
    if (r < 0)
        return r;
    n->object_size = info.obj_size;
    n->migrating = features & RBD_FEATURE_MIGRATING;
    n->map = (features & RBD_FEATURE_FAST_DIFF) &&
             !(flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID));
    return 0;
}

static int ask_nature(struct cg_rbd_image *im, struct nature *ret, struct cg_error *err)
{
    struct nature *n = calloc(1, sizeof *n);
    int r = -ENOMEM;

    if (n) {
        n->doing = (struct cg_rbd_doing){ .run = nature_run, .free = free };
        if (!cg_rbd_image_limited(im, &n->doing, &r))
            return cg_rbd_image_failed(im, -ETIMEDOUT, "look into", err);
        *ret = *n;
    }
    free(n);
    return r < 0 ? cg_rbd_image_failed(im, r, "look into", err) : 0;
}

/* Holes as the object map says, what is in the other objects by asking them, up to a window of
 * those. */
static int describe_by_map(struct cg_rbd_image *im, struct cg_extents *e, uint64_t end,
                           uint64_t window, struct cg_error *err)
{
    CG_CLEANUP(cg_extents_clear) struct cg_extents map;
    uint64_t asked = 0;

    cg_extents_init(&map, e->next, end, 0);
    int r = describe(im, &map, end, true, err);
    for (size_t i = 0; r == 0 && i < map.count && !cg_extents_full(e); i++) {
        const struct cg_extent *x = &map.v[i];
        if (x->type != CG_DATA) {
            r = cg_extents_to(e, x->off + x->len, CG_HOLE, err);
            continue;
        }
        /* One question for all that is near, holes between included: the objects are asked at
         * the same time. */
        while (r == 0 && e->next < x->off + x->len && !cg_extents_full(e)) {
            if (asked >= window)
                return 0;
            uint64_t stop = cg_min(e->next + window - asked, end);
            asked += stop - e->next;
            r = describe(im, e, stop, false, err);
        }
    }
    return r;
}

int cg_rbd_image_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct nature n = { 0 };

    int r = ask_nature(im, &n, err);
    if (r < 0)
        return r;
    if (n.migrating) /* librbd can't tell, or even crashes when it's asked (Ceph 16) */
        return cg_extents_to(e, e->end, CG_DATA, err);
    uint64_t end = cg_rbd_image_end(im), window = OBJECTS_WINDOW * n.object_size;
    if (e->next < end && n.map)
        r = describe_by_map(im, e, cg_min(cg_min(e->end, end), e->next + MAP_WINDOW), window, err);
    else if (e->next < end)
        r = describe(im, e, cg_min(cg_min(e->end, end), e->next + window), false, err);
    /* The rest of its last sector. */
    if (r == 0 && e->next >= end && !cg_extents_full(e))
        r = cg_extents_to(e, e->end, CG_HOLE, err);
    return r;
}
