/* The layer that a flatten fills while the volume is used: seen by some who have the volume open
 * and not by others, left half done, given up, taken over. */
#include "config.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

#define C "volumes/p/c"

static uint8_t parent[SIZE];
static struct cg_space *second; /* as another process */

static int setup(void **state)
{
    faults_setup(state);
    second = pool_second(&pool);
    memset(parent, 'P', sizeof parent);
    pool_set_parent(parent, sizeof parent);
    pool_clone(pool.space, POOL_PARENT, C);
    return 0;
}

static int teardown(void **state)
{
    cg_space_free(second);
    return faults_teardown(state);
}

static int flatten(int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;
    int r = cg_space_flatten(pool.space, &c, 0, progress, opaque, &err);

    if (r < 0 && r != -ECANCELED && r != -ENOSPC)
        fail_msg("flatten: %d, %s", r, err.message);
    return r;
}

/* The layer to fill is there, empty or not. */
static void begin_flatten(void)
{
    assert_int_equal(flatten(pool_cancel, NULL), -ECANCELED);
}

static size_t layers(void)
{
    char pattern[128];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/p/c/*.data", pool.dir);
    size_t count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return count;
}

/* Bytes of the parent that are here; -1: no flatten has begun; -2: there is no parent. */
static json_int_t filled(void)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;
    json_t *info;

    assert_int_equal(cg_space_info(pool.space, &c, &info, &err), 0);
    json_t *p = json_object_get(info, "parent"), *bytes = json_object_get(p, "filled_bytes");
    json_int_t n = json_is_null(p) ? -2 : bytes ? json_integer_value(bytes) : -1;
    json_decref(info);
    return n;
}

/* 'W's at 4096, over the parent, which isn't there any more. */
static void expect_flat(void)
{
    struct cg_image *image = pool_open(pool.space, C, CG_OPEN_READ);

    assert_int_equal(filled(), -2);
    memset(parent, 'x', sizeof parent);
    expect(image, 'P', 4096, 0);
    expect(image, 'W', 4096, 4096);
    expect(image, 'P', SIZE - 8192, 8192);
    cg_image_unref(image);
}

/* Who opened the volume before the layer was there, with it, and after it was given up for want of
 * space, writes and reads on. */
static void test_no_room(void **state)
{
    struct cg_image *before, *with;

    (void)state;
    before = pool_open(pool.space, C, CG_OPEN_WRITE);
    cg_image_unref(before);
    before = pool_open(second, C, CG_OPEN_WRITE);
    begin_flatten();
    assert_int_equal(filled(), 0);
    struct cg_space *third = pool_second(&pool);
    with = pool_open(third, C, CG_OPEN_WRITE);
    hook.fail_data_write = true;
    assert_int_equal(flatten(NULL, NULL), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(filled(), -1);
    assert_int_equal(layers(), 1);
    assert_string_not_equal(pool_held(), "");
    cg_image_unref(pool_open(third, C, CG_OPEN_WRITE)); /* shows what `with` does */
    put(with, 'W', 4096, 4096);
    expect(with, 'W', 4096, 4096);
    expect(with, 'P', SIZE - 8192, 8192);
    cg_image_unref(with);
    cg_space_free(third);
    expect(before, 'P', SIZE, 0);
    cg_image_unref(before);
    assert_int_equal(flatten(NULL, NULL), 0);
    expect_flat();
    assert_string_equal(pool_held(), "");
}

/* As well if the layer that was given up has something: it's in nothing that is made later. */
static void test_no_room_for_all(void **state)
{
    struct cg_image *image;

    (void)state;
    memset(parent, 0, SIZE / 2); /* what takes no room is filled in */
    begin_flatten();
    image = pool_open(second, C, CG_OPEN_WRITE);
    hook.fail_data_write = true;
    assert_int_equal(flatten(NULL, NULL), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(layers(), 1);
    put(image, 'W', 4096, 4096);
    pool_snapshot(pool.space, C "@s");
    pool_snapshot(pool.space, C "@same");
    cg_image_unref(image);
    static const char *const names[] = { C, C "@s", C "@same" };
    for (size_t i = 0; i < 3; i++) {
        image = pool_open(pool.space, names[i], CG_OPEN_READ);
        expect(image, 0, 4096, 0);
        expect(image, 'W', 4096, 4096);
        expect(image, 'P', SIZE / 2, SIZE - SIZE / 2);
        cg_image_unref(image);
    }
    pool_remove(pool.space, C "@s");
    pool_remove(pool.space, C "@same");
}

/* A snapshot of a volume that nothing was written to since it was cloned is the parent's content
 * also when the layer that is filled from that is given up. */
static void test_no_room_for_snapshot(void **state)
{
    struct cg_image *image;

    (void)state;
    begin_flatten();
    pool_snapshot(pool.space, C "@s");
    pool_clone(pool.space, C "@s", "volumes/p/d");
    pool_clone(pool.space, C, "volumes/p/e");
    hook.fail_data_write = true;
    assert_int_equal(flatten(NULL, NULL), -ENOSPC);
    hook.fail_data_write = false;
    static const char *const names[] = { C, C "@s", "volumes/p/d", "volumes/p/e" };
    for (size_t i = 0; i < 4; i++) {
        image = pool_open(pool.space, names[i], CG_OPEN_READ);
        expect(image, 'P', SIZE, 0);
        cg_image_unref(image);
    }
    pool_remove(pool.space, "volumes/p/d");
    pool_remove(pool.space, "volumes/p/e");
    assert_int_equal(flatten(NULL, NULL), 0);
    image = pool_open(pool.space, C "@s", CG_OPEN_READ);
    expect(image, 'P', SIZE, 0);
    cg_image_unref(image);
    pool_remove(pool.space, C "@s");
    image = pool_open(pool.space, C, CG_OPEN_WRITE);
    put(image, 'W', 4096, 4096);
    cg_image_unref(image);
    expect_flat();
}

/* The writer has it in its chain, and gives it up itself. */
static void test_no_room_writing(void **state)
{
    struct cg_image *image = pool_open(second, C, CG_OPEN_WRITE);

    (void)state;
    put(image, 'W', 4096, 4096);
    hook.fail_data_write = true;
    assert_int_equal(flatten(NULL, NULL), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(layers(), 1);
    expect(image, 'P', 4096, 0);
    expect(image, 'W', 4096, 4096);
    assert_int_equal(flatten(NULL, NULL), 0);
    expect_flat();
    expect(image, 'P', 4096, 0);
    cg_image_unref(image);
}

/* Left half done, the layer stays below snapshots, clones and what a rollback makes of it, and who
 * ends as a writer doesn't take it for a needless one. */
static void test_left(void **state)
{
    struct cg_name s = pool_name(C "@s"), clone = pool_name("volumes/p/d");
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    begin_flatten();
    image = pool_open(second, C, CG_OPEN_WRITE);
    put(image, 'W', 4096, 4096);
    cg_image_unref(image);
    assert_int_equal(filled(), 0);
    pool_snapshot(pool.space, C "@s");
    pool_clone(pool.space, C "@s", "volumes/p/d");
    image = pool_open(second, C, CG_OPEN_WRITE);
    put(image, 'V', SIZE, 0);
    cg_image_unref(image);
    assert_int_equal(cg_space_rollback(pool.space, &s, &err), 0);
    assert_int_equal(filled(), 0);
    assert_int_equal(flatten(NULL, NULL), 0);
    expect_flat();
    image = pool_open(pool.space, C "@s", CG_OPEN_READ);
    expect(image, 'P', SIZE - 8192, 8192);
    cg_image_unref(image);
    /* The clone has the same layer: nothing is left to fill, and its parent isn't read. */
    assert_int_equal(cg_space_flatten(pool.space, &clone, 0, NULL, NULL, &err), 0);
    image = pool_open(pool.space, "volumes/p/d", CG_OPEN_READ);
    expect(image, 'P', 4096, 0);
    expect(image, 'W', 4096, 4096);
    expect(image, 'P', SIZE - 8192, 8192);
    cg_image_unref(image);
    pool_remove(pool.space, C "@s");
    pool_remove(pool.space, C);
    pool_remove(pool.space, "volumes/p/d");
}

static struct cg_image *guest;

static int write_meanwhile(void *opaque, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)opaque;
    if (!guest) {
        guest = pool_open(second, C, CG_OPEN_WRITE);
        put(guest, 'W', 4096, 4096);
        assert_true(filled() >= 0);
    }
    return 0;
}

/* Who begins to write while another process fills isn't refused, and fills from there on. */
static void test_writer_comes(void **state)
{
    int told = 0;

    (void)state;
    guest = NULL;
    assert_int_equal(flatten(write_meanwhile, &told), 0);
    assert_true(told > 1);
    assert_non_null(guest);
    assert_string_equal(pool_held(), "");
    put(guest, 'W', 512, 4096);
    cg_image_unref(guest);
    expect_flat();
}

/* Who opened the volume with the half filled layer shows it through the parent, which is held as
 * long; when it begins to write it goes on without. */
static void test_opened_with_parent(void **state)
{
    struct cg_image *image;

    (void)state;
    begin_flatten();
    image = pool_open(second, C, CG_OPEN_WRITE);
    expect(image, 'P', 4096, 0);
    assert_int_equal(flatten(NULL, NULL), 1);
    assert_string_not_equal(pool_held(), "");
    expect(image, 'P', SIZE, 0);
    put(image, 'W', 4096, 4096);
    memset(parent, 'x', sizeof parent);
    expect(image, 'P', 4096, 0);
    expect(image, 'P', SIZE - 8192, 8192);
    cg_image_unref(image);
    assert_string_equal(pool_held(), "");
    expect_flat();
}

/* In a process of its own. */
static void flatten_all(struct cg_space *space)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;

    cg_space_flatten(space, &c, 0, NULL, NULL, &err);
}

static void fail_flatten(struct cg_space *space)
{
    hook.fail_data_write = true;
    flatten_all(space);
}

/* Whoever gives up for want of room may be killed before each change of a file: snapshots, clones
 * and the volume stay what they are. */
static void test_killed_giving_up(void **state)
{
    struct cg_name s = pool_name(C "@s");
    struct cg_image *image;
    struct cg_error err;
    bool killed = true;

    (void)state;
    memset(parent, 0, SIZE / 2);
    for (unsigned at = 1; killed; at++) {
        killed = in_killed_process_at(at, fail_flatten);
        pool_snapshot(pool.space, C "@s");
        static const char *const names[] = { C, C "@s" };
        for (size_t i = 0; i < 2; i++) {
            image = pool_open(pool.space, names[i], CG_OPEN_READ);
            expect(image, 0, SIZE / 2, 0);
            expect(image, 'P', SIZE - SIZE / 2, SIZE / 2);
            cg_image_unref(image);
        }
        assert_int_equal(cg_space_rollback(pool.space, &s, &err), 0);
        pool_remove(pool.space, C "@s");
        assert_string_not_equal(pool_held(), "");
    }
    assert_int_equal(flatten(NULL, NULL), 0);
    assert_string_equal(pool_held(), "");
    image = pool_open(pool.space, C, CG_OPEN_READ);
    expect(image, 'P', SIZE - SIZE / 2, SIZE / 2);
    cg_image_unref(image);
}

static void killed_at_last_sync(struct cg_space *space)
{
    hook.kill_at_sync = 2; /* of the map, after the data's */
    flatten_all(space);
}

static void expect_map_synced(void)
{
    hook.map_syncs = 0;
    hook.data_written = 0;
    assert_int_equal(flatten(NULL, NULL), 0);
    assert_int_equal(hook.data_written, 0);
    assert_int_not_equal(hook.map_syncs, 0);
    assert_string_equal(pool_held(), "");
}

/* The one that filled it died when the map was written and not yet synced: who finds nothing left
 * to fill syncs it before the parent goes. */
static void test_killed_before_sync(void **state)
{
    (void)state;
    in_killed_process(killed_at_last_sync);
    assert_true(filled() >= SIZE);
    expect_map_synced();
}

/* Its sync failed, so that nothing writes the map any more that isn't written again. */
static void test_failed_sync(void **state)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;

    (void)state;
    hook.fail_sync = 2;
    assert_int_equal(cg_space_flatten(pool.space, &c, 0, NULL, NULL, &err), -EIO);
    assert_string_not_equal(pool_held(), "");
    hook.map_written = 0;
    expect_map_synced();
    assert_int_not_equal(hook.map_written, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_room),
        TEST(test_no_room_for_all),
        TEST(test_no_room_for_snapshot),
        TEST(test_no_room_writing),
        TEST(test_left),
        TEST(test_writer_comes),
        TEST(test_opened_with_parent),
        TEST(test_killed_giving_up),
        TEST(test_killed_before_sync),
        TEST(test_failed_sync),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
