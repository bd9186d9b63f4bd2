/* A workload on volumes, recorded, cut at every point and replayed as after a crash of the host;
 * and the same with each system call failing once.
 * What must hold is in crash-model.h. */
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
#include "tests/unit/crash-model.h"
#include "tests/unit/cmocka-all.h"

static const struct step long_steps[] = {
    { CREATE, 0, 0 },
    { WRITE, 0, 4096 },
    { WRITE, 4096 + 512, 512 },
    { WRITE, 10000, 20000 },
    { FLUSH, 0, 0 },
    { WRITE, 8192, 4096 },
    { WRITE, 0, 512 },
    { TRIM, 12288, 8192 },
    { WRITE, 13000, 700 },
    { FLUSH, 0, 0 },
    { ZERO, 100, 9000 },
    { WRITE, 100000, 40000 },
    { SNAPSHOT, SNAPSHOT_1, 0 },
    { WRITE, 4096, 100 },
    { WRITE, 90000, 20001 },
    { FUA, 120000, 5000 },
    { TRIM, 0, SIZE },
    { WRITE, SIZE - 700, 700 },
    { FLUSH, 0, 0 },
    { FLUSH, 0, 0 },
    { CLONE, CLONE_1, 0 },
    { WRITE, 20000, 30000 },
    { ZERO, 16384, 65536 },
    { WRITE, 65000, 3000 },
    { SNAPSHOT, SNAPSHOT_2, 0 },
    { UNSNAPSHOT, SNAPSHOT_1, 0 },
    { RECLAIM, 0, 0 },
    { WRITE, 1024, 2048 },
    { CLOSE, 0, 0 },
    { WRITE, 3072, 8192 },
    { RESIZE, GROWN, 0 },
    { WRITE, SIZE - 100, 8000 },
    { FLUSH, 0, 0 },
    { CLONE, CLONE_2, SNAPSHOT_2 + 1 },
    { REMOVE, CLONE_1, 0 },
    { WRITE, 40000, 30000 },
    { ZERO, GROWN - 5000, 5000 },
    { FUA, 0, 100 },
    { RECLAIM, 0, 0 },
    { FLATTEN, 0, 0 },
    { WRITE, 30000, 512 },
    { SNAPSHOT, SNAPSHOT_1, 0 },
    { WRITE, 29000, 9000 },
    { REMOVE, CLONE_2, 0 },
    { UNSNAPSHOT, SNAPSHOT_2, 0 },
    { RECLAIM, 0, 0 },
    { ZERO, 20480, 8192 },
    { WRITE, 36864, 4096 },
    { CLOSE, 0, 0 },
    { UNSNAPSHOT, SNAPSHOT_1, 0 },
    { RECLAIM, 0, 0 },
    { WRITE, 33000, 512 },
};
#define LONG_STEPS (sizeof long_steps / sizeof *long_steps)

/* A clone of a volume with clones of its own, which loses what it shares with the one and keeps
 * what it shares with the others. */
static const struct step sharing_steps[] = {
    { CREATE, 1, 0 },        { WRITE, 3000, 20000 },        { SNAPSHOT, SNAPSHOT_1, 0 },
    { WRITE, 30000, 9000 },  { ZERO, 8192, 8192 },          { CLONE, CLONE_1, 0 },
    { RESIZE, GROWN, 0 },    { FUA, SIZE - 100, 8000 },     { FLATTEN, 0, 0 },
    { WRITE, 12000, 30000 }, { UNSNAPSHOT, SNAPSHOT_1, 0 }, { RECLAIM, 0, 0 },
    { CLOSE, 0, 0 },         { CLONE, CLONE_2, 0 },         { REMOVE, CLONE_1, 0 },
    { FLATTEN, 0, 0 },       { WRITE, 1024, 2048 },
};

#define SHARING_STEPS (sizeof sharing_steps / sizeof *sharing_steps)

/* Those of the test that runs. */
static const struct step *steps;
static unsigned step_total;

/* Under valgrind only every so many points, for time's sake. */
static unsigned stride = 1;

static void test_crash(void **state)
{
    struct cg_image *image = NULL;
    struct cg_error err;
    struct pool pool;

    (void)state;
    crash_plan(steps, step_total);
    pool_setup(&pool);
    recorder_start(pool.dir);
    for (unsigned i = 0; i < step_total; i++) {
        if (crash_perform(pool.space, &image, &steps[i], i, &err) < 0)
            fail_msg("step %u: %s", i, err.message);
        recorder_mark(i + 1);
    }
    cg_image_unref(image);
    size_t count = recorder_stop();
    pool_teardown(&pool);
    for (size_t cut = 0; cut <= count; cut += stride) {
        crash_replay(cut, LOSE_NOTHING, 0, 0);
        crash_replay(cut, LOSE_ALL, 0, 0);
        for (unsigned seed = 1; seed <= 3; seed++)
            crash_replay(cut, LOSE_SOME, seed, 0);
    }
    recorder_free();
}

/* Does a step, after a failure once more with the volume opened again.  True if it failed first. */
static bool persist(struct cg_space *space, struct cg_image **image, unsigned i)
{
    const struct step *s = &steps[i];
    struct cg_error err;
    int r = crash_perform(space, image, s, i, &err);

    if (r == 0)
        return false;
    assert_true(*err.message);
    if (r != -EIO && r != -ENOSPC)
        fail_msg("step %u: %s (%d)", i, err.message, r);
    cg_image_unref(*image);
    *image = NULL;
    r = crash_perform(space, image, s, i, &err);
    bool done = (r == -EEXIST && s->op == SNAPSHOT) ||
                (r == -ENOENT && (s->op == UNSNAPSHOT || s->op == REMOVE));
    if (r < 0 && !done)
        fail_msg("step %u again: %s", i, err.message);
    return true;
}

/* The n-th call fails: returns false if there were fewer. */
static bool sweep_one(unsigned n, int errnum)
{
    struct cg_image *image = NULL;
    struct pool pool;
    char where[100];

    pool_setup(&pool);
    cg_space_free(pool.space);
    pool_move_to_tmpfs(&pool);
    assert_int_equal(mkdir(pool.dir, 0700), 0);
    pool.space = pool_second(&pool);
    snprintf(where, sizeof where, "call %u fails with %d", n, errnum);
    recorder_fail(n, errnum);
    for (unsigned i = 0; i < step_total; i++) {
        persist(pool.space, &image, i);
        /* Exactly what was acknowledged, whatever failed on the way. */
        if (image)
            pool_same(image, crash_history[i + 1].bytes, crash_history[i + 1].size);
    }
    bool reached = recorder_calls() >= n;
    cg_image_unref(image);
    recorder_fail(0, 0);
    pool_reopen(&pool);
    for (unsigned i = 0; i < IMAGES; i++)
        crash_check_image(pool.space, i, step_total, where);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_READ);
    pool_same(image, crash_history[step_total].bytes, crash_history[step_total].size);
    cg_image_unref(image);
    pool_teardown(&pool);
    return reached;
}

static void test_failures(void **state)
{
    static const int errnums[] = { EIO, ENOSPC };

    (void)state;
    crash_plan(steps, step_total);
    for (size_t e = 0; e < 2; e++)
        for (unsigned n = 1; sweep_one(n, errnums[e]); n += stride)
            ;
    for (unsigned bit = 0; stride == 1 && recorder_kinds() >> bit; bit++)
        if (!(recorder_failed() >> bit & 1))
            fail_msg("%s never failed", recorder_kind(bit));
}

/* The n-th call fails; if it is a sync, a crash after each later step is replayed.  Returns false
 * if there were fewer calls. */
static bool lose_one(unsigned n)
{
    unsigned before = recorder_failed_syncs(), failed_at = 0, bad_close = 0;
    struct cg_image *image = NULL;
    size_t at[STEPS_MAX];
    struct pool pool;

    pool_setup(&pool);
    recorder_start(pool.dir);
    recorder_fail(n, EIO);
    for (unsigned i = 0; i < step_total; i++) {
        persist(pool.space, &image, i);
        at[i] = recorder_mark(i + 1);
        if (!failed_at && recorder_failed_syncs() > before) {
            failed_at = i + 1;
            bad_close = steps[i].op == CLOSE ? i : 0;
        }
    }
    bool reached = recorder_calls() >= n;
    recorder_fail(0, 0);
    recorder_stop();
    cg_image_unref(image);
    pool_teardown(&pool);
    for (unsigned i = failed_at; failed_at && i <= step_total; i++)
        crash_replay(at[i - 1], LOSE_ALL, 0, bad_close);
    recorder_free();
    return reached;
}

/* What a failed sync didn't get to the disk, and the kernel calls clean from then on, gets there
 * all the same before a later flush is acknowledged. */
static void test_lost(void **state)
{
    (void)state;
    crash_plan(steps, step_total);
    for (unsigned n = 1; lose_one(n); n += stride)
        ;
}

static int setup_long(void **state)
{
    (void)state;
    steps = long_steps;
    step_total = LONG_STEPS;
    return 0;
}

static int setup_sharing(void **state)
{
    (void)state;
    steps = sharing_steps;
    step_total = SHARING_STEPS;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_crash, setup_long),
        cmocka_unit_test_setup(test_failures, setup_long),
        cmocka_unit_test_setup(test_lost, setup_long),
        cmocka_unit_test_setup(test_crash, setup_sharing),
        cmocka_unit_test_setup(test_failures, setup_sharing),
        cmocka_unit_test_setup(test_lost, setup_sharing),
    };

    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        stride = 53;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
