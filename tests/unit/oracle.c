#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/workers.h"
#include "tests/unit/oracle.h"
#include "tests/unit/cmocka-all.h"

struct oracle {
    struct cg_image *image;
    const struct oracle_options *options;
    uint8_t *memory;
    uint64_t part; /* bytes of each thread's part */
};

/* xorshift64* (Marsaglia, "Xorshift RNGs"; Vigna's multiplier). */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

static int wrong(struct cg_error *err, const char *what, uint64_t len, uint64_t off)
{
    return cg_error_say(err, EILSEQ, "%s of %llu bytes at %llu is wrong", what,
                        (unsigned long long)len, (unsigned long long)off);
}

static int check_read(struct oracle *o, uint8_t *buf, uint64_t len, uint64_t off,
                      struct cg_error *err)
{
    memset(buf, 0xa5, len);
    int r = cg_image_pread(o->image, buf, len, off, err);

    if (r == 0 && memcmp(buf, o->memory + off, len) != 0)
        return wrong(err, "a read", len, off);
    return r;
}

static int check_extents(struct oracle *o, uint64_t len, uint64_t off, struct cg_error *err)
{
    struct cg_extents e;

    cg_extents_init(&e, off, off + len, len % 3);
    int r = cg_image_extents(o->image, &e, err);
    uint64_t at = off;
    for (size_t i = 0; r == 0 && i < e.count; i++) {
        const struct cg_extent *x = &e.v[i];
        if (x->off != at || x->len == 0 || x->len > off + len - at)
            r = wrong(err, "the place of an extent", x->len, x->off);
        else if (x->type != CG_DATA && !cg_is_zero(o->memory + at, x->len))
            r = wrong(err, "a hole", x->len, x->off);
        at += x->len;
    }
    if (r == 0 && at == off)
        r = wrong(err, "an empty list of extents", len, off);
    cg_extents_clear(&e);
    return r;
}

static int do_write(struct oracle *o, uint64_t random, unsigned flags, uint64_t len, uint64_t off,
                    struct cg_error *err)
{
    uint8_t *p = o->memory + off;

    for (uint64_t i = 0; i < len; i += 8) {
        uint8_t bytes[8];
        cg_put_le64(bytes, (random | 1) * (off + i + 1));
        memcpy(p + i, bytes, cg_min(8, len - i));
    }
    return cg_image_pwrite(o->image, p, len, off, flags, err);
}

static int do_zero(struct oracle *o, unsigned flags, uint64_t len, uint64_t off,
                   struct cg_error *err)
{
    int r = cg_image_zero(o->image, len, off, flags, err);

    if (r == -ENOTSUP && (flags & CG_FAST)) /* which changed nothing */
        return 0;
    memset(o->memory + off, 0, len);
    return r;
}

/* What was trimmed is undefined, but stays what it is. */
static int do_trim(struct oracle *o, unsigned flags, uint64_t len, uint64_t off,
                   struct cg_error *err)
{
    int r = cg_image_trim(o->image, len, off, flags, err);

    return r < 0 ? r : cg_image_pread(o->image, o->memory + off, len, off, err);
}

static int one_operation(struct oracle *o, uint64_t *state, uint8_t *buf, uint64_t start,
                         struct cg_error *err)
{
    uint64_t grain = o->options->grain, blocks = o->part / grain;
    uint64_t first = next_random(state) % blocks;
    uint64_t most = cg_min(blocks - first, o->options->longest / grain);
    uint64_t off = start + first * grain, len = (1 + next_random(state) % most) * grain;
    uint64_t random = next_random(state);
    unsigned flags = random & 7;

    switch (random >> 32 & 15) {
    case 0:
        return cg_image_flush(o->image, err);
    case 1:
    case 2:
        return do_trim(o, flags & CG_FUA, len, off, err);
    case 3:
    case 4:
        return do_zero(o, flags, len, off, err);
    case 5:
    case 6:
        return check_extents(o, len, off, err);
    case 7:
        cg_image_prefetch(o->image, len, off);
        return 0;
    case 8:
    case 9:
    case 10:
        return check_read(o, buf, len, off, err);
    default:
        return do_write(o, random, flags & CG_FUA, len, off, err);
    }
}

static int run_part(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct oracle *o = opaque;
    uint64_t state = o->options->seed * 1000 + item + 1;
    uint8_t *buf = malloc(o->options->longest);
    int r = buf ? 0 : -ENOMEM;

    (void)worker;
    for (unsigned i = 0; r == 0 && i < o->options->operations; i++) {
        r = one_operation(o, &state, buf, item * o->part, err);
        if (r < 0)
            cg_error_prefix(err, r, "operation %u of part %u", i, (unsigned)item);
    }
    free(buf);
    return r;
}

void oracle_run(struct cg_image *image, const struct oracle_options *options)
{
    uint64_t size = cg_image_size(image);
    struct oracle o = { .image = image, .options = options };
    struct cg_error err = { .message = "" };

    o.part = size / options->threads / options->grain * options->grain;
    o.memory = calloc(1, size);
    uint8_t *buf = malloc(size);
    assert_non_null(o.memory);
    assert_non_null(buf);
    int r = cg_parallel(options->threads, options->threads, run_part, &o, &err);
    if (r == 0)
        r = check_read(&o, buf, size, 0, &err);
    free(buf);
    free(o.memory);
    if (r < 0)
        fail_msg("%s", err.message);
}
