/* What comes in between: others change a volume, or open it, in the middle of something. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/writer.h"
#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

static void roll_back(void)
{
    struct cg_name s = pool_name(V "@s");
    struct cg_error err;

    assert_int_equal(cg_space_rollback(pool.space, &s, &err), 0);
}

/* The layers go while the clone is linking them: it takes those that are the volume's then. */
static void test_clone_beside_rollback(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);

    (void)state;
    put(image, 'A', 4096, 0);
    cg_image_unref(image);
    pool_snapshot(pool.space, V "@s");
    for (hook.act_at_link = 1; hook.act_at_link < 6; hook.act_at_link++) {
        unsigned at = hook.act_at_link;
        image = pool_open(pool.space, V, CG_OPEN_WRITE);
        put(image, 'B', 4096, 0);
        cg_image_unref(image);
        hook.act = roll_back;
        pool_clone(pool.space, V, "volumes/p/c");
        bool rolled = hook.act_at_link == 0;
        hook.act_at_link = at;
        image = pool_open(pool.space, "volumes/p/c", CG_OPEN_READ);
        uint8_t first;
        pool_read(image, &first, 1, 0);
        assert_true(first == 'B' || (rolled && first == 'A'));
        expect(image, (char)first, 4096, 0);
        cg_image_unref(image);
        pool_remove(pool.space, "volumes/p/c");
    }
}

static bool overtook;

static void overtake(void)
{
    overtook = !volume_is_locked();
    if (overtook)
        write_and_end(pool.space);
}

/* Somebody writes the volume while another opens it to write at once: that one opens it anew. */
static void test_exclusive_overtaken(void **state)
{
    struct cg_space *second = pool_second(&pool);
    struct cg_name v = pool_name(V);
    unsigned overtaken = 0;

    (void)state;
    hook.act = overtake;
    overtook = true;
    for (unsigned at = 1; overtook; at++) {
        struct cg_image *image;
        struct cg_error err;
        pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
        overtook = false;
        hook.act_at_flock = at;
        if (cg_space_open(second, &v, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &image, &err) < 0)
            fail_msg("flock %u: %s", at, err.message);
        hook.act_at_flock = 0;
        expect(image, overtook ? 'B' : 0, 512, 4096);
        cg_image_unref(image);
        overtaken += overtook;
    }
    assert_true(overtaken > 2);
    cg_space_free(second);
}

static struct cg_writer lock_of_v(void)
{
    struct cg_writer writer;
    struct cg_error err;
    char path[128];

    snprintf(path, sizeof path, "%s/p/v", pool.dir);
    CG_CLEANUP(cg_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(cg_writer_read(fd, &writer, &err), 0);
    return writer;
}

static struct cg_image *reopened;

static void reopen(void)
{
    assert_true(lock_of_v().brief); /* who comes now waits */
    reopened = pool_open(pool.space, V, CG_OPEN_WRITE);
}

/* A writer that is flushing to end goes on, since somebody in its process has opened the volume:
 * others are refused again, and not left to wait for its end. */
static void test_ending_taken_back(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE), *other;
    struct cg_space *second = pool_second(&pool);
    struct cg_error err;

    (void)state;
    alarm(50); /* less than others would wait */
    put(image, 'A', 512, 0);
    assert_false(lock_of_v().brief);
    hook.act = reopen;
    hook.act_at_sync = 1;
    cg_image_unref(image);
    assert_int_equal(hook.act_at_sync, 0);
    assert_int_equal(lock_of_v().pid, getpid());
    assert_false(lock_of_v().brief);
    other = pool_open(second, V, CG_OPEN_WRITE);
    assert_int_equal(cg_image_pwrite(other, "x", 1, 0, 0, &err), -EBUSY);
    cg_image_unref(other);
    put(reopened, 'B', 512, 0);
    cg_image_unref(reopened);
    assert_int_equal(lock_of_v().pid, 0);
    other = pool_open(second, V, CG_OPEN_WRITE);
    expect(other, 'B', 512, 0);
    put(other, 'C', 512, 0);
    cg_image_unref(other);
    cg_space_free(second);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_clone_beside_rollback, faults_setup, faults_teardown),
        cmocka_unit_test_setup_teardown(test_exclusive_overtaken, faults_setup, faults_teardown),
        cmocka_unit_test_setup_teardown(test_ending_taken_back, faults_setup, faults_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
