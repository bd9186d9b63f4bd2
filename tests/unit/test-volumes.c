/* Volumes as a space: what each operation does, one by one. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/volumes.h"
#include "tests/unit/volumes-pool.h"
#include "tests/unit/cmocka-all.h"

#define MIB (UINT64_C(1) << 20)

static struct pool pool;

static int setup(void **state)
{
    (void)state;
    pool_setup(&pool);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pool_teardown(&pool);
    return 0;
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 7) | 1;
}

static void test_write_read(void **state)
{
    static uint8_t want[MIB + 1024], buf[100000];
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    memset(want, 0, sizeof want);
    pool_create(pool.space, "volumes/p/v", sizeof want);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pool_same(image, want, sizeof want);
    fill(buf, sizeof buf, 1);
    static const struct {
        uint32_t len, off;
    } at[] = { { 4096, 0 },      { 512, 4096 + 512 }, { 100000, 70001 }, { 1, 4095 },
               { 5000, 300000 }, { 512, MIB + 512 },  { 100, MIB + 10 } };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        pool_write(image, buf, at[i].len, at[i].off);
        memcpy(want + at[i].off, buf, at[i].len);
        pool_same(image, want, sizeof want);
    }
    assert_int_equal(cg_image_zero(image, 50000, 80000, 0, &err), 0);
    memset(want + 80000, 0, 50000);
    pool_same(image, want, sizeof want);
    assert_int_equal(cg_image_trim(image, 8192, 4096, 0, &err), 0);
    memset(want + 4096, 0, 8192);
    pool_same(image, want, sizeof want);
    assert_int_equal(cg_image_flush(image, &err), 0);
    cg_image_unref(image);
    pool_reopen(&pool);
    pool_reboot(&pool);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_READ);
    pool_same(image, want, sizeof want);
    cg_image_unref(image);
}

static void test_snapshot_clone(void **state)
{
    static uint8_t a[2 * MIB], b[2 * MIB];
    struct cg_image *image, *snapshot, *clone;

    (void)state;
    fill(a, sizeof a, 2);
    pool_create(pool.space, "volumes/p/v", sizeof a);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pool_write(image, a, sizeof a, 0);
    pool_snapshot(pool.space, "volumes/p/v@s1");
    memcpy(b, a, sizeof b);
    memset(b + 5000, 7, 30000);
    pool_write(image, b + 5000, 30000, 5000);
    pool_clone(pool.space, "volumes/p/v", "volumes/q/c");
    pool_clone(pool.space, "volumes/p/v@s1", "volumes/q/d");
    snapshot = pool_open(pool.space, "volumes/p/v@s1", CG_OPEN_WRITE);
    assert_true(cg_image_read_only(snapshot));
    assert_true(cg_image_immutable(snapshot));
    pool_same(snapshot, a, sizeof a);
    pool_same(image, b, sizeof b);
    cg_image_unref(image);
    cg_image_unref(snapshot);
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_error err;
    assert_int_equal(cg_space_remove(pool.space, &v, 0, &err), -ENOTEMPTY);
    assert_int_equal(cg_space_remove(pool.space, &v, CG_REMOVE_SNAPSHOTS, &err), 0);
    clone = pool_open(pool.space, "volumes/q/c", CG_OPEN_WRITE);
    pool_same(clone, b, sizeof b);
    memset(b, 9, 10);
    pool_write(clone, b, 10, 0);
    pool_same(clone, b, sizeof b);
    cg_image_unref(clone);
    clone = pool_open(pool.space, "volumes/q/d", CG_OPEN_READ);
    pool_same(clone, a, sizeof a);
    cg_image_unref(clone);
}

static int count_entry(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    (void)err;
    strcat(opaque, entry->name);
    strcat(opaque, entry->directory ? "/ " : " ");
    return 0;
}

static void test_list(void **state)
{
    char text[1000] = "";
    struct cg_name prefix;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, "volumes/p/v", MIB);
    pool_snapshot(pool.space, "volumes/p/v@s1");
    assert_int_equal(cg_name_parse_prefix("volumes", &prefix, &err), 0);
    assert_int_equal(cg_space_list(pool.space, &prefix, count_entry, text, &err), 0);
    assert_string_equal(text, "p/ ");
    text[0] = '\0';
    assert_int_equal(cg_name_parse_prefix("volumes/p", &prefix, &err), 0);
    assert_int_equal(cg_space_list(pool.space, &prefix, count_entry, text, &err), 0);
    assert_string_equal(text, "v v@s1 ");
    assert_int_equal(cg_name_parse_prefix("volumes/q", &prefix, &err), 0);
    assert_int_equal(cg_space_list(pool.space, &prefix, count_entry, text, &err), -ENOENT);
    struct cg_name v = pool_name("volumes/p/v");
    json_t *info;
    assert_int_equal(cg_space_info(pool.space, &v, &info, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(info, "size")), MIB);
    assert_int_equal(json_array_size(json_object_get(info, "snapshots")), 1);
    json_decref(info);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_write_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_snapshot_clone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
