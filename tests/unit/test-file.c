#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/image/file.h"
#include "tests/unit/oracle.h"
#include "tests/unit/scratch.h"
#include "tests/unit/cmocka-all.h"

#define MIB (UINT64_C(1) << 20)

static const char *make_file(const char *name, uint64_t size)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", scratch, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    return path;
}

static void test_oracle(void **state)
{
    (void)state;
    struct cg_error err;
    static const uint64_t grains[] = { 1, 512, 4096 };

    for (unsigned i = 0; i < 3; i++) {
        struct oracle_options o = {
            .operations = 600, .threads = 3, .seed = i + 1, .grain = grains[i], .longest = 256 << 10
        };
        CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
        const char *path = make_file("oracle", 6 * MIB);
        assert_int_equal(cg_file_open(path, true, &image, &err), 0);
        oracle_run(image, &o);
    }
}

static void test_extents(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_extents e;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    const char *path = make_file("extents", 8 * MIB);

    scratch_put(path, "something", 9, 2 * MIB);
    assert_int_equal(cg_file_open(path, true, &image, &err), 0);
    cg_extents_init(&e, 0, 8 * MIB, 0);
    assert_int_equal(cg_image_extents(image, &e, &err), 0);
    assert_int_equal(e.count, 3);
    assert_int_equal(e.v[0].type, CG_HOLE);
    assert_int_equal(e.v[0].len, 2 * MIB);
    assert_int_equal(e.v[1].type, CG_DATA);
    assert_true(e.v[1].len <= 65536);
    assert_int_equal(e.v[2].type, CG_HOLE);
    assert_true(e.v[2].off + e.v[2].len == 8 * MIB);
    cg_extents_clear(&e);

    /* Discarded space goes back to the file system. */
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(cg_image_trim(image, 4 * MIB, 0, CG_FUA, &err), 0);
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_blocks < before.st_blocks);
}

static void test_odd_size(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_extents e;
    uint8_t buf[1024];
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    const char *path = make_file("odd", 1000);

    scratch_put(path, "end", 3, 997);
    assert_int_equal(cg_file_open(path, true, &image, &err), -EINVAL);
    assert_non_null(strstr(err.message, "1000 bytes"));
    assert_int_equal(cg_file_open(path, false, &image, &err), 0);
    assert_int_equal(cg_image_size(image), 1024);
    assert_int_equal(cg_image_original_size(image), 1000);
    memset(buf, 1, sizeof buf);
    assert_int_equal(cg_image_pread(image, buf, 24, 1000, &err), 0);
    assert_true(cg_is_zero(buf, 24));
    assert_int_equal(cg_image_pread(image, buf, 1024, 0, &err), 0);
    assert_memory_equal(buf + 997, "end", 3);
    assert_true(cg_is_zero(buf + 1000, 24));
    cg_extents_init(&e, 0, 1024, 0);
    assert_int_equal(cg_image_extents(image, &e, &err), 0);
    assert_true(e.next == 1024);
    cg_extents_clear(&e);
    assert_int_equal(cg_image_pread(image, buf, 1, 1024, &err), -EINVAL);
    assert_int_equal(cg_image_pwrite(image, buf, 1, 0, 0, &err), -EROFS);
}

/* Never zeros for what is gone. */
static void test_shrinks(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_extents e;
    static uint8_t buf[65536];
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    const char *path = make_file("shrinks", MIB);

    assert_int_equal(cg_file_open(path, false, &image, &err), 0);
    assert_int_equal(truncate(path, MIB / 2), 0);
    assert_int_equal(cg_image_pread(image, buf, 65536, 0, &err), 0);
    assert_int_equal(cg_image_pread(image, buf, 65536, MIB / 2 - 512, &err), -EIO);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "1048576"));
    assert_non_null(strstr(err.message, "524288"));
    for (uint64_t off = 0; off < MIB; off += MIB / 4) {
        cg_extents_init(&e, off, MIB, 0);
        assert_int_equal(cg_image_extents(image, &e, &err), -EIO);
        cg_extents_clear(&e);
    }
}

static void test_refused(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_image *image = NULL;
    char path[128];

    assert_int_equal(cg_file_open("/nowhere/at/all", false, &image, &err), -ENOENT);
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    assert_int_equal(cg_file_open(scratch, false, &image, &err), -EISDIR);
    assert_int_equal(cg_file_open("/dev/null", false, &image, &err), -EINVAL);
    snprintf(path, sizeof path, "%s/fifo", scratch);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(cg_file_open(path, false, &image, &err), -EINVAL);
    assert_null(image);
}

static void test_one_writer(void **state)
{
    (void)state;
    struct cg_error err;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *first = NULL;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *reader = NULL;
    struct cg_image *second = NULL;
    const char *path = make_file("writer", MIB);

    assert_int_equal(cg_file_open(path, true, &first, &err), 0);
    assert_int_equal(cg_file_open(path, true, &second, &err), -EBUSY);
    assert_int_equal(cg_file_open(path, false, &reader, &err), 0);
}

static void test_identity(void **state)
{
    (void)state;
    struct cg_error err;
    char a[CG_NAME_MAX], b[CG_NAME_MAX];
    const char *path = make_file("identity", MIB);

    assert_int_equal(cg_file_identity(path, a, &err), 0);
    assert_int_equal(cg_file_identity(path, b, &err), 0);
    assert_string_equal(a, b);
    const struct timespec past[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000, .tv_nsec = 1 } };
    assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
    assert_int_equal(cg_file_identity(path, b, &err), 0);
    assert_string_not_equal(a, b);
    assert_non_null(strstr(b, ":1048576:1000-000000001"));
    assert_int_equal(cg_file_identity("/dev/null", b, &err), 0);
    assert_string_equal(b, "");
    assert_int_equal(cg_file_identity("/nowhere/at/all", b, &err), -ENOENT);
}

/* On the device of image-device.sh. */
static void test_device(void **state)
{
    (void)state;
    struct cg_error err;
    const char *path = getenv("TEST_DEVICE");
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;

    if (!path)
        skip();
    for (unsigned i = 0; i < 2; i++) {
        struct oracle_options o = {
            .operations = 400, .threads = 2, .seed = i, .grain = i ? 512 : 7, .longest = 128 << 10
        };
        assert_int_equal(cg_file_open(path, true, &image, &err), 0);
        assert_int_equal(cg_image_zero(image, cg_image_size(image), 0, CG_MAY_TRIM, &err), 0);
        oracle_run(image, &o);
        struct cg_image *second = NULL;
        assert_int_equal(cg_file_open(path, true, &second, &err), -EBUSY);
        cg_image_unref(image);
        image = NULL;
    }
    /* Once as zeros that keep their space, once given back: the script looks at the space. */
    assert_int_equal(cg_file_open(path, true, &image, &err), 0);
    assert_int_equal(cg_image_zero(image, cg_image_size(image), 0, CG_FAST, &err), -ENOTSUP);
    assert_int_equal(cg_image_zero(image, 1 << 20, 0, 0, &err), 0);
    assert_int_equal(cg_image_trim(image, cg_image_size(image), 0, CG_FUA, &err), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle),   cmocka_unit_test(test_extents),
        cmocka_unit_test(test_odd_size), cmocka_unit_test(test_shrinks),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_one_writer),
        cmocka_unit_test(test_identity), cmocka_unit_test(test_device),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
