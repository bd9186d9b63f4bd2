/* What changed between a snapshot and a later one, or the head, of the same image.
 *
 * Two sources are asked.  The exact diff asks the OSDs about each object: it is the truth.  The
 * fast diff compares object maps, which are librbd's own book-keeping: it costs next to nothing,
 * and it has been wrong (tracker.ceph.com 41657, 44483, 44496, 52109), as it is by design after a
 * rollback, which brings back the map of an older snapshot.  What either of them names counts as
 * changed; where the exact one names something that the fast one doesn't, or the image's history
 * has a break, the diff is refused, and who asked compares everything.
 *
 * Callbacks of librbd only mark units, so neither their order nor their number matters. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/base/workers.h"
#include "core/rbd/rbd.h"

/* The exact diff is asked for in pieces, a few at a time; librbd asks for 32 objects of each at
 * once.  Units that can't have changed are asked for too where that saves a call. */
#define PIECE_UNITS 2048
#define GAP_UNITS 64
#define THREADS 4

/* What is known of a unit: an object or, of a striped image, the objects of one period. */
enum {
    THERE = 1,      /* there is an object at one of the ends */
    EXACT = 2,      /* changed, says the exact diff */
    EXACT_DATA = 4, /* and holds something */
    FAST = 8,       /* changed, says the fast diff */
    FAST_DATA = 16,
    OLD = 32, /* see rolled_back */
};

struct end {
    struct cg_rbd_shared *shared;
    rbd_image_t image;
    uint64_t size, snapshot; /* its id; UINT64_MAX for the head */
    bool map, map_valid, parent;
};

struct piece {
    uint64_t first, end; /* units */
};

struct diff {
    const struct cg_name *name; /* of the later end */
    const char *since;          /* the snapshot's name */
    struct end from, to;
    uint64_t unit, count; /* bytes of a unit; units */
    _Atomic uint8_t *state;
    struct piece *pieces;
    size_t piece_count, pieces_allocated;
};

static int open_end(struct cg_rbd *rbd, const struct cg_name *name, struct end *e,
                    struct cg_error *err)
{
    uint64_t features, flags, overlap;

    int r = cg_rbd_share(rbd, name, &e->shared, err);
    if (r < 0)
        return r;
    e->image = cg_rbd_shared_handle(e->shared);
    e->snapshot = UINT64_MAX;
    r = rbd_get_size(e->image, &e->size);
    if (r == 0)
        r = rbd_get_features(e->image, &features);
    if (r == 0)
        r = rbd_get_flags(e->image, &flags);
    if (r == 0)
        r = rbd_get_overlap(e->image, &overlap);
    if (r == 0 && name->snapshot[0])
        r = rbd_snap_get_id(e->image, name->snapshot, &e->snapshot);
    if (r < 0)
        return cg_rbd_failed(r, err, "look at an end of a diff");
    if (features & RBD_FEATURE_MIGRATING) /* librbd can't tell then, or even crashes (Ceph 16) */
        return cg_error_say(err, ENOTSUP, "the image is being migrated");
    e->map = features & RBD_FEATURE_FAST_DIFF;
    e->map_valid = !(flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID));
    e->parent = overlap > 0;
    return 0;
}

/* Whether the image's history lets the diff be relied on. */
static int check_ends(const struct diff *d, struct cg_error *err)
{
    if (d->from.snapshot >= d->to.snapshot)
        return cg_error_say(err, ENOTSUP, "@%s isn't the older of the two", d->since);
    if (d->from.size != d->to.size)
        return cg_error_say(err, ENOTSUP, "the image was resized since @%s", d->since);
    if (d->from.parent != d->to.parent)
        return cg_error_say(err, ENOTSUP, "the image was flattened since @%s", d->since);
    if (d->from.map != d->to.map)
        return cg_error_say(err, ENOTSUP, "the image's features changed since @%s", d->since);
    if (d->from.map && !(d->from.map_valid && d->to.map_valid))
        return cg_error_say(err, ENOTSUP,
                            "the object map of %s is flagged invalid: 'rbd object-map rebuild', "
                            "for the image and its snapshots, makes it valid again",
                            d->to.map_valid ? "the last snapshot" : "the image");
    return 0;
}

/* Marks the units that a callback names. */
struct marking {
    struct diff *d;
    uint8_t any, data;
};

static int mark(uint64_t off, size_t len, int exists, void *opaque)
{
    struct marking *m = opaque;
    uint64_t end = off + len < off ? m->d->to.size : cg_min(off + len, m->d->to.size);

    for (uint64_t u = off / m->d->unit; u < m->d->count && u * m->d->unit < end; u++)
        atomic_fetch_or(&m->d->state[u], (uint8_t)(m->any | (exists ? m->data : 0)));
    return 0;
}

/* Marks what differs, in units [first, end), between the snapshot since (NULL: nothing at all) and
 * what image is opened at. */
static int mark_diff(struct diff *d, rbd_image_t image, const char *since, uint64_t first,
                     uint64_t end, bool whole, uint8_t any, uint8_t data, struct cg_error *err)
{
    struct marking m = { d, any, data };
    uint64_t off = first * d->unit, stop = cg_min(end * d->unit, d->to.size);
    int r = rbd_diff_iterate2(image, since, off, stop - off, 0, whole, mark, &m);

    return r < 0 ? cg_rbd_failed(r, err, "ask Ceph what changed") : 0;
}

static int mark_all(struct diff *d, rbd_image_t image, const char *since, uint8_t any, uint8_t data,
                    struct cg_error *err)
{
    return mark_diff(d, image, since, 0, d->count, true, any, data, err);
}

static bool has(const struct diff *d, uint64_t unit, uint8_t bits)
{
    return (atomic_load_explicit(&d->state[unit], memory_order_relaxed) & bits) == bits;
}

static int add_piece(struct diff *d, uint64_t unit, struct cg_error *err)
{
    struct piece *last = d->piece_count ? &d->pieces[d->piece_count - 1] : NULL;

    if (last && unit - last->end <= GAP_UNITS && unit + 1 - last->first <= PIECE_UNITS) {
        last->end = unit + 1;
        return 0;
    }
    struct piece *v = cg_array_room(d->pieces, d->piece_count, &d->pieces_allocated, sizeof *v);
    if (!v)
        return cg_error_set(err, ENOMEM, "diff an image");
    d->pieces = v;
    d->pieces[d->piece_count++] = (struct piece){ unit, unit + 1 };
    return 0;
}

static int exact_piece(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct diff *d = opaque;
    const struct piece *p = &d->pieces[item];

    (void)worker;
    return mark_diff(d, d->to.image, d->since, p->first, p->end, false, EXACT, EXACT_DATA, err);
}

/* Where there is an object at neither end, nothing changed. */
static int exact(struct diff *d, struct cg_error *err)
{
    int r = 0;

    for (uint64_t u = 0; r == 0 && u < d->count; u++) {
        if (!d->to.map || has(d, u, THERE))
            r = add_piece(d, u, err);
    }
    return r < 0 ? r : cg_parallel(d->piece_count, THREADS, exact_piece, d, err);
}

/* A rollback to a snapshot brings its object map back, and with it the marks of what had changed
 * before that snapshot.  So the image was rolled back to it, if all that it had marked then is
 * marked now, and this explains what the fast diff has more than the exact one.  (Trims behind an
 * object's end make the fast one have more, too.) */
static bool explains(struct diff *d)
{
    bool explained = true;

    for (uint64_t u = 0; u < d->count; u++) {
        uint8_t s = atomic_load_explicit(&d->state[u], memory_order_relaxed);
        if (!(s & EXACT) && !(s & FAST_DATA) != !(s & OLD))
            explained = false;
        atomic_store_explicit(&d->state[u], (uint8_t)(s & ~OLD), memory_order_relaxed);
    }
    return explained;
}

static int explains_snapshot(struct diff *d, struct cg_rbd *rbd, const char *snapshot,
                             const char *before, struct cg_error *err)
{
    struct cg_name name = *d->name;
    struct cg_rbd_shared *shared;

    if (strlen(snapshot) >= sizeof name.snapshot)
        return 0;
    strcpy(name.snapshot, snapshot);
    int r = cg_rbd_share(rbd, &name, &shared, err);
    if (r == -ENOENT) /* gone meanwhile */
        return 0;
    if (r < 0)
        return r;
    r = mark_all(d, cg_rbd_shared_handle(shared), before, 0, OLD, err);
    cg_rbd_unshare(shared);
    if (r < 0 || !explains(d))
        return r;
    return cg_error_say(err, ENOTSUP, "the image was rolled back to @%s since @%s", snapshot,
                        d->since);
}

static int rolled_back(struct diff *d, struct cg_rbd *rbd, struct cg_error *err)
{
    rbd_snap_info_t *snaps = NULL;
    int max = 16, n;

    do {
        free(snaps);
        snaps = calloc((size_t)max, sizeof *snaps);
        if (!snaps)
            return cg_error_set(err, ENOMEM, "diff an image");
        n = rbd_snap_list(d->to.image, snaps, &max);
    } while (n == -ERANGE);
    int r = n < 0 ? cg_rbd_failed(n, err, "list an image's snapshots") : 0;
    /* They come in the order of their ids. */
    for (int i = 0; r == 0 && i < n && snaps[i].id <= d->from.snapshot; i++)
        r = explains_snapshot(d, rbd, snaps[i].name, i > 0 ? snaps[i - 1].name : NULL, err);
    if (n >= 0)
        rbd_snap_list_end(snaps);
    free(snaps);
    return r;
}

static int cross_check(struct diff *d, struct cg_rbd *rbd, struct cg_error *err)
{
    bool more = false;

    for (uint64_t u = 0; u < d->count; u++) {
        if (has(d, u, EXACT) && !has(d, u, FAST))
            return cg_error_say(err, ENOTSUP,
                                "the object map misses changes since @%s (at %" PRIu64
                                ", say): the image was rolled back, or its map is wrong",
                                d->since, u * d->unit);
        more = more || (has(d, u, FAST_DATA) && !has(d, u, EXACT));
    }
    return more ? rolled_back(d, rbd, err) : 0;
}

static int ask(struct diff *d, struct cg_rbd *rbd, struct cg_error *err)
{
    uint64_t objects;
    rbd_image_info_t info;

    int r = rbd_stat(d->to.image, &info, sizeof info);
    if (r == 0)
        r = rbd_get_stripe_count(d->to.image, &objects);
    if (r < 0)
        return cg_rbd_failed(r, err, "look at an end of a diff");
    d->unit = info.obj_size * objects;
    d->count = (d->to.size + d->unit - 1) / d->unit;
    d->state = calloc(d->count + 1, sizeof *d->state);
    if (!d->state)
        return cg_error_set(err, ENOMEM, "diff an image");
    if (!d->to.map)
        return exact(d, err);
    r = mark_all(d, d->from.image, NULL, 0, THERE, err);
    if (r == 0)
        r = mark_all(d, d->to.image, NULL, 0, THERE, err);
    if (r == 0)
        r = mark_all(d, d->to.image, d->since, FAST, FAST_DATA, err);
    if (r == 0)
        r = exact(d, err);
    return r < 0 ? r : cross_check(d, rbd, err);
}

/* What is in a unit that changed: a missing object of an image without a parent reads as zeros. */
static enum cg_extent_type type_of(const struct diff *d, uint64_t unit)
{
    bool gone = has(d, unit, FAST) && !has(d, unit, FAST_DATA) && !has(d, unit, EXACT_DATA);

    return gone && !d->to.parent ? CG_HOLE : CG_DATA;
}

static int tell(const struct diff *d, cg_extent_fn *fn, void *opaque, struct cg_error *err)
{
    uint64_t size = cg_round_up(d->to.size, CG_SECTOR);

    for (uint64_t u = 0, end; u < d->count; u = end) {
        end = u + 1;
        if (!has(d, u, EXACT) && !has(d, u, FAST))
            continue;
        enum cg_extent_type type = type_of(d, u);
        while (end < d->count && (has(d, end, EXACT) || has(d, end, FAST)) &&
               type_of(d, end) == type)
            end++;
        struct cg_extent e = { u * d->unit, cg_min(end * d->unit, size) - u * d->unit, type };
        int r = fn(opaque, &e, err);
        if (r != 0)
            return r;
    }
    return 0;
}

static bool same_image(const struct cg_name *a, const struct cg_name *b)
{
    bool same = a->parts == b->parts && a->draft == b->draft;

    for (unsigned i = 0; same && i < a->parts; i++)
        same = strcmp(a->part[i], b->part[i]) == 0;
    return same;
}

int cg_rbd_diff(void *self, const struct cg_name *from, const struct cg_name *to, cg_extent_fn *fn,
                void *opaque, struct cg_error *err)
{
    struct diff d = { .name = to, .since = from->snapshot };

    if (!from->snapshot[0] || !same_image(from, to))
        return cg_error_say(err, ENOTSUP, "they aren't of one image, the older one a snapshot");
    int r = open_end(self, from, &d.from, err);
    if (r == 0)
        r = open_end(self, to, &d.to, err);
    if (r == 0)
        r = check_ends(&d, err);
    if (r == 0)
        r = ask(&d, self, err);
    if (r == 0)
        r = tell(&d, fn, opaque, err);
    cg_rbd_unshare(d.from.shared);
    cg_rbd_unshare(d.to.shared);
    free((void *)d.state);
    free(d.pieces);
    return r;
}
