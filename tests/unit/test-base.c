#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/base/workers.h"
#include "core/image/image.h"
#include "tests/unit/cmocka-all.h"

static void test_error(void **state)
{
    (void)state;
    struct cg_error err;

    assert_int_equal(cg_error_set(&err, ENOENT, "open %s", "x"), -ENOENT);
    assert_string_equal(err.message, "open x: No such file or directory");
    assert_int_equal(cg_error_prefix(&err, -ENOENT, "volume %d", 3), -ENOENT);
    assert_string_equal(err.message, "volume 3: open x: No such file or directory");
    assert_int_equal(cg_error_say(NULL, EIO, "nobody listens"), -EIO);
}

static void test_bytes(void **state)
{
    (void)state;
    uint8_t b[8];

    cg_put_le64(b, 0x0123456789abcdef);
    assert_int_equal(b[0], 0xef);
    assert_true(cg_le64(b) == 0x0123456789abcdef);
    assert_int_equal(cg_le16(b + 6), 0x0123);
    /* The check value of CRC-32C. */
    assert_int_equal(cg_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(cg_crc32c("", 0), 0);
    char hex[17];
    cg_hex(hex, b, 8);
    assert_string_equal(hex, "efcdab8967452301");
    uint8_t back[8];
    assert_true(cg_unhex(back, 8, hex));
    assert_memory_equal(b, back, 8);
    assert_false(cg_unhex(back, 8, "efcdab896745230"));
    assert_false(cg_unhex(back, 8, "efcdab89674523011"));
    assert_false(cg_unhex(back, 8, "EFcdab8967452301"));
    uint8_t zeros[4097] = { 0 };
    assert_true(cg_is_zero(zeros, sizeof zeros));
    assert_true(cg_is_zero(zeros, 0));
    for (size_t i = 0; i < sizeof zeros; i += 31) {
        zeros[i] = 1;
        assert_false(cg_is_zero(zeros, sizeof zeros));
        zeros[i] = 0;
    }
    char uuid[CG_UUID_LEN + 1];
    cg_uuid(uuid);
    assert_true(cg_uuid_valid(uuid));
    uuid[3] = 'g';
    assert_false(cg_uuid_valid(uuid));
    assert_false(cg_uuid_valid(""));
}

static void test_zero_run(void **state)
{
    uint8_t buf[1000] = { 0 };
    bool zeros = false;

    (void)state;
    assert_int_equal(cg_zero_run(buf, sizeof buf, 300, &zeros), sizeof buf);
    assert_true(zeros);
    buf[999] = 1; /* in the short piece at the end */
    assert_int_equal(cg_zero_run(buf, sizeof buf, 300, &zeros), 900);
    assert_true(zeros);
    assert_int_equal(cg_zero_run(buf + 900, 100, 300, &zeros), 100);
    assert_false(zeros);
    buf[0] = buf[300] = 1;
    assert_int_equal(cg_zero_run(buf, sizeof buf, 300, &zeros), 600);
    assert_false(zeros);
}

static void test_size(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t size; /* -1: refused */
    } cases[] = {
        { "0", 0 },
        { "512", 512 },
        { "1K", 1024 },
        { "1k", 1024 },
        { "1.5M", 1572864 },
        { "10GiB", 10737418240 },
        { "2TB", 2199023255552 },
        { "4B", 4 },
        { "", -1 },
        { "G", -1 },
        { "-1", -1 },
        { "1.K", -1 },
        { ".5K", -1 },
        { "1.3", -1 },
        { "1KK", -1 },
        { "1 K", -1 },
        { "0x10", -1 },
        { "99999999999999999999", -1 },
        { "4194305T", -1 },
        { "4194304T", INT64_C(1) << 62 },
        { "1P", -1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t size = 7;
        struct cg_error err;
        int r = cg_size_parse(cases[i].text, &size, &err);
        assert_int_equal(r, cases[i].size < 0 ? -EINVAL : 0);
        assert_true(size == (r < 0 ? 7 : (uint64_t)cases[i].size));
    }
    uint64_t size;
    assert_int_equal(cg_size_parse_image("0", &size, NULL), -EINVAL);
    assert_int_equal(cg_size_parse_image("1000", &size, NULL), -EINVAL);
    assert_int_equal(cg_size_parse_image("1024", &size, NULL), 0);
    char text[CG_SIZE_TEXT];
    cg_size_text(text, 0);
    assert_string_equal(text, "0 B");
    cg_size_text(text, 1536);
    assert_string_equal(text, "1.50 KiB");
    cg_size_text(text, UINT64_C(1) << 62);
    assert_string_equal(text, "4.00 EiB");
}

struct sum {
    atomic_uint_least64_t seen, fail_at;
};

static int add(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct sum *s = opaque;

    assert_true(worker < 4);
    if (item == s->fail_at)
        return cg_error_say(err, EIO, "item %d", (int)item);
    atomic_fetch_add(&s->seen, item);
    return 0;
}

static void test_parallel(void **state)
{
    (void)state;
    struct sum s = { .fail_at = UINT64_MAX };
    struct cg_error err;

    assert_int_equal(cg_parallel(1000, 4, add, &s, &err), 0);
    assert_int_equal(s.seen, 999 * 1000 / 2);
    assert_int_equal(cg_parallel(0, 4, add, &s, &err), 0);
    s.fail_at = 500;
    assert_int_equal(cg_parallel(1000, 4, add, &s, &err), -EIO);
    assert_string_equal(err.message, "item 500");
}

static void count(void *opaque)
{
    atomic_fetch_add((atomic_uint_least64_t *)opaque, 1);
}

static void test_pool(void **state)
{
    (void)state;
    atomic_uint_least64_t n = 0;
    unsigned taken = 0;
    struct cg_pool *p = cg_pool_new(3, 10);

    for (int i = 0; i < 1000; i++)
        taken += cg_pool_submit(p, count, &n);
    cg_pool_free(p);
    assert_int_equal(n, taken);
    assert_true(taken >= 10);
    cg_pool_free(cg_pool_new(1, 1));
}

static void test_files(void **state)
{
    (void)state;
    char dir[] = "/tmp/cowgate-test-XXXXXX";
    struct cg_error err;

    assert_non_null(mkdtemp(dir));
    CG_CLEANUP(cg_close) int fd = open(dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(cg_dir_make(fd, "a/b/c", 0700, &err), 0);
    assert_int_equal(cg_dir_make(fd, "a/b/c", 0700, &err), 0);
    assert_int_equal(cg_file_create(fd, "a/b/f", "one", 3, 0600, &err), 0);
    assert_int_equal(cg_file_create(fd, "a/b/f", "two", 3, 0600, &err), -EEXIST);
    assert_int_equal(cg_dir_make(fd, "a/b/f", 0700, &err), -ENOTDIR);
    assert_int_equal(cg_file_replace(fd, "a/b/f", "three", 5, 0600, &err), 0);
    CG_CLEANUP(cg_free) char *buf = NULL;
    size_t len;
    assert_int_equal(cg_file_read(fd, "a/b/f", 4, &buf, &len, &err), -EFBIG);
    assert_int_equal(cg_file_read(fd, "a/b/f", 5, &buf, &len, &err), 0);
    assert_int_equal(len, 5);
    assert_string_equal(buf, "three");
    assert_int_equal(cg_file_read(fd, "a/b/none", 5, &buf, &len, &err), -ENOENT);
    assert_int_equal(symlinkat("/etc", fd, "a/link"), 0);
    assert_int_equal(cg_tree_remove(fd, "a", &err), 0);
    assert_int_equal(cg_tree_remove(fd, "a", &err), 0);
    assert_int_equal(access("/etc/passwd", F_OK), 0);
    assert_int_equal(cg_tree_remove(AT_FDCWD, dir, &err), 0);
}

static void test_extents(void **state)
{
    (void)state;
    struct cg_extents e;

    cg_extents_init(&e, 100, 1000, 2);
    assert_int_equal(cg_extents_to(&e, 200, CG_DATA, NULL), 0);
    assert_int_equal(cg_extents_to(&e, 150, CG_HOLE, NULL), 0); /* behind: ignored */
    assert_int_equal(cg_extents_to(&e, 300, CG_DATA, NULL), 0); /* one with the first */
    assert_int_equal(cg_extents_to(&e, 400, CG_HOLE, NULL), 0);
    assert_false(cg_extents_full(&e));
    assert_int_equal(cg_extents_to(&e, 500, CG_DATA, NULL), 0); /* a third is too many */
    assert_true(cg_extents_full(&e));
    assert_int_equal(e.count, 2);
    assert_int_equal(e.next, 400);
    assert_int_equal(e.v[0].len, 200);
    cg_extents_clear(&e);
    cg_extents_init(&e, 100, 1000, 0);
    assert_int_equal(cg_extents_to(&e, 5000, CG_ZERO, NULL), 0);
    assert_int_equal(e.v[0].len, 900); /* never more than was asked for */
    cg_extents_clear(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),    cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_size),     cmocka_unit_test(test_zero_run),
        cmocka_unit_test(test_parallel), cmocka_unit_test(test_pool),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_extents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
