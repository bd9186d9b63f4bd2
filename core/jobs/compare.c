#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/jobs/compare.h"

#define PIECE (1 << 20)
#define BLOCK 4096

struct compare {
    struct cg_image *from, *to;
    uint64_t from_size, to_size;
    cg_extent_fn *fn;
    void *opaque;
    const struct cg_progress *progress;
    struct cg_extent run; /* differs, not told yet; len 0: none */
    uint8_t *a, *b;       /* PIECE bytes each */
};

static int tell_run(struct compare *c, struct cg_error *err)
{
    struct cg_extent run = c->run;

    c->run.len = 0;
    return run.len ? c->fn(c->opaque, &run, err) : 0;
}

static int add_run(struct compare *c, uint64_t off, uint64_t len, enum cg_extent_type type,
                   struct cg_error *err)
{
    if (c->run.len && c->run.off + c->run.len == off && c->run.type == type) {
        c->run.len += len;
        return 0;
    }
    int r = tell_run(c, err);
    c->run = (struct cg_extent){ .off = off, .len = len, .type = type };
    return r;
}

/* Reads a piece of from, with zeros behind its end. */
static int read_from(struct compare *c, uint64_t off, size_t len, struct cg_error *err)
{
    size_t there = off < c->from_size ? (size_t)cg_min(len, c->from_size - off) : 0;

    memset(c->a + there, 0, len - there);
    return there ? cg_image_pread(c->from, c->a, there, off, err) : 0;
}

static int compare_piece(struct compare *c, uint64_t off, size_t len, struct cg_error *err)
{
    int r = read_from(c, off, len, err);

    if (r == 0)
        r = cg_image_pread(c->to, c->b, len, off, err);
    for (size_t i = 0; r == 0 && i < len; i += BLOCK) {
        size_t n = (size_t)cg_min(BLOCK, len - i);
        if (memcmp(c->a + i, c->b + i, n) == 0)
            continue;
        r = add_run(c, off + i, n, cg_is_zero(c->b + i, n) ? CG_ZERO : CG_DATA, err);
    }
    return r;
}

/* How much from off on, up to end, is surely zeros in image; 0 if there is something. */
static int zeros_at(struct cg_image *image, uint64_t size, uint64_t off, uint64_t end,
                    uint64_t *ret_len, struct cg_error *err)
{
    struct cg_extents e;

    if (off >= size) {
        *ret_len = end - off;
        return 0;
    }
    cg_extents_init(&e, off, cg_min(end, size), 1);
    int r = cg_image_extents(image, &e, err);
    if (r == 0)
        *ret_len = e.count && e.v[0].type != CG_DATA ? e.v[0].len : 0;
    cg_extents_clear(&e);
    return r;
}

static int compare_all(struct compare *c, struct cg_error *err)
{
    for (uint64_t off = 0; off < c->to_size;) {
        uint64_t zeros_from = 0, zeros_to = 0;
        int r = zeros_at(c->from, c->from_size, off, c->to_size, &zeros_from, err);
        if (r == 0 && zeros_from)
            r = zeros_at(c->to, c->to_size, off, c->to_size, &zeros_to, err);
        uint64_t skip = cg_round_down(cg_min(zeros_from, zeros_to), BLOCK);
        if (r == 0 && skip == 0) {
            skip = cg_min(PIECE, c->to_size - off);
            r = compare_piece(c, off, (size_t)skip, err);
        }
        if (r != 0)
            return r;
        off += skip;
        if (c->progress && c->progress->report(c->progress->opaque, off, c->to_size))
            return cg_error_say(err, ECANCELED, "interrupted");
    }
    return tell_run(c, err);
}

int cg_compare(struct cg_image *from, struct cg_image *to, cg_extent_fn *fn, void *opaque,
               const struct cg_progress *progress, struct cg_error *err)
{
    CG_CLEANUP(cg_free) uint8_t *buffers = malloc(2 * PIECE);
    struct compare c = {
        .from = from,
        .to = to,
        .from_size = cg_image_size(from),
        .to_size = cg_image_size(to),
        .fn = fn,
        .opaque = opaque,
        .progress = progress,
        .a = buffers,
        .b = buffers + PIECE,
    };

    if (!buffers)
        return cg_error_set(err, ENOMEM, "compare");
    return compare_all(&c, err);
}
