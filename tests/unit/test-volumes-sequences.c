/* All sequences of up to three operations on a small volume that has a parent and a snapshot, cut
 * at each point of the last one, as after a crash of the host.  (What comes before the last is a
 * shorter sequence.)  With $COWGATE_TEST_LONG all kinds of losses at each point, else they take
 * turns. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/crash-model.h"
#include "tests/unit/cmocka-all.h"

static const struct step before[] = {
    { CREATE, 0, 0 },
    { WRITE, 3000, 50000 },
    { SNAPSHOT, SNAPSHOT_1, 0 },
    { WRITE, 10000, 20000 },
};
#define BEFORE (sizeof before / sizeof *before)

static const struct step ops[] = {
    { WRITE, 12000, 30000 },
    { WRITE, 8192, 8192 },
    { FUA, 20480, 512 },
    { ZERO, 16000, 20000 },
    { TRIM, 4096, 16384 },
    { FLUSH, 0, 0 },
    { SNAPSHOT, SNAPSHOT_2, 0 },
    { CLONE, CLONE_1, 0 },
    { DELETE, SNAPSHOT_1, 0 },
    { DELETE, SNAPSHOT_2, 0 },
    { FLATTEN, 0, 0 },
    { RESIZE, GROWN, 0 },
    { CLOSE, 0, 0 },
    { ROLLBACK, SNAPSHOT_1, 0 },
};
#define OPS (sizeof ops / sizeof *ops)

/* With sanitizers all takes several times as long. */
#ifdef __SANITIZE_ADDRESS__
#define LONGEST 2
#else
#define LONGEST 3
#endif

static unsigned stride = 1, turn;
static bool all_losses;

/* True if the step can be done after those that were planned. */
static bool makes_sense(const struct step *s, const struct moment *m)
{
    switch (s->op) {
    case SNAPSHOT:
    case CLONE:
        return !m->value[s->off];
    case DELETE:
    case ROLLBACK:
        return m->value[s->off];
    case RESIZE:
        return m->size < s->off;
    default:
        return true;
    }
}

static void replay(size_t cut)
{
    if (all_losses) {
        crash_replay(cut, LOSE_NOTHING, 0, 0);
        crash_replay(cut, LOSE_ALL, 0, 0);
        for (unsigned seed = 1; seed <= 4; seed++)
            crash_replay(cut, LOSE_SOME, seed, 0);
        return;
    }
    static const enum recorder_loss losses[] = { LOSE_SOME, LOSE_ALL, LOSE_SOME, LOSE_NOTHING };
    if (++turn % stride == 0)
        crash_replay(cut, losses[turn / stride % 4], turn / stride, 0);
}

static void try(const struct step *steps, unsigned count)
{
    struct cg_image *image = NULL;
    size_t last = 0, said = 0;
    struct pool pool;
    struct cg_error err;

    for (unsigned i = BEFORE; i < count; i++) /* their numbers in enum op */
        said +=
            (size_t)snprintf(crash_what + said, sizeof crash_what - said, "%d ", (int)steps[i].op);
    pool_setup(&pool);
    cg_space_free(pool.space);
    pool_move_to_tmpfs(&pool);
    assert_int_equal(mkdir(pool.dir, 0700), 0);
    pool.space = pool_second(&pool);
    recorder_start(pool.dir);
    for (unsigned i = 0; i < count; i++) {
        if (crash_perform(pool.space, &image, &steps[i], i, &err) < 0)
            fail_msg("%s: step %u: %s", crash_what, i, err.message);
        size_t n = recorder_mark(i + 1);
        last = i + 1 < count ? n : last;
    }
    size_t end = recorder_stop();
    cg_image_unref(image);
    pool_teardown(&pool);
    for (size_t cut = last; cut <= end; cut++)
        replay(cut);
    recorder_free();
}

static void extend(struct step *steps, unsigned count, unsigned more)
{
    for (size_t i = 0; more > 0 && i < OPS; i++) {
        crash_plan(steps, count);
        if (!makes_sense(&ops[i], &crash_history[count]))
            continue;
        steps[count] = ops[i];
        crash_plan(steps, count + 1);
        try(steps, count + 1);
        extend(steps, count + 1, more - 1);
    }
}

static void test_sequences(void **state)
{
    struct step steps[STEPS_MAX];

    (void)state;
    memcpy(steps, before, sizeof before);
    extend(steps, BEFORE, all_losses ? 3 : stride > 1 ? 1 : LONGEST);
}

/* The same, shorter, for a clone of a clone, which shares layers with that. */
static void test_sharing(void **state)
{
    struct step steps[STEPS_MAX];

    (void)state;
    memcpy(steps, before, sizeof before);
    steps[0].off = 1;
    extend(steps, BEFORE, all_losses ? 3 : stride > 1 ? 1 : 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_sharing),
    };

    all_losses = getenv("COWGATE_TEST_LONG");
    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        stride = 53;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
