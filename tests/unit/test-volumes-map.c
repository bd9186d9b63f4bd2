/* States are read while their windows move to the working map, and the memory that they were in is
 * given back. */
#include "config.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/layer.h"
#include "core/volumes/map.h"
#include "tests/unit/scratch.h"
#include "tests/unit/cmocka-all.h"

#define WINDOWS 2048u
#define READERS 3
/* Of each window: zero from the start; the next two become it.  So far back that a look at all of
 * a window takes its time. */
#define BLOCK 16000u

static struct cg_layer *layer;
static _Atomic uint64_t moving; /* the window that moves now */
static atomic_uint ready;

static uint64_t block_in(uint64_t window)
{
    return window * CG_MAP_WINDOW_BLOCKS + BLOCK;
}

/* What is wrong with a window; NULL for nothing. */
static const char *check_window(uint64_t window)
{
    uint64_t words[CG_MAP_WINDOW / 8], count;
    enum cg_state state;
    struct cg_error err;
    bool any;

    if (cg_layer_run(layer, block_in(window), 10, &state, &count, &err) < 0)
        return "a state can't be read";
    if (state != CG_STATE_ZERO || (count != 1 && count != 3))
        return "a state was lost";
    if (cg_layer_run(layer, block_in(window) - BLOCK, CG_MAP_WINDOW_BLOCKS, &state, &count, &err) <
            0 ||
        state != CG_STATE_ABSENT || count != BLOCK)
        return "the states before it aren't those that they were";
    if (cg_layer_words(layer, window, 0, CG_MAP_WINDOW / 8, words, &any, &err) < 0 || !any)
        return "a window was lost";
    uint64_t got = words[BLOCK / 32] >> 2 * (BLOCK % 32);
    return (got & 3) == CG_STATE_ZERO ? NULL : "a state of a window was lost";
}

static void *read_all(void *opaque)
{
    const char *wrong = NULL;
    uint64_t w;

    (void)opaque;
    for (w = 0; !wrong && w < WINDOWS; w++) /* all are loaded before they move */
        wrong = check_window(w);
    atomic_fetch_add(&ready, 1);
    while (!wrong && (w = atomic_load(&moving)) < WINDOWS)
        wrong = check_window(w);
    for (w = 0; !wrong && w < WINDOWS; w++)
        wrong = check_window(w);
    return (void *)wrong;
}

static void test_moving(void **state)
{
    CG_CLEANUP(cg_close) int dirfd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char run[64], uuid[CG_UUID_LEN + 1];
    pthread_t thread[READERS];
    struct cg_error err;
    void *wrong;

    (void)state;
    snprintf(run, sizeof run, "%s/run", scratch);
    assert_int_equal(mkdirat(dirfd, "run", 0700), 0);
    cg_uuid(uuid);
    assert_int_equal(
        cg_layer_create(dirfd, uuid, (uint64_t)WINDOWS * CG_MAP_WINDOW_BLOCKS * CG_BLOCK, &err), 0);
    assert_int_equal(cg_layer_open(dirfd, uuid, &layer, &err), 0);
    assert_int_equal(cg_layer_begin(layer, run, &err), 0);
    for (uint64_t w = 0; w < WINDOWS; w++)
        assert_int_equal(cg_layer_zero(layer, block_in(w), 1, &err), 0);
    assert_int_equal(cg_layer_end(layer, &err), 0);
    cg_layer_unref(layer);

    assert_int_equal(cg_layer_open(dirfd, uuid, &layer, &err), 0);
    assert_int_equal(cg_layer_begin(layer, run, &err), 0);
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_all, NULL), 0);
    while (atomic_load(&ready) < READERS)
        sched_yield();
    for (uint64_t w = 0; w < WINDOWS; w++) {
        atomic_store(&moving, w);
        assert_int_equal(cg_layer_zero(layer, block_in(w) + 1, 2, &err), 0);
    }
    atomic_store(&moving, WINDOWS);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(thread[i], &wrong);
        if (wrong)
            fail_msg("%s", (char *)wrong);
    }
    cg_layer_unref(layer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_moving, scratch_setup, scratch_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
