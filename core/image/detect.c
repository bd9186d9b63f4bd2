/* Thread model: no state but the image below; a call for extents reads in threads of its own, which
 * end with it. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/workers.h"
#include "core/image/detect.h"

#define GRAIN ((uint64_t)64 << 10)
#define PIECE ((uint64_t)1 << 20) /* read by one thread at a time */
#define LOOK_MAX ((uint64_t)32 << 20)
#define THREADS 8
#define EXTENTS_MAX 1024 /* of the image below, in one call */

struct detect {
    struct cg_image *base; /* owns a reference */
};

static int detect_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct detect *d = self;
    return cg_image_pread(d->base, buf, len, off, err);
}

/* One look at [off, end); cells and pieces are aligned in the image, so the first and the last may
 * be shorter. */
struct look {
    struct cg_image *base;
    uint64_t off, end;
    uint8_t *buffer[THREADS];
    bool zero[LOOK_MAX / GRAIN + 1]; /* by cell; each is written by one thread */
};

static int look_at_piece(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct look *l = opaque;
    uint64_t piece = cg_round_down(l->off, PIECE) + item * PIECE;
    uint64_t start = cg_max(piece, l->off), end = cg_min(piece + PIECE, l->end), next;
    uint64_t first = l->off / GRAIN;

    (void)err;
    if (!l->buffer[worker])
        l->buffer[worker] = cg_bulk_buffer(PIECE);
    if (!l->buffer[worker] ||
        cg_image_pread(l->base, l->buffer[worker], (size_t)(end - start), start, NULL) < 0)
        return 0; /* its cells stay data */
    for (uint64_t at = start; at < end; at = next) {
        next = cg_min(cg_round_down(at, GRAIN) + GRAIN, end);
        l->zero[at / GRAIN - first] =
            cg_is_zero(l->buffer[worker] + (at - start), (size_t)(next - at));
    }
    return 0;
}

/* Reads [e->next, end), at most LOOK_MAX bytes, and describes it. */
static int look(struct detect *d, struct cg_extents *e, uint64_t end, struct cg_error *err)
{
    struct look *l = calloc(1, sizeof *l);

    if (!l)
        return cg_error_set(err, ENOMEM, "look for zeros");
    l->base = d->base;
    l->off = e->next;
    l->end = end;
    uint64_t pieces = (cg_round_up(end, PIECE) - cg_round_down(l->off, PIECE)) / PIECE;
    int r = cg_parallel(pieces, THREADS, look_at_piece, l, err);
    for (uint64_t cell = 0; r == 0 && e->next < end && !cg_extents_full(e); cell++) {
        uint64_t to = cg_min(cg_round_down(e->next, GRAIN) + GRAIN, end);
        r = cg_extents_to(e, to, l->zero[cell] ? CG_ZERO : CG_DATA, err);
    }
    for (unsigned i = 0; i < THREADS; i++)
        free(l->buffer[i]);
    free(l);
    return r;
}

/* Describes data up to end, as far as *budget goes.  The first looks are short: a client may want
 * one extent only. */
static int describe_data(struct detect *d, struct cg_extents *e, uint64_t end, uint64_t *budget,
                         struct cg_error *err)
{
    uint64_t step = PIECE;
    int r = 0;

    while (r == 0 && e->next<end && * budget> 0 && !cg_extents_full(e)) {
        uint64_t stop = cg_min(end, cg_round_down(e->next, PIECE) + step);
        stop = cg_min(stop, e->next + *budget);
        *budget -= stop - e->next;
        r = look(d, e, stop, err);
        step *= 2;
    }
    return r;
}

static int detect_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct detect *d = self;
    struct cg_extents below;
    uint64_t budget = LOOK_MAX;

    cg_extents_init(&below, e->next, e->end, EXTENTS_MAX);
    int r = cg_image_extents(d->base, &below, err);
    for (size_t i = 0; r == 0 && i < below.count && budget > 0 && !cg_extents_full(e); i++) {
        uint64_t end = below.v[i].off + below.v[i].len;
        if (below.v[i].type == CG_DATA)
            r = describe_data(d, e, end, &budget, err);
        else
            r = cg_extents_to(e, end, below.v[i].type, err);
    }
    cg_extents_clear(&below);
    return r;
}

static uint64_t detect_size(void *self)
{
    struct detect *d = self;
    return cg_image_size(d->base);
}

static uint64_t detect_original_size(void *self)
{
    struct detect *d = self;
    return cg_image_original_size(d->base);
}

static void detect_prefetch(void *self, uint64_t len, uint64_t off)
{
    struct detect *d = self;
    cg_image_prefetch(d->base, len, off);
}

static void detect_block_size(void *self, struct cg_block_size *ret)
{
    struct detect *d = self;
    cg_image_block_size(d->base, ret);
}

static bool detect_immutable(void *self)
{
    struct detect *d = self;
    return cg_image_immutable(d->base);
}

static void detect_close(void *self)
{
    struct detect *d = self;

    cg_image_unref(d->base);
    free(d);
}

static const struct cg_image_ops detect_ops = {
    .name = "detect",
    .pread = detect_pread,
    .extents = detect_extents,
    .size = detect_size,
    .original_size = detect_original_size,
    .prefetch = detect_prefetch,
    .block_size = detect_block_size,
    .immutable = detect_immutable,
    .close = detect_close,
};

int cg_detect_open(struct cg_image *base, struct cg_image **ret_image, struct cg_error *err)
{
    struct detect *d = calloc(1, sizeof *d);
    struct cg_image *image;

    if (!d)
        return cg_error_set(err, ENOMEM, "look for zeros");
    d->base = cg_image_ref(base);
    image = cg_image_new(&detect_ops, d, true);
    if (!image) {
        detect_close(d);
        return cg_error_set(err, ENOMEM, "look for zeros");
    }
    *ret_image = image;
    return 0;
}
