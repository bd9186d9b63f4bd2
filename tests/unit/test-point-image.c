/* Points as images: what a reader makes the cache load. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/image/window.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

#define DISK_CHUNKS 8

/* A point of so many different chunks, opened with nothing of them cached. */
static struct cg_image *open_chunks(struct lab *lab)
{
    struct cg_backup_result result;

    fake_space_add(lab->fake, "disk", DISK_CHUNKS * CG_CHUNK_SIZE);
    lab_write(lab, "disk", DISK_CHUNKS * CG_CHUNK_SIZE, 0, 1);
    lab_backup(lab, "disk", "acme", "disk", &result);
    lab_reopen(lab);
    return lab_open(lab, result.point);
}

static uint64_t loads(struct lab *lab)
{
    return cg_cache_loads(cg_repository_cache(lab->repo));
}

static void *read_whole(void *image)
{
    CG_CLEANUP(cg_free) void *buf = malloc(CG_CHUNK_SIZE);
    struct cg_error err;

    for (uint64_t off = 0; buf && off < DISK_CHUNKS * CG_CHUNK_SIZE; off += CG_CHUNK_SIZE)
        if (cg_image_pread(image, buf, CG_CHUNK_SIZE, off, &err) < 0)
            return image;
    return buf ? NULL : image;
}

/* What several want at the same time is decoded once. */
static void test_whole_chunks(void **state)
{
    struct lab *lab = *state;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = open_chunks(lab);
    struct cg_error err;
    uint8_t byte;
    pthread_t thread[3];
    void *failed;

    assert_int_equal(cg_image_pread(image, &byte, 1, 5 * CG_CHUNK_SIZE, &err), 0); /* the page */
    uint64_t before = loads(lab);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_whole, image), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(loads(lab), before + DISK_CHUNKS - 1);
}

/* Loading goes on in the background until there were so many. */
static void wait_for_loads(struct lab *lab, uint64_t n)
{
    for (unsigned i = 0; i < 10000 && loads(lab) < n; i++)
        usleep(1000);
    assert_true(loads(lab) >= n);
}

static void read_at(struct cg_image *image, uint64_t off, size_t len)
{
    CG_CLEANUP(cg_free) void *buf = malloc(len);
    struct cg_error err;

    assert_non_null(buf);
    assert_int_equal(cg_image_pread(image, buf, len, off, &err), 0);
}

/* One reader of whole chunks finds the next two loaded. */
static void test_one_after_the_other(void **state)
{
    struct lab *lab = *state;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = open_chunks(lab);

    read_at(image, 7 * CG_CHUNK_SIZE, 1); /* the page */
    uint64_t before = loads(lab);
    read_at(image, 0, CG_CHUNK_SIZE);
    assert_int_equal(loads(lab), before + 1);
    read_at(image, CG_CHUNK_SIZE, CG_CHUNK_SIZE);
    wait_for_loads(lab, before + 4);
}

/* So do two who take turns. */
static void test_two_readers(void **state)
{
    struct lab *lab = *state;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = open_chunks(lab);

    read_at(image, 7 * CG_CHUNK_SIZE + (2 << 20), 1);
    uint64_t before = loads(lab);
    read_at(image, 0, 65536);
    read_at(image, 3 * CG_CHUNK_SIZE, 65536);
    assert_int_equal(loads(lab), before + 2);
    read_at(image, 65536, 65536);
    wait_for_loads(lab, before + 4);
    read_at(image, 3 * CG_CHUNK_SIZE + 65536, 65536);
    wait_for_loads(lab, before + 6);
}

/* One request over several chunks has all of them fetched at once: also those behind one that
 * can't be read. */
static void test_request_of_many_chunks(void **state)
{
    struct lab *lab = *state;
    CG_CLEANUP(cg_free) void *buf = malloc(DISK_CHUNKS * CG_CHUNK_SIZE);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = open_chunks(lab);
    struct cg_error err;
    uint8_t byte;

    assert_non_null(buf);
    assert_int_equal(cg_image_pread(image, &byte, 1, 7 * CG_CHUNK_SIZE, &err), 0); /* the page */
    uint64_t before = loads(lab);
    lab_sh(lab, "rm -r chunks/*");
    assert_true(cg_image_pread(image, buf, 7 * CG_CHUNK_SIZE, 0, &err) < 0);
    wait_for_loads(lab, before + 7);
}

static void same_as_read(struct cg_image *image, size_t len, uint64_t off)
{
    CG_CLEANUP(cg_free) void *buf = malloc(len);
    struct cg_loan loan;
    struct cg_error err;

    assert_non_null(buf);
    assert_int_equal(cg_image_borrow(image, len, off, &loan, &err), 0);
    assert_int_equal(cg_image_pread(image, buf, len, off, &err), 0);
    assert_memory_equal(loan.buf, buf, len);
    cg_image_give_back(image, &loan);
}

/* What is lent is what is read; what doesn't lie together isn't lent. */
static void test_loans(void **state)
{
    struct lab *lab = *state;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *window = NULL;
    struct cg_backup_result result;
    struct cg_error err;
    struct cg_loan loan;

    fake_space_add(lab->fake, "disk", 4 * CG_CHUNK_SIZE + 4096);
    lab_write(lab, "disk", 2 * CG_CHUNK_SIZE, 0, 1);
    lab_write(lab, "disk", 4096, 4 * CG_CHUNK_SIZE, 2);
    lab_backup(lab, "disk", "acme", "disk", &result);
    lab_reopen(lab);
    image = lab_open(lab, result.point);
    same_as_read(image, CG_CHUNK_SIZE, 0);
    same_as_read(image, 1, CG_CHUNK_SIZE - 1);
    same_as_read(image, 1 << 20, CG_CHUNK_SIZE + (1 << 20));
    same_as_read(image, 4096, 4 * CG_CHUNK_SIZE);
    assert_int_equal(cg_image_borrow(image, 2, CG_CHUNK_SIZE - 1, &loan, &err), -ENOTSUP);
    assert_int_equal(cg_image_borrow(image, 4096, 2 * CG_CHUNK_SIZE, &loan, &err), -ENOTSUP);
    assert_int_equal(cg_image_borrow(image, 4097, 4 * CG_CHUNK_SIZE, &loan, &err), -EINVAL);
    assert_int_equal(cg_window_open(image, 1 << 20, CG_CHUNK_SIZE, &window, &err), 0);
    same_as_read(window, 3 << 20, 0);
    assert_int_equal(cg_image_borrow(window, 4096, (3 << 20) - 512, &loan, &err), -ENOTSUP);
    assert_int_equal(cg_image_borrow(window, 512, CG_CHUNK_SIZE, &loan, &err), -EINVAL);
    cg_image_unref(image);
    image = lab_open(lab, "volumes/acme/disk"); /* it never lends */
    assert_int_equal(cg_image_borrow(image, 512, 0, &loan, &err), -ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_chunks, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_one_after_the_other, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_two_readers, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_loans, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_request_of_many_chunks, lab_setup_empty, lab_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
