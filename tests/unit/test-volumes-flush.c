/* Many clients of one volume: a flush by any of them covers what was acknowledged to all, also if
 * it comes while another is under way.  Recorded, and replayed as after a crash of the host.
 *
 * Each writer numbers its writes; before its flush, a flusher looks which have been acknowledged.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "tests/unit/recorder.h"
#include "tests/unit/volumes-pool.h"
#include "tests/unit/cmocka-all.h"

#define V "volumes/p/v"
#define WRITERS 3u
#define FLUSHERS 3u
#define WRITES 160u
#define FLUSHES 40u
#define SNAPSHOTS 3u
#define PLACES 16u /* of a writer, in turn: a block each */
#define BLOCK 4096u
#define SECTOR 512u
#define SIZE (WRITERS * PLACES * BLOCK)
#define MARKS_MAX (FLUSHERS * FLUSHES + SNAPSHOTS)

/* What was durable when it was said to be. */
struct mark {
    size_t at; /* so many operations had been recorded */
    unsigned covers[WRITERS];
};

static struct pool pool;
static struct cg_image *image[WRITERS + FLUSHERS]; /* a client each */
static atomic_uint acknowledged[WRITERS];
static struct mark marks[MARKS_MAX];
static atomic_uint mark_count;

static void look(struct mark *m)
{
    for (unsigned w = 0; w < WRITERS; w++)
        m->covers[w] = atomic_load(&acknowledged[w]);
}

static void remember(struct mark *m)
{
    m->at = recorder_mark(0);
    marks[atomic_fetch_add(&mark_count, 1)] = *m;
}

static uint64_t place_of(unsigned writer, unsigned n)
{
    return (uint64_t)(writer * PLACES + n % PLACES) * BLOCK;
}

/* Which sectors of its block a write covers: some need what was there, or below. */
static void extent_of(unsigned n, unsigned *ret_first, unsigned *ret_end)
{
    unsigned whole = BLOCK / SECTOR;

    *ret_first = n % 3 ? n % whole : 0;
    *ret_end = n % 3 ? cg_min(*ret_first + n % 5 + 1, whole) : whole;
}

static void write_one(struct cg_image *client, unsigned w, unsigned n, unsigned flags)
{
    unsigned first, end;
    struct cg_error err;
    uint32_t buf[BLOCK / 4];

    for (unsigned i = 0; i < BLOCK / 4; i++)
        buf[i] = n;
    extent_of(n, &first, &end);
    assert_int_equal(cg_image_pwrite(client, buf, (end - first) * SECTOR,
                                     place_of(w, n) + first * SECTOR, flags, &err),
                     0);
}

static void *writer(void *arg)
{
    unsigned w = (unsigned)(uintptr_t)arg;

    for (unsigned n = 1; n <= WRITES; n++) {
        while (n > (atomic_load(&mark_count) + 2) * WRITES / (FLUSHERS * FLUSHES))
            sched_yield(); /* so that there is something new to each flush */
        write_one(image[w], w, n, n % 16 == w ? CG_FUA : 0);
        atomic_store(&acknowledged[w], n);
    }
    return NULL;
}

static void *flusher(void *arg)
{
    struct cg_error err;
    struct mark m;

    for (unsigned i = 0; i < FLUSHES; i++) {
        look(&m);
        assert_int_equal(cg_image_flush(arg, &err), 0);
        remember(&m);
    }
    return NULL;
}

static void *snapshotter(void *arg)
{
    struct mark m;
    char name[32];

    (void)arg;
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        while (atomic_load(&acknowledged[0]) < (i + 1) * WRITES / (SNAPSHOTS + 1))
            sched_yield();
        snprintf(name, sizeof name, V "@s%u", i);
        look(&m);
        pool_snapshot(pool.space, name);
        remember(&m);
    }
    return NULL;
}

/* The sector has what its last durable write left, or what a later one did. */
static void check_sector(const uint32_t *have, unsigned w, unsigned place, unsigned sector,
                         unsigned covered, size_t cut)
{
    unsigned first, end, n = have[0], last = 0;
    bool known = n == 0;

    for (unsigned i = 1; i < SECTOR / 4; i++)
        assert_int_equal(have[i], n);
    for (unsigned i = 1; i <= WRITES; i++) {
        extent_of(i, &first, &end);
        if (i % PLACES != place || sector < first || sector >= end)
            continue;
        last = i <= covered ? i : last;
        known |= i == n;
    }
    if (!known || n < last)
        fail_msg("cut at %zu: sector %u of place %u of writer %u is of write %u, not %u", cut,
                 sector, place, w, n, last);
}

static void check(size_t cut, const unsigned *covered, enum recorder_loss loss, unsigned seed)
{
    static uint32_t have[SIZE / 4];
    struct pool replayed;

    pool_setup(&replayed);
    cg_space_free(replayed.space);
    pool_move_to_tmpfs(&replayed);
    recorder_replay(replayed.dir, cut, loss, seed);
    pool_reboot(&replayed);
    replayed.space = pool_second(&replayed);
    struct cg_image *after = pool_open(replayed.space, V, CG_OPEN_READ);
    pool_read(after, have, SIZE, 0);
    for (unsigned i = 0; i < SIZE / SECTOR; i++) {
        unsigned place = i * SECTOR / BLOCK;
        check_sector(have + i * SECTOR / 4, place / PLACES, place % PLACES, i % (BLOCK / SECTOR),
                     covered[place / PLACES], cut);
    }
    cg_image_unref(after);
    pool_teardown(&replayed);
}

static int by_place(const void *a, const void *b)
{
    const struct mark *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

static void setup(unsigned clients)
{
    pool_setup(&pool);
    recorder_start(pool.dir);
    pool_create(pool.space, V, SIZE);
    for (unsigned i = 0; i < clients; i++)
        image[i] = pool_open(pool.space, V, CG_OPEN_WRITE);
}

static void end_clients(unsigned clients)
{
    recorder_in_syncs(NULL);
    recorder_stop();
    for (unsigned i = 0; i < clients; i++)
        cg_image_unref(image[i]);
    pool_teardown(&pool);
}

static unsigned written; /* by the second client: as the first of the writers */
static pthread_t joining;
static bool joins;

static void *flush_third(void *arg)
{
    struct cg_error err;

    (void)arg;
    assert_int_equal(cg_image_flush(image[2], &err), 0);
    return NULL;
}

/* While the first client's flush is under way, the second writes, and the third may want a flush.
 */
static void write_meanwhile(void)
{
    const struct timespec moment = { .tv_nsec = 20000000 };

    recorder_in_syncs(NULL);
    write_one(image[1], 0, ++written, 0);
    if (joins) {
        assert_int_equal(pthread_create(&joining, NULL, flush_third, NULL), 0);
        nanosleep(&moment, NULL); /* in which it could take this flush for its own */
    }
}

/* A write during a flush is the next one's, whether its block is new or not. */
static void test_during_flush(void **state)
{
    size_t at[2 * PLACES], count = 0;
    struct cg_error err;

    (void)state;
    setup(3);
    while (count < 2 * PLACES) {
        write_one(image[1], 0, ++written, 0);
        joins = count % 2;
        recorder_in_syncs(write_meanwhile);
        assert_int_equal(cg_image_flush(image[0], &err), 0);
        if (joins)
            pthread_join(joining, NULL);
        else
            flush_third(NULL);
        at[count++] = recorder_mark(0);
    }
    end_clients(3);
    for (unsigned i = 0; i < count; i++)
        check(at[i], (unsigned[WRITERS]){ 2 * i + 2 }, LOSE_ALL, 0);
    recorder_free();
}

static void slow(void)
{
    const struct timespec moment = { .tv_nsec = 200000 };

    nanosleep(&moment, NULL);
}

static void test_many_clients(void **state)
{
    unsigned covered[WRITERS] = { 0 }, threads = 0, stride = 1;
    pthread_t thread[WRITERS + FLUSHERS + 1];

    (void)state;
    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        stride = 29;
    setup(WRITERS + FLUSHERS);
    recorder_in_syncs(slow);
    for (uintptr_t w = 0; w < WRITERS; w++)
        assert_int_equal(pthread_create(&thread[threads++], NULL, writer, (void *)w), 0);
    for (unsigned f = 0; f < FLUSHERS; f++)
        assert_int_equal(pthread_create(&thread[threads++], NULL, flusher, image[WRITERS + f]), 0);
    assert_int_equal(pthread_create(&thread[threads++], NULL, snapshotter, NULL), 0);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    end_clients(WRITERS + FLUSHERS);

    qsort(marks, mark_count, sizeof *marks, by_place);
    for (unsigned i = 0; i < mark_count; i++) {
        for (unsigned w = 0; w < WRITERS; w++)
            covered[w] = cg_max(covered[w], marks[i].covers[w]);
        if (i % stride)
            continue;
        check(marks[i].at, covered, LOSE_ALL, 0);
        check(marks[i].at, covered, LOSE_SOME, i);
    }
    recorder_free();
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(test_during_flush),
                                               cmocka_unit_test(test_many_clients) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
