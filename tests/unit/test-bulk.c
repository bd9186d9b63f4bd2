#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bulk.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "tests/unit/cmocka-all.h"

#define SIZE ((size_t)4 << 20)
#define MIB ((size_t)1 << 20)

static char directory[] = "/tmp/cowgate-test-bulk.XXXXXX";

static int new_file(void)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

static void free_bulk(struct cg_bulk **bulk)
{
    cg_bulk_free(*bulk);
}

/* How many O_DIRECT descriptors this process has. */
static int direct_descriptors(void)
{
    int count = 0;

    for (int fd = 3; fd < 64; fd++) {
        int flags = fcntl(fd, F_GETFL);
        count += flags >= 0 && (flags & O_DIRECT);
    }
    return count;
}

/* Writes of all alignments and lengths, large and small in turns, show as if written plainly. */
static void check_writes(int fd)
{
    CG_CLEANUP(cg_free) uint8_t *buf = cg_bulk_buffer(SIZE);
    CG_CLEANUP(cg_free) uint8_t *want = calloc(1, SIZE), *have = malloc(SIZE);
    __attribute__((cleanup(free_bulk))) struct cg_bulk *bulk = cg_bulk_new(fd);
    static const size_t shifts[] = { 0, 1, 512, 4095 };

    assert_true(buf && want && have && bulk);
    assert_int_equal(ftruncate(fd, (off_t)SIZE), 0);
    for (unsigned i = 0; i < 200; i++) {
        size_t off = (size_t)rand() % (SIZE / 4096) * 4096 + shifts[rand() % 4];
        size_t skip = off % 4096 + (rand() % 4 == 0 ? 7 : 0); /* mostly as aligned as its place */
        size_t most = SIZE - (off > skip ? off : skip);
        size_t len = 1 + (size_t)rand() % (most < MIB ? most : MIB);
        memset(buf + skip, (int)(i % 255) + 1, len);
        memcpy(want + off, buf + skip, len);
        assert_int_equal(cg_bulk_pwrite(bulk, buf + skip, len, off), 0);
        if (i % 3 == 0)
            assert_int_equal(cg_pread_full(fd, have, SIZE, 0), 0); /* into the cache */
    }
    assert_int_equal(cg_pread_full(fd, have, SIZE, 0), 0);
    assert_memory_equal(have, want, SIZE);
}

static void test_writes(void **state)
{
    (void)state;
    CG_CLEANUP(cg_close) int fd = new_file();

    check_writes(fd);
}

/* Memory, which may or may not know direct writes. */
static void test_memory(void **state)
{
    (void)state;
    CG_CLEANUP(cg_close) int fd = memfd_create("bulk", MFD_CLOEXEC);

    assert_true(fd >= 0);
    check_writes(fd);
}

/* What wasn't written stays a hole, and only large aligned writes open the second descriptor. */
static void test_holes(void **state)
{
    (void)state;
    CG_CLEANUP(cg_close) int fd = new_file();
    CG_CLEANUP(cg_free) uint8_t *buf = cg_bulk_buffer(SIZE);
    __attribute__((cleanup(free_bulk))) struct cg_bulk *bulk = cg_bulk_new(fd);
    struct stat st;
    int before = direct_descriptors();

    assert_true(buf && bulk);
    memset(buf, 1, SIZE);
    assert_int_equal(ftruncate(fd, (off_t)(8 * SIZE)), 0);
    assert_int_equal(cg_bulk_pwrite(bulk, buf, 4096, 0), 0);
    assert_int_equal(cg_bulk_pwrite(bulk, buf + 1, MIB, MIB), 0);
    assert_int_equal(direct_descriptors(), before);
    assert_int_equal(cg_bulk_pwrite(bulk, buf, MIB, 4 * MIB), 0);
    assert_int_equal(fdatasync(fd), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 8 * SIZE);
    assert_true((size_t)st.st_blocks * 512 < 3 * MIB);
    /* Some file systems have no direct writes. */
    assert_true(direct_descriptors() <= before + 1);
}

/* A file that can't be written by the second way either says why. */
static void test_failure(void **state)
{
    (void)state;
    CG_CLEANUP(cg_close) int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    CG_CLEANUP(cg_free) uint8_t *buf = cg_bulk_buffer(SIZE);
    __attribute__((cleanup(free_bulk))) struct cg_bulk *bulk = cg_bulk_new(fd);

    assert_true(fd >= 0 && buf && bulk);
    memset(buf, 1, SIZE);
    assert_int_equal(cg_bulk_pwrite(bulk, buf, SIZE, 0), -ENOSPC);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_failure),
    };

    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
