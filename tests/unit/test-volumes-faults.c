/* What goes wrong in the middle: a process is killed, a call fails. */
#include "config.h"

#include <errno.h>
#include <glob.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/writer.h"
#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

/* The run directory of who begins from now on. */
static void use_run(const char *name)
{
    char path[sizeof pool.run + 8];

    snprintf(path, sizeof path, "%s/%s", pool.run, name);
    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    setenv("COWGATE_RUN", path, 1);
}

static void write_b(struct cg_space *space)
{
    put(pool_open(space, V, CG_OPEN_WRITE), 'B', 8192, 0);
}

/* Its last writer was killed: what it acknowledged is in no map file. */
static void test_overtaken_by_killed(void **state)
{
    struct cg_image *image, *reader;
    struct cg_error err;

    (void)state;
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    in_killed_process(write_b);
    assert_int_equal(cg_image_pwrite(image, "x", 1, 4096, 0, &err), -ESTALE);
    expect(image, 0, 8192, 0);
    /* A reader of the top layer makes the writer put another above it. */
    struct cg_space *second = pool_second(&pool);
    reader = pool_open(second, V, CG_OPEN_READ);
    expect(reader, 'B', 8192, 0);
    assert_int_equal(cg_image_pwrite(image, "x", 1, 4096, 0, &err), -ESTALE);
    cg_image_unref(image);
    cg_image_unref(reader);
    cg_space_free(second);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'B', 8192, 0);
    cg_image_unref(image);
}

/* A killed writer's files in the run directory go with its volume. */
static void test_deleted_after_killed(void **state)
{
    char pattern[128];
    glob_t found;

    (void)state;
    in_killed_process(write_b);
    snprintf(pattern, sizeof pattern, "%s/*", pool.run);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 2); /* a working map and a socket */
    globfree(&found);
    pool_remove(pool.space, V);
    assert_int_equal(glob(pattern, 0, NULL, &found), GLOB_NOMATCH);
}

/* volume.json as another version of this program may write it: a failure to replace it, which
 * leaves it as it was, is not taken for a change of it. */
static void test_other_json(void **state)
{
    struct cg_name s = pool_name(V "@s");
    struct cg_error err;
    char path[128];

    (void)state;
    pool_snapshot(pool.space, V "@s");
    snprintf(path, sizeof path, "%s/p/v/volume.json", pool.dir);
    FILE *f = fopen(path, "a");
    assert_non_null(f);
    fputs("\n\n", f);
    fclose(f);
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 'A', 512, 0);
    hook.fail_fsync = 1;
    assert_int_equal(cg_space_remove(pool.space, &s, 0, &err), -EIO);
    assert_int_equal(hook.fail_fsync, 0);
    assert_non_null(strstr(err.message, "volume.json"));
    put(image, 'B', 512, 0);
    pool_remove(pool.space, V "@s");
    cg_image_unref(image);
}

static void write_b_cut_flush(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);
    struct cg_error err;

    put(image, 'B', 8192, 0);
    hook.kill_at_sync = 2; /* the first is the data's */
    cg_image_flush(image, &err);
}

/* Killed between the writing of the map and its fdatasync: the file reads right and isn't stable.
 */
static void test_map_written_not_synced(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    in_killed_process(write_b_cut_flush);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    assert_int_equal(cg_image_flush(image, &err), 0);
    assert_int_equal(hook.map_syncs, 1);
    cg_image_unref(image);

    pool_remove(pool.space, V);
    pool_create(pool.space, V, SIZE);
    in_killed_process(write_b_cut_flush);
    hook.map_syncs = 0;
    pool_snapshot(pool.space, V "@s");
    assert_int_equal(hook.map_syncs, 1);
}

/* The sync of the map failed: the kernel calls the pages clean, so they have to be written again.
 */
static void test_map_sync_failed(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    struct cg_error err;

    (void)state;
    put(image, 'B', 8192, 0);
    hook.fail_sync = 2;
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 'B', 8192, 0);
    hook.map_syncs = 0;
    assert_int_equal(cg_image_flush(image, &err), 0);
    assert_int_equal(hook.map_syncs, 1);
    cg_image_unref(image);
}

static void write_b_cut_data_sync(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);
    struct cg_error err;

    put(image, 'B', 8192, 0);
    cg_image_flush(image, &err);
    put(image, 'C', 512, 4096);
    hook.kill_at_sync = 1;
    cg_image_flush(image, &err);
}

/* Killed within the sync of the data, which may have failed: the kernel tells that nobody else.
 * What was written since the one before is written again, and nothing else is. */
static void test_data_sync_unknown(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    for (int killed_in_sync = 0; killed_in_sync < 2; killed_in_sync++) {
        in_killed_process(killed_in_sync ? write_b_cut_data_sync : write_b);
        hook.data_written = 0;
        image = pool_open(pool.space, V, CG_OPEN_WRITE);
        assert_int_equal(cg_image_flush(image, &err), 0);
        assert_int_equal(hook.data_written, killed_in_sync ? 8192 : 0);
        expect(image, 'B', 4096, 0);
        expect(image, killed_in_sync ? 'C' : 'B', 512, 4096);
        cg_image_unref(image);
        pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
    }
}

/* What's to be written again can't be: the volume takes no writes, and loses nothing by that. */
static void test_rewrite_fails(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    in_killed_process(write_b_cut_data_sync);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    hook.fail_data_write = true;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -EIO);
    expect(image, 'B', 4096, 0);
    cg_image_unref(image);
    hook.data_written = 0;
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    assert_int_equal(cg_image_flush(image, &err), 0);
    assert_int_equal(hook.data_written, 8192);
    expect(image, 'C', 512, 4096);
    cg_image_unref(image);
}

/* No room for the working map: the writer doesn't become one, and stands in nobody's way. */
static void test_begin_without_room(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE), *reader;
    struct cg_space *second = pool_second(&pool);
    struct cg_error err;

    (void)state;
    alarm(120);
    hook.fail_fallocate = 1;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -ENOSPC);
    pool_snapshot(second, V "@s");
    reader = pool_open(second, V, CG_OPEN_READ);
    expect(reader, 0, SIZE, 0);
    cg_image_unref(reader);
    put(image, 'A', 512, 0);
    cg_image_unref(image);
    cg_space_free(second);
    alarm(0);
}

/* Who fails to begin leaves the path of the socket to its successor. */
static void test_begin_fails_late(void **state)
{
    struct cg_space *second = pool_second(&pool);
    struct cg_image *reader = pool_open(second, V, CG_OPEN_READ);
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    struct cg_error err;

    (void)state;
    hook.fail_fsync = 1; /* of the new top layer, which the reader makes necessary */
    hook.watch_sockets = true;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -EIO);
    hook.watch_sockets = false;
    assert_true(hook.unlinks > 0);
    assert_int_equal(hook.bad_unlinks, 0);
    put(image, 'A', 512, 0);
    cg_image_unref(image);
    cg_image_unref(reader);
    cg_space_free(second);
}

/* The volume grows, and somebody writes behind its old end. */
static void grow(void)
{
    struct cg_name v = pool_name(V);
    struct cg_error err;

    assert_int_equal(cg_space_resize(pool.space, &v, SIZE + 8192, &err), 0);
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 'K', 512, SIZE);
    cg_image_unref(image);
}

static void zero_beside_growth(bool trim, unsigned act_at)
{
    struct cg_image *image;
    struct cg_error err;

    pool_create(pool.space, V, SIZE);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 'A', SIZE, 0);
    hook.act = grow;
    hook.act_at = act_at;
    int r = trim ? cg_image_trim(image, 8192 + 512, SIZE - 8192 - 512, 0, &err)
                 : cg_image_zero(image, 8192 + 512, SIZE - 8192 - 512, 0, &err);
    assert_int_equal(r, 0);
    if (hook.act_at) { /* not so many calls */
        hook.act_at = 0;
        grow();
    }
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'A', 4096, 0);
    if (!trim)
        expect(image, 0, 512, SIZE - 512);
    expect(image, 'K', 512, SIZE);
    cg_image_unref(image);
    pool_remove(pool.space, V);
}

static void test_zero_beside_growth(void **state)
{
    (void)state;
    pool_remove(pool.space, V);
    for (unsigned at = 1; at < 6; at++) {
        zero_beside_growth(false, at);
        zero_beside_growth(true, at);
    }
}

static void write_beside_reader(struct cg_space *space)
{
    struct cg_image *reader = pool_open(space, V, CG_OPEN_READ);

    write_and_end(pool_second(&pool));
    cg_image_unref(reader);
}

static void make_snapshot(struct cg_space *space)
{
    struct cg_name s = pool_name(V "@s");
    struct cg_error err;

    if (cg_space_snapshot(space, &s, 1, &err) < 0)
        abort();
}

static void in_each_run(const char *const *runs, char value)
{
    for (; *runs; runs++) {
        use_run(*runs);
        struct cg_image *image = pool_open(pool.space, V, CG_OPEN_READ);
        expect(image, 'B', 8192, 0);
        expect(image, value, 4096, 16384);
        cg_image_unref(image);
    }
}

/* One is killed; its successor, with another run directory, is killed at any step; whoever comes
 * then, with a third, has all of it, and so has everybody after that. */
static void test_successor_killed(void **state)
{
    static void (*const successors[])(struct cg_space *) = { write_and_end, write_beside_reader,
                                                             make_snapshot };
    static const char *const runs[] = { "c", "b", "a", NULL };

    (void)state;
    unsigned stride = getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND") ? 7 : 1;
    for (size_t i = 0; i < 3; i++) {
        bool killed = true;
        for (unsigned at = 1; killed; at += stride) {
            pool_remove(pool.space, V);
            pool_create(pool.space, V, SIZE);
            use_run("a");
            in_killed_process(write_b);
            use_run("b");
            killed = in_killed_process_at(at, successors[i]);
            in_each_run(runs, 0);
            use_run("c");
            struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
            put(image, 'Z', 4096, 16384);
            expect(image, 'B', 8192, 0);
            cg_image_unref(image);
            in_each_run(runs, 'Z');
            struct cg_name s = pool_name(V "@s");
            cg_space_remove(pool.space, &s, 0, NULL);
        }
    }
}

static void expect_lost(void)
{
    struct cg_name v = pool_name(V), s = pool_name(V "@s");
    struct cg_image *image;
    struct cg_error err;

    /* As another process: this one may still have it open as it was before. */
    struct cg_space *second = pool_second(&pool);
    assert_int_equal(cg_space_open(second, &v, CG_OPEN_READ, &image, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
    cg_space_free(second);
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_WRITE, &image, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
    assert_int_equal(cg_space_snapshot(pool.space, &s, 1, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
}

/* What was acknowledged and not flushed is gone: nobody goes on as if it had never been. */
static void test_run_directory_gone(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    char a[sizeof pool.run + 8], moved[sizeof pool.run + 8], lock[128];
    struct cg_error err;

    (void)state;
    use_run("a");
    in_killed_process(write_b);
    use_run("b");
    snprintf(a, sizeof a, "%s/a", pool.run);
    snprintf(moved, sizeof moved, "%s/moved", pool.run);
    assert_int_equal(rename(a, moved), 0);
    expect_lost();
    assert_int_equal(cg_image_pwrite(image, "x", 1, 4096, 0, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    cg_image_unref(image);
    assert_int_equal(rename(moved, a), 0);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'B', 8192, 0);
    cg_image_unref(image);

    assert_int_equal(cg_tree_remove(AT_FDCWD, a, &err), 0);
    assert_int_equal(mkdir(a, 0700), 0);
    expect_lost();
    snprintf(lock, sizeof lock, "%s/p/v/lock", pool.dir);
    assert_int_equal(unlink(lock), 0);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 0, 8192, 0);
    put(image, 'C', 512, 0);
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'C', 512, 0);
    cg_image_unref(image);
}

static void test_lock_damaged(void **state)
{
    char lock[128];

    (void)state;
    snprintf(lock, sizeof lock, "%s/p/v/lock", pool.dir);
    CG_CLEANUP(cg_close) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, "{\"pid\":12,\"boot\":\"", 19, 0), 19);
    expect_lost();
    assert_int_equal(ftruncate(fd, 0), 0);
    cg_image_unref(pool_open(pool.space, V, CG_OPEN_READ));
}

static void test_run_directory_relative(void **state)
{
    char ret[PATH_MAX];
    struct cg_error err;

    (void)state;
    setenv("COWGATE_RUN", "run", 1);
    assert_int_equal(cg_run_dir(ret, sizeof ret, &err), -EINVAL);
    setenv("COWGATE_RUN", pool.run, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, faults_setup, faults_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_deleted_after_killed), TEST(test_other_json),
        TEST(test_overtaken_by_killed),  TEST(test_map_written_not_synced),
        TEST(test_map_sync_failed),      TEST(test_begin_without_room),
        TEST(test_successor_killed),     TEST(test_run_directory_gone),
        TEST(test_lock_damaged),         TEST(test_run_directory_relative),
        TEST(test_data_sync_unknown),    TEST(test_rewrite_fails),
        TEST(test_begin_fails_late),     TEST(test_zero_beside_growth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
