/* Somebody merges beside somebody who opens or clones: nobody gets a mixture. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/volumes-merging.h"
#include "tests/unit/cmocka-all.h"

/* The volume, of which two parts are written and one between them isn't, goes two generations on,
 * and what is below that is merged, or half merged. */
static struct cg_image *live;
static char generation;
static bool half;
static pthread_t opener;

static void put_generation(void)
{
    put(live, generation, 65536, 0);
    put(live, generation, SIZE - 131072, 131072);
}

static void expect_generation(struct cg_image *image, char value)
{
    expect(image, value, 65536, 0);
    expect(image, 0, 65536, 65536);
    expect(image, value, SIZE - 131072, 131072);
}

static void go_on(void)
{
    if (!pthread_equal(pthread_self(), opener)) /* the writer's, which is asked to seal */
        return;
    for (int i = 0; i < 2; i++) {
        generation++;
        put_generation();
        struct cg_space *other = pool_second(&pool);
        struct cg_image *reader = pool_open(other, V, CG_OPEN_READ);
        expect_generation(reader, generation);
        cg_image_unref(reader);
        cg_space_free(other);
    }
    struct cg_name v = pool_name(V);
    struct cg_error err;
    if (half)
        cg_space_reclaim(pool.space, &v, pool_cancel, NULL, &err);
    else
        reclaim();
}

static void expect_one_moment(const char *name, struct cg_space *space)
{
    struct cg_image *image = pool_open(space, name, CG_OPEN_READ);
    uint8_t first;

    pool_read(image, &first, 1, 0);
    assert_true(first > 0 && first <= generation);
    expect_generation(image, (char)first);
    cg_image_unref(image);
}

/* Who was told what is sealed, and hasn't locked it yet, doesn't get a mixture. */
static void test_merged_beside_open(void **state)
{
    (void)state;
    bool acted = true;
    opener = pthread_self();
    for (unsigned at = 1; acted; at += half, half = !half) {
        generation = 1;
        live = pool_open(pool.space, V, CG_OPEN_WRITE);
        put_generation();
        hook.act = go_on;
        hook.act_at_flock = at;
        expect_one_moment(V, second);
        acted = hook.act_at_flock == 0;
        hook.act_at_flock = 0;
        reclaim();
        expect_generation(live, generation);
        cg_image_unref(live);
        reclaim();
        assert_int_equal(layers(), 1);
        expect_v(generation, 65536, 0);
    }
}

static void test_merged_beside_clone(void **state)
{
    (void)state;
    opener = pthread_self();
    for (int by_link = 0; by_link < 2; by_link++) {
        bool acted = true;
        for (unsigned at = 1; acted; at += half, half = !half) {
            _Atomic unsigned *hooked = by_link ? &hook.act_at_link : &hook.act_at_flock;
            generation = 1;
            live = pool_open(pool.space, V, CG_OPEN_WRITE);
            put_generation();
            hook.act = go_on;
            *hooked = at;
            pool_clone(second, V, "volumes/p/c");
            acted = *hooked == 0;
            *hooked = 0;
            expect_one_moment("volumes/p/c", second);
            reclaim();
            cg_image_unref(live);
            expect_one_moment("volumes/p/c", second);
            pool_remove(second, "volumes/p/c");
            assert_int_equal(reclaim(), 0);
            assert_int_equal(layers(), 1);
            expect_v(generation, 65536, 0);
        }
    }
}

/* Does what it's told: clones, with a pause before its flock number `at`. */
static struct {
    pid_t pid;
    int tell, hear;
} cloner;

static void talk(int to, char what, int from, char *ret)
{
    assert_int_equal(write(to, &what, 1), 1);
    assert_int_equal(read(from, ret, 1), 1);
}

static void pause_clone(void)
{
    char c;

    talk(cloner.tell, 'p', cloner.hear, &c);
}

static void clone_as_told(unsigned at)
{
    struct cg_space *space = pool_second(&pool);
    char c = 0;

    if (read(cloner.hear, &c, 1) != 1)
        _exit(1);
    hook.act = pause_clone;
    hook.act_at_flock = at;
    pool_clone(space, V, "volumes/p/c");
    _exit(write(cloner.tell, "d", 1) != 1);
}

/* Before anything is open here: its locks would be the child's, too. */
static void start_cloner(unsigned at)
{
    int down[2], up[2];

    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    cloner.pid = fork();
    cloner.hear = cloner.pid ? up[0] : down[0];
    cloner.tell = cloner.pid ? down[1] : up[1];
    close(cloner.pid ? up[1] : down[1]);
    close(cloner.pid ? down[0] : up[0]);
    if (cloner.pid == 0)
        clone_as_told(at);
}

static void finish_clone(void)
{
    char c;

    talk(cloner.tell, 'r', cloner.hear, &c);
    assert_int_equal(c, 'd');
}

static void end_cloner(void)
{
    int status;

    assert_int_equal(waitpid(cloner.pid, &status, 0), cloner.pid);
    assert_int_equal(status, 0);
    close(cloner.tell);
    close(cloner.hear);
}

/* The other way round: the clone gets done while this process is about to merge. */
static void test_cloned_beside_merge(void **state)
{
    char c = 'p';

    (void)state;
    for (unsigned at = 1; c == 'p'; at++) {
        for (unsigned by = 1; by <= 2; by++) { /* before all else, and before the lower is locked */
            start_cloner(at);
            live = pool_open(pool.space, V, CG_OPEN_WRITE);
            put(live, 1, SIZE, 0);
            talk(cloner.tell, 'g', cloner.hear, &c);
            if (c == 'p' && layers() < 2) { /* it is yet to ask what is sealed */
                finish_clone();
            } else if (c == 'p') {
                put(live, 2, SIZE, 0);
                hook.act = finish_clone;
                hook.act_at_flock = by;
                reclaim();
                if (hook.act_at_flock) /* it's linked already */
                    finish_clone();
                hook.act_at_flock = 0;
            }
            end_cloner();
            expect_in("volumes/p/c", 1, SIZE, 0);
            cg_image_unref(live);
            pool_remove(second, "volumes/p/c");
            pool_remove(second, V);
            pool_create(second, V, SIZE);
        }
    }
}

static void write_unflushed(struct cg_space *space)
{
    put(pool_open(space, V, CG_OPEN_WRITE), 'B', 4096, 8192);
}

/* The empty layer that was put above what is to be cloned is merged away, and somebody writes below
 * where it was, and is killed. */
static void write_into_sealed(void)
{
    if (volume_is_locked() || layers() < 2)
        return;
    assert_int_equal(reclaim(), 0);
    in_killed_process(write_unflushed);
}

static char byte_of(const char *name, uint64_t off)
{
    struct cg_space *space = pool_second(&pool);
    struct cg_image *image = pool_open(space, name, CG_OPEN_READ);
    char byte;

    pool_read(image, &byte, 1, off);
    cg_image_unref(image);
    cg_space_free(space);
    return byte;
}

/* What was sealed is written again before it's cloned: the clone has what it has for good. */
static void test_cloned_beside_writer(void **state)
{
    bool acted = true;

    (void)state;
    for (unsigned at = 1; acted; at++) {
        write_v(pool.space, 'A', 4096, 0);
        hook.act = write_into_sealed;
        hook.act_at_flock = at;
        pool_clone(second, V, "volumes/p/c");
        acted = hook.act_at_flock == 0;
        hook.act_at_flock = 0;
        char before = byte_of("volumes/p/c", 8192);
        write_v(pool.space, 'C', 512, 0); /* goes on with what was left */
        expect_in("volumes/p/c", 'A', 4096, 0);
        expect_in("volumes/p/c", before, 4096, 8192);
        pool_remove(second, "volumes/p/c");
        pool_remove(second, V);
        pool_create(second, V, SIZE);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, merging_setup, merging_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_merged_beside_open),
        TEST(test_merged_beside_clone),
        TEST(test_cloned_beside_merge),
        TEST(test_cloned_beside_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
