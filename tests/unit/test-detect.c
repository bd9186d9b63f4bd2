#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/image/detect.h"
#include "tests/unit/fake-image.h"
#include "tests/unit/cmocka-all.h"

#define GRAIN ((uint64_t)64 << 10)
#define MIB ((uint64_t)1 << 20)
#define SIZE (70 * MIB + 1536)

/* All of it allocated: ones, and where a test says so zeros. */
static struct cg_image *full_image(struct fake_faults *faults, _Atomic uint64_t *bytes_read)
{
    struct cg_error err;
    struct cg_image *image = fake_image_new(SIZE, faults, bytes_read);
    CG_CLEANUP(cg_free) uint8_t *ones = malloc(SIZE);

    assert_non_null(ones);
    memset(ones, 1, SIZE);
    assert_int_equal(cg_image_pwrite(image, ones, SIZE, 0, 0, &err), 0);
    return image;
}

static void write_zeros(struct cg_image *image, uint64_t off, uint64_t len)
{
    struct cg_error err;
    CG_CLEANUP(cg_free) uint8_t *zeros = calloc(1, len);

    assert_int_equal(cg_image_pwrite(image, zeros, len, off, 0, &err), 0);
}

static struct cg_image *detect(struct cg_image *base)
{
    struct cg_error err;
    struct cg_image *image = NULL;

    assert_int_equal(cg_detect_open(base, &image, &err), 0);
    return image;
}

/* The first extents from off on, at most max (0: no limit), as few as one call tells. */
static struct cg_extents ask(struct cg_image *image, uint64_t off, size_t max)
{
    struct cg_error err;
    struct cg_extents e;

    cg_extents_init(&e, off, cg_image_size(image), max);
    assert_int_equal(cg_image_extents(image, &e, &err), 0);
    assert_true(e.count > 0);
    return e;
}

struct want {
    uint64_t off, end;
    enum cg_extent_type type;
};

/* Joins what several calls told. */
static int join(void *opaque, const struct cg_extent *x, struct cg_error *err)
{
    struct cg_extents *all = opaque;

    return cg_extents_to(all, x->off + x->len, x->type, err);
}

static void expect(struct cg_image *image, const struct want *want, size_t count)
{
    struct cg_error err;
    struct cg_extents all;

    cg_extents_init(&all, 0, SIZE, 0);
    assert_int_equal(cg_image_walk(image, 0, SIZE, join, &all, &err), 0);
    assert_int_equal(all.count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(all.v[i].off, want[i].off);
        assert_int_equal(all.v[i].off + all.v[i].len, want[i].end);
        assert_int_equal(all.v[i].type, want[i].type);
    }
    cg_extents_clear(&all);
}

static void test_finds_zeros(void **state)
{
    (void)state;
    struct cg_error err;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = full_image(NULL, NULL);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = detect(base);

    write_zeros(base, 5 * GRAIN - 100, GRAIN + 100);  /* one whole grain */
    write_zeros(base, 10 * GRAIN + 1, 2 * GRAIN - 2); /* none */
    write_zeros(base, 31 * MIB + GRAIN, 4 * MIB);     /* beyond what one call looks at */
    assert_int_equal(cg_image_zero(base, MIB, 60 * MIB + GRAIN, CG_MAY_TRIM, &err), 0);
    write_zeros(base, 61 * MIB + GRAIN, GRAIN); /* beside a hole */
    write_zeros(base, 70 * MIB, 1536);          /* the end */
    const struct want want[] = {
        { 0, 5 * GRAIN, CG_DATA },
        { 5 * GRAIN, 6 * GRAIN, CG_ZERO },
        { 6 * GRAIN, 31 * MIB + GRAIN, CG_DATA },
        { 31 * MIB + GRAIN, 35 * MIB + GRAIN, CG_ZERO },
        { 35 * MIB + GRAIN, 60 * MIB + GRAIN, CG_DATA },
        { 60 * MIB + GRAIN, 61 * MIB + GRAIN, CG_HOLE },
        { 61 * MIB + GRAIN, 61 * MIB + 2 * GRAIN, CG_ZERO },
        { 61 * MIB + 2 * GRAIN, 70 * MIB, CG_DATA },
        { 70 * MIB, SIZE, CG_ZERO },
    };
    expect(image, want, sizeof want / sizeof want[0]);
    assert_true(cg_image_read_only(image));
}

/* Of what the image below knows nothing is read, and a call takes a bounded time. */
static void test_reads_little(void **state)
{
    (void)state;
    struct cg_error err;
    _Atomic uint64_t bytes_read = 0;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = full_image(NULL, &bytes_read);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = detect(base);

    struct cg_extents e = ask(image, 0, 0);
    assert_int_equal(e.next, 32 * MIB);
    assert_int_equal(bytes_read, 32 * MIB);
    cg_extents_clear(&e);

    /* One extent: the read goes little further than it. */
    write_zeros(base, 3 * MIB, MIB);
    bytes_read = 0;
    e = ask(image, MIB, 1);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.next, 3 * MIB);
    assert_true(bytes_read <= 4 * MIB);
    cg_extents_clear(&e);

    assert_int_equal(cg_image_zero(base, 64 * MIB, 0, CG_MAY_TRIM, &err), 0);
    bytes_read = 0;
    e = ask(image, 0, 1);
    assert_int_equal(e.next, 64 * MIB);
    assert_int_equal(e.v[0].type, CG_HOLE);
    assert_true(bytes_read <= MIB);
    cg_extents_clear(&e);
}

/* What can't be read is data: the failure is for whoever reads it. */
static void test_unreadable(void **state)
{
    (void)state;
    struct fake_faults faults = { .fail_at = 0 };
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = full_image(&faults, NULL);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = detect(base);

    write_zeros(base, 0, MIB);
    struct cg_extents e = ask(image, 0, 1);
    assert_int_equal(e.v[0].type, CG_ZERO);
    cg_extents_clear(&e);
    faults.calls = 0;
    faults.fail_at = 2; /* the first is the question for extents */
    e = ask(image, 0, 1);
    assert_int_equal(e.v[0].type, CG_DATA);
    cg_extents_clear(&e);
}

/* Ends of the range that are aligned to nothing. */
static void test_unaligned(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_extents e;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = full_image(NULL, NULL);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = detect(base);

    write_zeros(base, 0, 40 * MIB);
    cg_extents_init(&e, MIB - 512, 37 * MIB + 512, 0);
    assert_int_equal(cg_image_extents(image, &e, &err), 0);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.v[0].off, MIB - 512);
    assert_int_equal(e.v[0].len, 32 * MIB);
    assert_int_equal(e.v[0].type, CG_ZERO);
    cg_extents_clear(&e);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_zeros),
        cmocka_unit_test(test_reads_little),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_unaligned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
