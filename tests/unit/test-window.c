#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/image/file.h"
#include "core/image/window.h"
#include "tests/unit/fake-image.h"
#include "tests/unit/oracle.h"
#include "tests/unit/scratch.h"
#include "tests/unit/cmocka-all.h"

#define MIB (UINT64_C(1) << 20)

static char disk[64];

/* Partitions the disk of size bytes by an sfdisk script. */
static void partition(uint64_t size, const char *script)
{
    char command[512];

    snprintf(disk, sizeof disk, "%s/disk", scratch);
    snprintf(command, sizeof command, "rm -f %s && truncate -s %llu %s && sfdisk -q %s", disk,
             (unsigned long long)size, disk, disk);
    FILE *f = popen(command, "w");
    assert_non_null(f);
    fputs(script, f);
    assert_int_equal(pclose(f), 0);
}

/* Where sfdisk says that a partition is. */
static void where(unsigned number, uint64_t *ret_off, uint64_t *ret_len)
{
    char command[512], line[512], name[160];
    bool found = false;

    snprintf(command, sizeof command, "sfdisk --dump %s", disk);
    snprintf(name, sizeof name, "%s%u :", disk, number);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        const char *start = strstr(line, "start="), *size = strstr(line, "size=");
        if (strncmp(line, name, strlen(name)) != 0)
            continue;
        assert_non_null(start);
        assert_non_null(size);
        *ret_off = strtoull(start + 6, NULL, 10) * 512;
        *ret_len = strtoull(size + 5, NULL, 10) * 512;
        found = true;
    }
    pclose(f);
    assert_true(found);
}

static int open_partition(unsigned number, struct cg_image **ret, struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = NULL;

    *ret = NULL;
    err->message[0] = '\0';
    assert_int_equal(cg_file_open(disk, true, &base, err), 0);
    return cg_window_open_partition(base, number, ret, err);
}

/* The partition has exactly the bytes that lie at its place on the disk, also when written. */
static void check_partition(unsigned number)
{
    struct cg_error err;
    uint64_t off = 0, len = 0;
    char first[512], last[512], got[512];
    CG_CLEANUP(cg_image_cleanup) struct cg_image *p = NULL;

    where(number, &off, &len);
    memset(first, 'a' + (int)number, 512);
    memset(last, 'A' + (int)number, 512);
    scratch_put(disk, first, 512, off);
    scratch_put(disk, last, 512, off + len - 512);
    if (open_partition(number, &p, &err) < 0)
        fail_msg("%s", err.message);
    assert_true(cg_image_size(p) == len);
    assert_int_equal(cg_image_pread(p, got, 512, 0, &err), 0);
    assert_memory_equal(got, first, 512);
    assert_int_equal(cg_image_pread(p, got, 512, len - 512, &err), 0);
    assert_memory_equal(got, last, 512);
    assert_int_equal(cg_image_pread(p, got, 1, len, &err), -EINVAL);
    assert_int_equal(cg_image_pwrite(p, last, 512, len - 511, 0, &err), -ENOSPC);
    assert_int_equal(cg_image_pwrite(p, "x", 1, len - 1, 0, &err), 0);
    int fd = open(disk, O_RDONLY | O_CLOEXEC);
    assert_int_equal(cg_pread_full(fd, got, 1, off + len - 1), 0);
    close(fd);
    assert_int_equal(got[0], 'x');
}

static void refused(unsigned number, int errnum, const char *text)
{
    struct cg_error err;
    struct cg_image *p;

    assert_int_equal(open_partition(number, &p, &err), -errnum);
    if (!strstr(err.message, text))
        fail_msg("'%s' doesn't say '%s'", err.message, text);
}

static void test_gpt(void **state)
{
    (void)state;

    partition(64 * MIB, "label: gpt\nstart=2048, size=10000\nsize=3\nsize=+\n");
    for (unsigned i = 1; i <= 3; i++)
        check_partition(i);
    refused(4, ENOENT, "no partition 4");
    refused(128, ENOENT, "no partition 128");
}

/* The primary table is gone: the backup at the end serves. */
static void test_gpt_backup(void **state)
{
    (void)state;
    static const char zeros[512];

    partition(64 * MIB, "label: gpt\nstart=2048, size=10000\nsize=+\n");
    uint64_t off = 0, len = 0;
    where(2, &off, &len);
    scratch_put(disk, zeros, sizeof zeros, 512);
    check_partition(1);
    scratch_put(disk, zeros, sizeof zeros, 64 * MIB - 512);
    refused(1, EINVAL, "GPT is damaged");
}

static void test_gpt_cut_off(void **state)
{
    (void)state;

    partition(64 * MIB, "label: gpt\nstart=2048, size=10000\nsize=+\n");
    assert_int_equal(truncate(disk, 32 * MIB), 0);
    refused(2, EINVAL, "larger disk");
}

static void test_gpt_4096(void **state)
{
    (void)state;
    char command[512];

    partition(64 * MIB, "label: gpt\n");
    snprintf(command, sizeof command,
             "printf 'g\\nn\\n\\n\\n\\nw\\n' | fdisk -w always -b 4096 %s >/dev/null", disk);
    assert_int_equal(system(command), 0);
    refused(1, EINVAL, "4096");
}

static void test_mbr(void **state)
{
    (void)state;

    partition(100 * MIB, "label: dos\nsize=20480, type=83\nsize=3, type=7\nsize=+, type=f\n"
                         "size=10M\nsize=1M\nsize=5M\nsize=+\n");
    for (unsigned i = 1; i <= 8; i++) {
        if (i == 3)
            refused(3, EINVAL, "extended");
        else if (i != 4)
            check_partition(i);
    }
    refused(4, ENOENT, "no partition 4");
    refused(9, ENOENT, "no partition 9");
}

static void mbr_entry(unsigned index, uint8_t type, uint32_t start, uint32_t size)
{
    uint8_t e[16] = { 0 };

    e[4] = type;
    cg_put_le32(e + 8, start);
    cg_put_le32(e + 12, size);
    scratch_put(disk, e, sizeof e, 446 + 16 * index);
}

static void test_bad_mbr(void **state)
{
    (void)state;

    partition(16 * MIB, "label: dos\nsize=1M\nsize=2M\n");
    mbr_entry(1, 0x83, 20000, 20000);
    check_partition(1);
    refused(2, EINVAL, "does not lie within");
    mbr_entry(1, 0x83, 4095, 100);
    refused(2, EINVAL, "overlap");
    refused(1, EINVAL, "overlap");
    mbr_entry(1, 0x83, 0xffffffff, 0xffffffff);
    refused(2, EINVAL, "does not lie within");
    /* A chain of extended boot records that goes round in circles, or out of the disk. */
    partition(16 * MIB,
              "label: dos\nsize=1M\nsize=1M\nsize=1M\nsize=8M, type=5\nsize=1M\nsize=1M\n");
    uint8_t sector[512];
    int fd = open(disk, O_RDONLY | O_CLOEXEC);
    assert_int_equal(cg_pread_full(fd, sector, 512, 8192 * 512), 0);
    close(fd);
    uint8_t *link = sector + 446 + 16;
    assert_int_equal(link[4], 5);
    cg_put_le32(link + 8, 0);
    scratch_put(disk, sector, 512, 8192 * 512);
    struct cg_error err;
    struct cg_image *p;
    assert_true(open_partition(77, &p, &err) < 0);
    check_partition(1);
    cg_put_le32(link + 8, 0xfffffff0);
    scratch_put(disk, sector, 512, 8192 * 512);
    check_partition(1);
    assert_true(open_partition(6, &p, &err) < 0);
}

static void test_no_table(void **state)
{
    (void)state;
    char command[200];

    partition(16 * MIB, "label: dos\n");
    refused(1, ENOENT, "no partition 1");
    assert_int_equal(truncate(disk, 0), 0);
    refused(1, ENOENT, "no partition table");
    assert_int_equal(truncate(disk, 16 * MIB), 0);
    refused(1, ENOENT, "no partition table");
    /* A file system without partitions, whose boot sector looks much like an MBR. */
    snprintf(command, sizeof command, "mkfs.vfat %s >/dev/null 2>&1", disk);
    if (system(command) == 0)
        refused(1, ENOENT, "no partition table");
}

static void test_window(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_extents e;
    struct oracle_options o = {
        .operations = 500, .threads = 2, .seed = 1, .grain = 512, .longest = 64 << 10
    };
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = fake_image_new(8 * MIB, NULL, NULL);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *w = NULL;
    char around[2] = { 'l', 'r' }, got[2];

    assert_int_equal(cg_window_open(base, 8 * MIB - 512, 1024, &w, &err), -EINVAL);
    assert_int_equal(cg_window_open(base, UINT64_MAX, 1024, &w, &err), -EINVAL);
    assert_int_equal(cg_window_open(base, MIB, 4 * MIB, &w, &err), 0);
    assert_int_equal(cg_image_pwrite(base, around, 1, MIB - 1, 0, &err), 0);
    assert_int_equal(cg_image_pwrite(base, around + 1, 1, 5 * MIB, 0, &err), 0);
    cg_extents_init(&e, 0, 4 * MIB, 0);
    assert_int_equal(cg_image_extents(w, &e, &err), 0);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.v[0].type, CG_HOLE);
    assert_true(e.v[0].off == 0 && e.v[0].len == 4 * MIB);
    cg_extents_clear(&e);
    oracle_run(w, &o);
    assert_int_equal(cg_image_pread(base, got, 1, MIB - 1, &err), 0);
    assert_int_equal(cg_image_pread(base, got + 1, 1, 5 * MIB, &err), 0);
    assert_memory_equal(got, around, 2);
    assert_false(cg_image_can_trim(w)); /* base can't */
    assert_true(cg_image_can_zero(w));
}

/* What fails below fails above. */
static void test_faults(void **state)
{
    (void)state;
    struct cg_error err;
    char buf[512] = { 0 };

    for (unsigned call = 0; call < 5; call++) {
        struct fake_faults faults = { .fail_at = 0 };
        CG_CLEANUP(cg_image_cleanup) struct cg_image *base = fake_image_new(MIB, &faults, NULL);
        CG_CLEANUP(cg_image_cleanup) struct cg_image *w = NULL;
        struct cg_extents e;
        assert_int_equal(cg_window_open(base, 512, 4096, &w, &err), 0);
        cg_extents_init(&e, 0, 512, 0);
        faults.fail_at = 1;
        int r = call == 0   ? cg_image_pread(w, buf, 512, 0, &err)
                : call == 1 ? cg_image_pwrite(w, buf, 512, 0, 0, &err)
                : call == 2 ? cg_image_zero(w, 512, 0, 0, &err)
                : call == 3 ? cg_image_flush(w, &err)
                            : cg_image_extents(w, &e, &err);
        cg_extents_clear(&e);
        assert_int_equal(r, -EIO);
        assert_int_equal(faults.calls, 1);
    }
    for (unsigned n = 1;; n++) {
        struct fake_faults faults = { .fail_at = n };
        CG_CLEANUP(cg_image_cleanup) struct cg_image *base = fake_image_new(MIB, &faults, NULL);
        struct cg_image *w = NULL;
        int r = cg_window_open_partition(base, 1, &w, &err);
        if (faults.calls < n) {
            assert_int_equal(r, -ENOENT);
            assert_true(n > 3);
            break;
        }
        assert_int_equal(r, -EIO);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt),         cmocka_unit_test(test_gpt_backup),
        cmocka_unit_test(test_gpt_cut_off), cmocka_unit_test(test_gpt_4096),
        cmocka_unit_test(test_mbr),         cmocka_unit_test(test_bad_mbr),
        cmocka_unit_test(test_no_table),    cmocka_unit_test(test_window),
        cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
