#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/jobs/export_diff.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

/* The stream between two points, applied to the first, gives the second: by the format's
 * description (Ceph, dev/rbd-diff), and to the byte. */

struct state {
    struct lab lab;
    struct cg_backup_result a, b;
    struct cg_export_diff_result res;
};

static int setup(void **state)
{
    struct state *s = calloc(1, sizeof *s);

    lab_begin(&s->lab);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct state *s = *state;

    lab_end(&s->lab);
    free(s);
    return 0;
}

static int export(struct state *s, const char *from, const char *to, int fd, struct cg_error *err)
{
    struct cg_name a, b;

    assert_int_equal(cg_name_parse(from, &a, err), 0);
    assert_int_equal(cg_name_parse(to, &b, err), 0);
    return cg_export_diff(s->lab.repo, &a, &b, fd, NULL, &s->res, err);
}

static void take(int fd, void *buf, size_t len)
{
    assert_int_equal(read(fd, buf, len), len);
}

static void take_name(int fd, char tag, const char *point)
{
    uint8_t head[5];
    char name[128] = "";

    take(fd, head, sizeof head);
    assert_int_equal(head[0], tag);
    assert_true(cg_le32(head + 1) >= 1 && cg_le32(head + 1) < sizeof name);
    take(fd, name, cg_le32(head + 1));
    assert_string_equal(name, strrchr(point, '/') + 1);
}

/* Applies the stream to image, size bytes of memory. */
static void apply(struct state *s, int fd, uint8_t *image, uint64_t size)
{
    char magic[12];
    uint8_t h[17];
    uint64_t last = 0;

    take(fd, magic, sizeof magic);
    assert_memory_equal(magic, "rbd diff v1\n", sizeof magic);
    take_name(fd, 'f', s->a.point);
    take_name(fd, 't', s->b.point);
    take(fd, h, 9);
    assert_int_equal(h[0], 's');
    assert_true(cg_le64(h + 1) == s->b.size);
    for (take(fd, h, 1); h[0] != 'e'; take(fd, h, 1)) {
        take(fd, h + 1, 16);
        uint64_t off = cg_le64(h + 1), len = cg_le64(h + 9);
        assert_true(off >= last && off + len <= size && len > 0);
        last = off + len;
        if (h[0] == 'w')
            take(fd, image + off, len);
        else
            memset(image + off, 0, len);
        assert_true(h[0] == 'w' || h[0] == 'z');
    }
    assert_int_equal(read(fd, h, 1), 0);
}

static void check(struct state *s)
{
    struct cg_image *a = lab_open(&s->lab, s->a.point), *b = lab_open(&s->lab, s->b.point);
    uint64_t size = s->b.size;
    uint8_t *image = calloc(1, size), *want = malloc(size);
    struct cg_error err;
    int fd = memfd_create("stream", 0);

    assert_int_equal(cg_image_pread(a, image, cg_min(s->a.size, size), 0, &err), 0);
    assert_int_equal(cg_image_pread(b, want, size, 0, &err), 0);
    if (export(s, s->a.point, s->b.point, fd, &err) < 0)
        fail_msg("%s", err.message);
    lseek(fd, 0, SEEK_SET);
    apply(s, fd, image, size);
    assert_memory_equal(image, want, size);
    close(fd);
    free(image);
    free(want);
    cg_image_unref(a);
    cg_image_unref(b);
}

static void test_changes(void **state)
{
    struct state *s = *state;

    fake_space_add(s->lab.fake, "web", 100 * MIB + 512);
    lab_write(&s->lab, "web", 60 * MIB, 0, 1);
    lab_backup(&s->lab, "web", "acme", "web", &s->a);
    lab_write(&s->lab, "web", 512, 100 * MIB, 2);
    lab_write(&s->lab, "web", 3 * MIB, 5 * MIB, 3);
    fake_space_punch(s->lab.fake, "web", MIB, 9 * MIB);
    fake_space_punch(s->lab.fake, "web", 4 * MIB, 20 * MIB);
    lab_backup(&s->lab, "web", "acme", "web", &s->b);
    check(s);
    assert_int_equal(s->res.chunks, 4);
    assert_true(s->res.bytes_zeroed == 5 * MIB && s->res.bytes_data == 7 * MIB + 512);
}

static void test_sizes(void **state)
{
    struct state *s = *state;
    struct cg_backup_result smaller;

    fake_space_add(s->lab.fake, "web", 50 * MIB + 512);
    lab_write(&s->lab, "web", 7 * MIB + 512, 43 * MIB, 1);
    lab_backup(&s->lab, "web", "acme", "web", &smaller);
    fake_space_grow(s->lab.fake, "web", 90 * MIB);
    lab_write(&s->lab, "web", MIB, 70 * MIB, 2);
    lab_backup(&s->lab, "web", "acme", "web", &s->b);
    s->a = smaller;
    check(s);
    assert_int_equal(s->res.chunks, 2);
    s->a = s->b;
    s->b = smaller;
    check(s);
    assert_int_equal(s->res.chunks, 1); /* the last one, which is shorter */
}

static void test_refused(void **state)
{
    struct state *s = *state;
    struct cg_error err;

    fake_space_add(s->lab.fake, "web", 8 * MIB);
    lab_backup(&s->lab, "web", "acme", "web", &s->a);
    lab_backup(&s->lab, "web", "other", "web", &s->b);
    assert_int_equal(export(s, s->a.point, s->a.point, -1, &err), -EINVAL);
    assert_int_equal(export(s, s->a.point, s->b.point, -1, &err), -EINVAL);
    lab_write(&s->lab, "web", MIB, 0, 1);
    lab_backup(&s->lab, "web", "acme", "web", &s->b);
    assert_int_equal(export(s, s->a.point, s->b.point, -1, &err), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
