/* What a volume stands on: when it is held, refused and let go of, whatever comes in between. */
#include "config.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

#define C "volumes/p/c"

static uint8_t parent[SIZE];

/* A clone of a parent of 'P's, which is written from its second block on. */
static void make_clone(void)
{
    struct cg_image *image;

    memset(parent, 'P', sizeof parent);
    pool_set_parent(parent, sizeof parent);
    pool_clone(pool.space, POOL_PARENT, C);
    image = pool_open(pool.space, C, CG_OPEN_WRITE);
    put(image, 'W', 8192, 4096);
    cg_image_unref(image);
}

static void expect_clone(void)
{
    struct cg_image *image = pool_open(pool.space, C, CG_OPEN_READ);

    expect(image, 'P', 4096, 0);
    expect(image, 'W', 8192, 4096);
    expect(image, 'P', SIZE - 12288, 12288);
    cg_image_unref(image);
}

static bool stands_on_parent(void)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;
    json_t *info;

    if (cg_space_info(pool.space, &c, &info, &err) < 0)
        return false;
    bool stands = !json_is_null(json_object_get(info, "parent"));
    json_decref(info);
    return stands;
}

static void flatten_c(struct cg_space *space)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;

    if (cg_space_flatten(space, &c, 0, NULL, NULL, &err) < 0)
        fail_msg("flatten: %s", err.message);
}

static bool held_while_writing;

static void write_c(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, C, CG_OPEN_WRITE);

    put(image, 'W', 512, 4096);
    held_while_writing = *pool_held();
    cg_image_unref(image);
}

static void snapshot_c(struct cg_space *space)
{
    pool_snapshot(space, C "@s");
    pool_remove(space, C "@s");
}

/* Killed at any step of a flatten: the parent is held as long as the volume stands on it, and is
 * let go of by whatever changes the volume next. */
static void test_flatten_killed(void **state)
{
    static void (*const next[])(struct cg_space *) = { write_c, snapshot_c, flatten_c };
    bool killed = true;

    (void)state;
    for (unsigned at = 1; killed; at++) {
        make_clone();
        killed = in_killed_process_at(at, flatten_c);
        bool stands = stands_on_parent();
        if (stands)
            assert_string_not_equal(pool_held(), "");
        else
            memset(parent, 'x', sizeof parent);
        expect_clone();
        next[at % 3](pool.space);
        if (at % 3 == 0)
            assert_int_equal(held_while_writing, stands);
        if (stands && at % 3 < 2)
            assert_string_not_equal(pool_held(), "");
        else
            assert_string_equal(pool_held(), "");
        expect_clone();
        pool_remove(pool.space, C);
        assert_string_equal(pool_held(), "");
    }
}

static void remove_c(struct cg_space *space)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;
    int r = cg_space_remove(space, &c, 0, &err);

    if (r < 0 && r != -ENOENT)
        fail_msg("remove: %s", err.message);
}

static void create_elsewhere(struct cg_space *space)
{
    pool_create(space, "volumes/q/x", SIZE);
    pool_remove(space, "volumes/q/x");
}

/* Killed at any step of a deletion, of a clone whose parent is its own or, killed before, still to
 * be released: whatever is created or deleted next lets go of it. */
static void test_remove_killed(void **state)
{
    (void)state;
    for (int flat = 0; flat < 2; flat++) {
        bool killed = true;
        for (unsigned at = 1; killed; at++) {
            struct cg_name c = pool_name(C);
            struct cg_error err;
            json_t *info;
            make_clone();
            pool_fail_release(flat ? EIO : 0);
            if (flat)
                assert_int_equal(cg_space_flatten(pool.space, &c, 0, NULL, NULL, &err), -EIO);
            pool_fail_release(0);
            killed = in_killed_process_at(at, remove_c);
            if (cg_space_info(pool.space, &c, &info, &err) == 0) {
                json_decref(info);
                assert_string_not_equal(pool_held(), "");
                remove_c(pool.space);
            } else if (at % 2) {
                remove_c(pool.space);
            } else {
                create_elsewhere(pool.space);
            }
            assert_string_equal(pool_held(), "");
        }
    }
}

/* The one file that is left of a deleted volume is volume.json, which says what to release. */
static void expect_remains(void)
{
    char pattern[128];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/p/.trash-*/*", pool.dir);
    assert_int_equal(glob(pattern, GLOB_PERIOD, NULL, &found), 0);
    size_t files = 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        const char *name = strrchr(found.gl_pathv[i], '/') + 1;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        assert_string_equal(name, "volume.json");
        files++;
    }
    assert_int_equal(files, 1);
    globfree(&found);
}

/* What can't be read doesn't say that there is nothing to release. */
static void test_remove_unreachable(void **state)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;

    (void)state;
    make_clone();
    pool_fail_release(EHOSTUNREACH);
    assert_int_equal(cg_space_remove(pool.space, &c, 0, &err), -EHOSTUNREACH);
    expect_remains();
    create_elsewhere(pool.space);
    assert_string_not_equal(pool_held(), "");
    pool_fail_release(0);
    create_elsewhere(pool.space);
    assert_string_equal(pool_held(), "");
}

/* Somebody reads through the parent while the volume lets go of it: it's held until then. */
static void test_flatten_beside_reader(void **state)
{
    struct cg_space *second = pool_second(&pool);
    struct cg_image *reader;

    (void)state;
    make_clone();
    reader = pool_open(second, C, CG_OPEN_READ);
    flatten_c(pool.space);
    assert_false(stands_on_parent());
    assert_string_not_equal(pool_held(), "");
    write_c(pool.space);
    assert_string_not_equal(pool_held(), "");
    expect(reader, 'P', 4096, 0);
    cg_image_unref(reader);
    reader = pool_open(second, C, CG_OPEN_READ); /* who comes later doesn't need it */
    snapshot_c(pool.space);
    assert_string_equal(pool_held(), "");
    memset(parent, 'x', sizeof parent);
    expect(reader, 'P', 4096, 0);
    cg_image_unref(reader);
    cg_space_free(second);
    expect_clone();
}

/* A parent that has another size than the clone was made with, larger or smaller. */
static void test_parent_resized(void **state)
{
    static const size_t sizes[] = { SIZE - 512, SIZE - 65536 };
    struct cg_name c = pool_name(C);
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    memset(parent, 'P', sizeof parent);
    pool_set_parent(parent, SIZE - 4096);
    pool_clone(pool.space, POOL_PARENT, C);
    for (size_t i = 0; i < 2; i++) {
        char size[32];
        pool_set_parent(parent, sizes[i]);
        assert_int_equal(cg_space_open(pool.space, &c, CG_OPEN_READ, &image, &err), -ESTALE);
        snprintf(size, sizeof size, "has %zu bytes", sizes[i]);
        assert_non_null(strstr(err.message, size));
        assert_non_null(strstr(err.message, POOL_PARENT));
        assert_int_equal(cg_space_flatten(pool.space, &c, 0, NULL, NULL, &err), -ESTALE);
    }
    pool_set_parent(parent, SIZE - 4096);
    cg_image_unref(pool_open(pool.space, C, CG_OPEN_READ));
}

static void write_c_once(void)
{
    pool_before_opens(NULL);
    write_c(pool.space);
}

/* A writer of this process comes and ends while another handle is being opened: that one takes
 * writes all the same. */
static void test_overtaken_within_process(void **state)
{
    struct cg_image *image;

    (void)state;
    make_clone();
    pool_before_opens(write_c_once);
    image = pool_open(pool.space, C, CG_OPEN_WRITE);
    put(image, 'W', 512, 8192);
    cg_image_unref(image);
    expect_clone();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, faults_setup, faults_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_flatten_killed),     TEST(test_remove_killed),
        TEST(test_remove_unreachable), TEST(test_flatten_beside_reader),
        TEST(test_parent_resized),     TEST(test_overtaken_within_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
