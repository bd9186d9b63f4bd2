#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

/* Restoring onto what is there: only what differs is fetched and written. */

#define SIZE (200 * MIB + 512)

struct target {
    struct lab lab;
    struct cg_name point;
    struct cg_backup_result backup;
};

/* A volume of 200 MiB with data in its first 60 and last 4, and its point. */
static int setup(void **state)
{
    struct target *t = calloc(1, sizeof *t);
    struct cg_error err;

    lab_begin(&t->lab);
    fake_space_add(t->lab.fake, "web", SIZE);
    lab_write(&t->lab, "web", 60 * MIB, 0, 1);
    fake_space_punch(t->lab.fake, "web", MIB, 9 * MIB);
    lab_write(&t->lab, "web", 4 * MIB + 512, SIZE - 4 * MIB - 512, 2);
    lab_backup(&t->lab, "web", "acme", "web", &t->backup);
    assert_int_equal(cg_name_parse(t->backup.point, &t->point, &err), 0);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct target *t = *state;

    lab_end(&t->lab);
    free(t);
    return 0;
}

static const struct cg_restore_options verify = { .fresh = false };

static void restore(struct target *t, struct cg_image *target, bool fresh,
                    struct cg_restore_result *ret)
{
    const struct cg_restore_options o = { .fresh = fresh };
    struct cg_error err;

    if (cg_restore(t->lab.repo, &t->point, target, &o, ret, &err) < 0)
        fail_msg("%s", err.message);
}

static void check(struct target *t, struct cg_image *target)
{
    struct cg_image *point = lab_open(&t->lab, t->backup.point);

    lab_same(target, point);
    cg_image_unref(point);
}

static void change(struct cg_image *target, uint64_t off, size_t len, uint8_t byte)
{
    struct cg_error err;
    uint8_t *buf = malloc(len);

    memset(buf, byte, len);
    assert_int_equal(cg_image_pwrite(target, buf, len, off, 0, &err), 0);
    free(buf);
}

static void test_fresh(void **state)
{
    struct target *t = *state;
    _Atomic uint64_t read = 0;
    struct cg_image *target = fake_image_new(SIZE, NULL, &read);
    struct cg_restore_result res;

    restore(t, target, true, &res);
    assert_int_equal(read, 0);
    assert_int_equal(res.chunks_fetched, 17);
    assert_true(res.bytes_written == 63 * MIB + 512); /* the zeros in a chunk stay a hole */
    assert_false(res.tail_kept);
    check(t, target);
    /* Again: all of it is right. */
    read = 0;
    restore(t, target, false, &res);
    assert_int_equal(res.bytes_fetched + res.bytes_written, 0);
    assert_true(res.bytes_skipped == SIZE && res.bytes_read == read);
    cg_image_unref(target);
}

static void test_only_what_differs(void **state)
{
    struct target *t = *state;
    struct cg_image *target = fake_image_new(SIZE, NULL, NULL);
    struct cg_restore_result res;

    restore(t, target, true, &res);
    change(target, 5 * MIB, 1, 7);            /* in data */
    change(target, 9 * MIB + 512, 4096, 7);   /* in the zeros of a chunk with data */
    change(target, 100 * MIB - 512, 1024, 7); /* in two chunks of zeros */
    change(target, 120 * MIB, 4 * MIB, 0);    /* zeros, but not a hole */
    change(target, SIZE - 1, 1, 8);
    restore(t, target, false, &res);
    assert_int_equal(res.chunks_fetched, 3);
    assert_true(res.bytes_fetched == 8 * MIB + 512);
    assert_true(res.bytes_written == 8 * MIB + 512 + 8 * MIB);
    check(t, target);
    cg_image_unref(target);
}

static void test_over_another(void **state)
{
    struct target *t = *state;
    struct cg_image *target = fake_image_new(SIZE, NULL, NULL);
    struct cg_restore_result res;

    change(target, 0, SIZE, 0xaa);
    restore(t, target, false, &res);
    assert_int_equal(res.chunks_fetched, 17);
    check(t, target);
    cg_image_unref(target);
}

/* What the space doesn't name isn't looked at: not even when it's wrong. */
static void test_trusted(void **state)
{
    struct target *t = *state;
    _Atomic uint64_t read = 0;
    struct cg_image *target = fake_image_new(SIZE, NULL, &read);
    struct cg_name name = { .space = CG_NAME_VOLUMES, .parts = 2, .part = { "acme", "web" } };
    struct cg_restore_options o = { .trust_diff = true, .space = t->lab.space, .name = &name };
    struct cg_restore_result res;
    struct cg_backup_result second;
    struct cg_error err;

    restore(t, target, true, &res);
    change(target, 5 * MIB, 1, 7);
    change(target, 30 * MIB, 1, 7);
    lab_write(&t->lab, "web", MIB, 30 * MIB, 3);
    read = 0;
    assert_int_equal(cg_restore(t->lab.repo, &t->point, target, &o, &res, &err), 0);
    assert_string_equal(res.distrust, "");
    assert_true(read == 4 * MIB && res.bytes_read == 4 * MIB);
    assert_true(res.bytes_trusted == SIZE - 4 * MIB);
    assert_int_equal(res.chunks_fetched, 1);
    restore(t, target, false, &res);
    assert_int_equal(res.chunks_fetched, 1);
    check(t, target);

    /* There is nothing to trust: all is read, and well. */
    lab_backup(&t->lab, "web", "acme", "web", &second);
    change(target, 5 * MIB, 1, 7);
    assert_int_equal(cg_restore(t->lab.repo, &t->point, target, &o, &res, &err), 0);
    assert_string_equal(res.distrust, "the point's snapshot is gone");
    assert_int_equal(res.bytes_trusted, 0);
    assert_int_equal(res.chunks_fetched, 1);
    fake_space_renew(t->lab.fake, "web");
    assert_int_equal(cg_restore(t->lab.repo, &t->point, target, &o, &res, &err), 0);
    assert_string_equal(res.distrust, "the point is of another image");
    o.space = NULL;
    assert_int_equal(cg_restore(t->lab.repo, &t->point, target, &o, &res, &err), 0);
    assert_string_equal(res.distrust, "the target's changes aren't recorded");
    check(t, target);
    cg_image_unref(target);
}

static int cancel(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    (void)total;
    return done >= 30 * MIB;
}

static void test_interrupted(void **state)
{
    struct target *t = *state;
    struct cg_image *target = fake_image_new(SIZE, NULL, NULL);
    struct cg_restore_result res;
    const struct cg_progress progress = { .report = cancel };
    const struct cg_restore_options o = { .progress = &progress };
    struct cg_error err;

    change(target, 70 * MIB, 5 * MIB, 1);
    assert_int_equal(cg_restore(t->lab.repo, &t->point, target, &o, &res, &err), -ECANCELED);
    restore(t, target, false, &res);
    assert_true(res.chunks_fetched < 17 && res.chunks_fetched > 0);
    check(t, target);
    cg_image_unref(target);
}

static void test_larger_and_smaller(void **state)
{
    struct target *t = *state;
    struct cg_restore_result res;
    struct cg_error err;
    struct cg_image *larger = fake_image_new(SIZE + 8 * MIB, NULL, NULL);
    struct cg_image *smaller = fake_image_new(SIZE - 512, NULL, NULL);
    uint8_t *tail = malloc(8 * MIB);

    change(larger, 0, SIZE + 8 * MIB, 0x55);
    restore(t, larger, false, &res);
    assert_true(res.tail_kept);
    assert_int_equal(cg_image_pread(larger, tail, 8 * MIB, SIZE, &err), 0);
    for (size_t i = 0; i < 8 * MIB; i++)
        assert_int_equal(tail[i], 0x55);
    change(smaller, 0, 4096, 0x55);
    assert_int_equal(cg_restore(t->lab.repo, &t->point, smaller, &verify, &res, &err), -ENOSPC);
    assert_int_equal(cg_image_pread(smaller, tail, 4096, 0, &err), 0);
    assert_int_equal(tail[0], 0x55);
    cg_image_unref(larger);
    cg_image_unref(smaller);
    free(tail);
}

/* Each call of the target fails once; the run after it always ends right. */
static void test_failing_target(void **state)
{
    struct target *t = *state;
    struct fake_faults faults = { .fail_at = 0 };
    struct cg_error err;
    unsigned n, failed = 0;
    int r;

    for (n = 1;; n += 3) {
        struct cg_image *target = fake_image_new(SIZE, &faults, NULL);
        struct cg_restore_result res;
        faults.fail_at = 0;
        change(target, 0, 40 * MIB, 1);
        change(target, 100 * MIB, MIB, 1);
        faults.calls = 0;
        faults.fail_at = n;
        r = cg_restore(t->lab.repo, &t->point, target, &verify, &res, &err);
        unsigned calls = faults.calls;
        faults.fail_at = 0;
        failed += r < 0;
        assert_int_equal(r, n <= calls ? -EIO : 0);
        restore(t, target, false, &res);
        check(t, target);
        cg_image_unref(target);
        if (calls < n)
            break;
    }
    assert_true(failed > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fresh, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_what_differs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_over_another, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trusted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_larger_and_smaller, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_target, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
