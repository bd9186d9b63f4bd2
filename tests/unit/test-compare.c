#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/jobs/compare.h"
#include "tests/unit/fake-image.h"
#include "tests/unit/cmocka-all.h"

#define BLOCK 4096
#define BLOCKS 1024

static void put(struct cg_image *image, uint64_t off, size_t len, uint8_t byte)
{
    CG_CLEANUP(cg_free) uint8_t *p = malloc(len);
    struct cg_error err;

    assert_non_null(p);
    memset(p, byte, len);
    assert_int_equal(cg_image_pwrite(image, p, len, off, 0, &err), 0);
}

/* What was told: the type + 1 by block, 0 where nothing was; and that it came in order, in whole
 * blocks, as few as there can be. */
struct told {
    uint64_t size, end;
    int last_type;
    uint8_t block[BLOCKS + 1];
    size_t count, stop_at;
};

static int tell(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct told *t = opaque;

    (void)err;
    assert_true(e->len > 0 && e->off >= t->end && e->off % BLOCK == 0);
    assert_true(e->len % BLOCK == 0 || e->off + e->len == t->size);
    assert_true(e->off + e->len <= t->size);
    assert_false(t->count && e->off == t->end && (int)e->type == t->last_type);
    for (uint64_t at = e->off; at < e->off + e->len; at += BLOCK)
        t->block[at / BLOCK] = (uint8_t)(e->type + 1);
    t->end = e->off + e->len;
    t->last_type = (int)e->type;
    return ++t->count == t->stop_at ? 7 : 0;
}

static int compare(struct cg_image *from, struct cg_image *to, struct told *t, struct cg_error *err)
{
    *t = (struct told){ .size = cg_image_size(to), .stop_at = t->stop_at };
    return cg_compare(from, to, tell, t, NULL, err);
}

/* The same by reading everything. */
static void check(struct cg_image *from, struct cg_image *to)
{
    uint64_t size = cg_image_size(to), from_size = cg_image_size(from);
    CG_CLEANUP(cg_free) uint8_t *a = calloc(1, size + from_size);
    CG_CLEANUP(cg_free) uint8_t *b = calloc(1, size);
    struct cg_error err;
    struct told t = { 0 };

    assert_int_equal(cg_image_pread(from, a, from_size, 0, &err), 0);
    assert_int_equal(cg_image_pread(to, b, size, 0, &err), 0);
    assert_int_equal(compare(from, to, &t, &err), 0);
    for (uint64_t at = 0; at < size; at += BLOCK) {
        size_t len = (size_t)cg_min(BLOCK, size - at);
        unsigned expected = 0;
        if (memcmp(a + at, b + at, len))
            expected = (cg_is_zero(b + at, len) ? CG_ZERO : CG_DATA) + 1;
        if (t.block[at / BLOCK] != expected)
            fail_msg("block %llu: %u, not %u", (unsigned long long)at / BLOCK, t.block[at / BLOCK],
                     expected);
    }
}

static void test_edges(void **state)
{
    struct cg_image *from = fake_image_new((4 << 20) - 512, NULL, NULL);
    struct cg_image *to = fake_image_new((4 << 20) - 512, NULL, NULL);

    (void)state;
    check(from, to);
    put(to, 0, 1, 'x');
    put(to, (4 << 20) - 513, 1, 'x'); /* the last byte, of a block that isn't whole */
    put(to, (1 << 20) - 1, 2, 'x');   /* across two pieces */
    put(from, 2 << 20, 3 * BLOCK, 'y');
    put(to, (2 << 20) + BLOCK, BLOCK, 'y');
    put(from, 3 << 20, BLOCK, 0); /* zeros against a hole are the same */
    check(from, to);
    check(to, from);
    cg_image_unref(from);
    cg_image_unref(to);
}

static void test_sizes(void **state)
{
    struct cg_image *small = fake_image_new((1 << 20) + 512, NULL, NULL);
    struct cg_image *large = fake_image_new(4 << 20, NULL, NULL);

    (void)state;
    check(small, large); /* what is behind the end reads as zeros on both sides */
    put(small, 1 << 20, 512, 'x');
    put(large, 1 << 20, 512, 'x');
    check(small, large);
    put(large, 1 << 20, 513, 'x'); /* the block that the end is in */
    put(large, 3 << 20, 1, 'x');
    check(small, large);
    check(large, small); /* what is behind the end of the second isn't looked at */
    cg_image_unref(small);
    cg_image_unref(large);
}

static void test_random(void **state)
{
    (void)state;
    srand(11);
    for (unsigned round = 0; round < 30; round++) {
        size_t size[2];
        struct cg_image *image[2];
        for (int i = 0; i < 2; i++) {
            size[i] = (size_t)(rand() % (BLOCKS * BLOCK / 512) + 1) * 512;
            image[i] = fake_image_new(size[i], NULL, NULL);
        }
        for (unsigned i = 0; i < 40; i++) {
            size_t len = (size_t)(rand() % (8 * BLOCK) + 1), off = (size_t)rand() % size[0];
            uint8_t byte = (uint8_t)(rand() % 3);
            int which = rand() % 3; /* 2: both */
            for (int k = 0; k < 2; k++) {
                if (which != !k && off < size[k])
                    put(image[k], off, cg_min(len, size[k] - off), byte);
            }
        }
        check(image[0], image[1]);
        cg_image_unref(image[0]);
        cg_image_unref(image[1]);
    }
}

static void test_holes_are_not_read(void **state)
{
    _Atomic uint64_t bytes = 0;
    struct cg_image *from = fake_image_new(UINT64_C(1) << 30, NULL, &bytes);
    struct cg_image *to = fake_image_new(UINT64_C(1) << 30, NULL, &bytes);
    struct cg_error err;
    struct told t = { 0 };

    (void)state;
    put(to, 3 * BLOCK, 1, 'x');
    atomic_store(&bytes, 0);
    assert_int_equal(compare(from, to, &t, &err), 0);
    assert_int_equal(t.count, 1);
    assert_true(atomic_load(&bytes) <= 2 << 20);
    cg_image_unref(from);
    cg_image_unref(to);
}

static int cancel(void *opaque, uint64_t done, uint64_t total)
{
    assert_true(done <= total && total == 4 << 20);
    return ++*(unsigned *)opaque == 2;
}

static void test_ends_early(void **state)
{
    struct cg_image *from = fake_image_new(4 << 20, NULL, NULL);
    struct cg_image *to = fake_image_new(4 << 20, NULL, NULL);
    unsigned calls = 0;
    const struct cg_progress progress = { .report = cancel, .opaque = &calls };
    struct cg_error err;
    struct told t = { .stop_at = 2 };

    (void)state;
    for (uint64_t off = 0; off < 4 << 20; off += 1 << 20)
        put(to, off, 1, 'x');
    assert_int_equal(compare(from, to, &t, &err), 7);
    assert_int_equal(t.count, 2);
    t = (struct told){ .size = 4 << 20 };
    assert_int_equal(cg_compare(from, to, tell, &t, &progress, &err), -ECANCELED);
    assert_int_equal(calls, 2);
    cg_image_unref(from);
    cg_image_unref(to);
}

static void test_faults(void **state)
{
    (void)state;
    for (unsigned n = 1;; n++) {
        struct fake_faults faults = { 0 };
        struct cg_image *from = fake_image_new(2 << 20, &faults, NULL);
        struct cg_image *to = fake_image_new(2 << 20, &faults, NULL);
        struct cg_error err;
        struct told t = { 0 };
        put(from, 0, 1, 'x');
        put(to, 1 << 20, 1, 'x');
        faults.calls = 0;
        faults.fail_at = n;
        int r = compare(from, to, &t, &err);
        unsigned made = faults.calls;
        cg_image_unref(from);
        cg_image_unref(to);
        if (r == 0) {
            assert_true(n > 4 && made < n); /* nothing swallowed the failure */
            break;
        }
        assert_int_equal(r, -EIO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edges),      cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_random),     cmocka_unit_test(test_holes_are_not_read),
        cmocka_unit_test(test_ends_early), cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
