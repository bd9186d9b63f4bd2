/* Random operations on volumes, compared with plain memory.  The part of the volume that is used
 * lies across the border of two windows of the map and ends within a block.
 *
 * Run with a seed and a number of rounds to look for more: test-volumes-oracle SEED ROUNDS. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/volumes/index.h"
#include "tests/unit/volumes-pool.h"
#include "tests/unit/cmocka-all.h"

#define KIB UINT64_C(1024)
#define BASE (64 * 1024 * KIB - 256 * KIB) /* a window of the map ends 256 KiB later */
#define LENGTH (600 * KIB + 1536)
#define GROWN (700 * KIB + 512)
#define SNAPSHOTS 4

static unsigned seed = 1, rounds = 1500;

struct model {
    uint8_t bytes[GROWN];
    uint64_t size;
};

struct test {
    struct pool pool;
    unsigned random;
    struct cg_image *image;
    char name[64];
    unsigned names;
    struct model now, flushed;
    struct model snapshot[SNAPSHOTS];
    bool has[SNAPSHOTS];
    char original[64]; /* what it was cloned from, if that is still there */
    struct model original_has;
};

static unsigned next(unsigned *state, unsigned below)
{
    *state = *state * 1103515245 + 12345;
    return (*state >> 8) % below;
}

static void open_image(struct test *t)
{
    t->image = pool_open(t->pool.space, t->name, CG_OPEN_WRITE);
}

static void compare(struct test *t, struct cg_image *image, const struct model *want)
{
    static uint8_t have[GROWN];

    assert_int_equal(cg_image_size(image), BASE + want->size);
    pool_read(image, have, want->size, BASE);
    for (uint64_t i = 0; i < want->size; i++)
        if (have[i] != want->bytes[i])
            fail_msg("%s: byte %llu is %02x, not %02x (seed %u)", t->name, (unsigned long long)i,
                     have[i], want->bytes[i], seed);
    pool_read(image, have, 65536, BASE - 65536);
    assert_true(cg_is_zero(have, 65536));
}

/* Holes read as zeros. */
static int check_hole(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    const struct model *want = opaque;

    (void)err;
    if (e->type != CG_DATA)
        assert_true(cg_is_zero(want->bytes + (e->off - BASE), e->len));
    return 0;
}

static void random_range(struct test *t, uint64_t *ret_off, uint64_t *ret_len)
{
    static const uint32_t lengths[] = { 1, 512, 513, 4096, 5000, 12288, 70000, 200000 };
    uint64_t len = lengths[next(&t->random, 8)];
    uint64_t off = next(&t->random, (unsigned)t->now.size);

    if (next(&t->random, 2))
        off = cg_round_down(off, next(&t->random, 2) ? 4096 : 512);
    if (next(&t->random, 8) == 0 || len > t->now.size - off)
        len = t->now.size - off;
    *ret_off = off;
    *ret_len = len;
}

static void op_write(struct test *t)
{
    static uint8_t buf[GROWN];
    struct cg_error err;
    uint64_t off, len;

    random_range(t, &off, &len);
    for (uint64_t i = 0; i < len; i++)
        buf[i] = (uint8_t)next(&t->random, 256);
    assert_int_equal(
        cg_image_pwrite(t->image, buf, len, BASE + off, next(&t->random, 8) ? 0 : CG_FUA, &err), 0);
    memcpy(t->now.bytes + off, buf, len);
}

static void op_zero(struct test *t)
{
    struct cg_error err;
    uint64_t off, len;

    random_range(t, &off, &len);
    assert_int_equal(cg_image_zero(t->image, len, BASE + off, CG_MAY_TRIM, &err), 0);
    memset(t->now.bytes + off, 0, len);
}

static void op_trim(struct test *t)
{
    struct cg_error err;
    uint64_t off, len;

    random_range(t, &off, &len);
    assert_int_equal(cg_image_trim(t->image, len, BASE + off, 0, &err), 0);
    uint64_t first = cg_round_up(off, 4096), end = cg_round_down(off + len, 4096);
    if (off + len == t->now.size)
        end = t->now.size;
    if (first < end)
        memset(t->now.bytes + first, 0, end - first);
}

static void op_read(struct test *t)
{
    static uint8_t buf[GROWN];
    struct cg_error err;
    uint64_t off, len;

    random_range(t, &off, &len);
    pool_read(t->image, buf, len, BASE + off);
    if (len)
        assert_memory_equal(buf, t->now.bytes + off, len);
    assert_int_equal(cg_image_walk(t->image, BASE + off, len, check_hole, &t->now, &err), 0);
}

static void op_flush(struct test *t)
{
    struct cg_error err;

    assert_int_equal(cg_image_flush(t->image, &err), 0);
    t->flushed = t->now;
}

static const char *snapshot_name(struct test *t, unsigned i)
{
    static char name[80];

    snprintf(name, sizeof name, "%s@s%u", t->name, i);
    return name;
}

static void op_snapshot(struct test *t)
{
    unsigned i = next(&t->random, SNAPSHOTS);

    if (t->has[i]) {
        struct cg_image *image = pool_open(t->pool.space, snapshot_name(t, i), CG_OPEN_READ);
        compare(t, image, &t->snapshot[i]);
        cg_image_unref(image);
        pool_remove(t->pool.space, snapshot_name(t, i));
    } else {
        pool_snapshot(t->pool.space, snapshot_name(t, i));
        t->snapshot[i] = t->now;
    }
    t->has[i] = !t->has[i];
}

static void op_rollback(struct test *t)
{
    unsigned i = next(&t->random, SNAPSHOTS);
    struct cg_error err;

    if (!t->has[i])
        return;
    struct cg_name name = pool_name(snapshot_name(t, i));
    int r = cg_space_rollback(t->pool.space, &name, &err);
    if (r < 0)
        fail_msg("%s", err.message);
    /* Who has it open and hasn't written sees the volume of then. */
    cg_image_unref(t->image);
    open_image(t);
    t->now = t->flushed = t->snapshot[i];
}

/* What the volume was cloned from goes, now or later, as it was then. */
static void forget_original(struct test *t)
{
    struct cg_error err;

    if (!*t->original)
        return;
    struct cg_name old = pool_name(t->original);
    struct cg_image *image = pool_open(t->pool.space, t->original, CG_OPEN_READ);
    compare(t, image, &t->original_has);
    cg_image_unref(image);
    assert_int_equal(cg_space_remove(t->pool.space, &old, CG_REMOVE_SNAPSHOTS, &err), 0);
    t->original[0] = '\0';
}

static void op_clone(struct test *t)
{
    char name[64];

    if (next(&t->random, 4))
        return;
    snprintf(name, sizeof name, "volumes/p/v%u", ++t->names);
    pool_clone(t->pool.space, t->name, name);
    cg_image_unref(t->image);
    forget_original(t);
    strcpy(t->original, t->name);
    t->original_has = t->now;
    if (next(&t->random, 2))
        forget_original(t);
    strcpy(t->name, name);
    memset(t->has, 0, sizeof t->has);
    open_image(t);
}

static void op_resize(struct test *t)
{
    struct cg_name name = pool_name(t->name);
    struct cg_error err;
    uint64_t size = t->now.size + 512 * next(&t->random, 40);

    if (size > GROWN)
        return;
    assert_int_equal(cg_space_resize(t->pool.space, &name, BASE + size, &err), 0);
    memset(t->now.bytes + t->now.size, 0, size - t->now.size);
    t->now.size = size;
    cg_image_unref(t->image);
    open_image(t);
}

static void op_flatten(struct test *t)
{
    struct cg_name name = pool_name(t->name);
    struct cg_error err;

    if (next(&t->random, 10))
        return;
    bool begin_only = next(&t->random, 2);
    int r = cg_space_flatten(t->pool.space, &name, 0, begin_only ? pool_cancel : NULL, NULL, &err);
    assert_true(r == 0 || (begin_only && r == -ECANCELED));
    if (r == 0 && !*t->original)
        assert_string_equal(pool_held(), "");
}

/* With the image open, written or not, or with nobody there. */
static void op_reclaim(struct test *t)
{
    struct cg_name name = pool_name(t->name);
    struct cg_error err;
    bool closed = next(&t->random, 2);

    if (closed)
        cg_image_unref(t->image);
    int r = cg_space_reclaim(t->pool.space, &name, NULL, NULL, &err);
    if (r < 0)
        fail_msg("%s", err.message);
    if (closed) {
        assert_int_equal(r, 0);
        open_image(t);
        compare(t, t->image, &t->now);
    }
}

/* Everything acknowledged is there after an orderly end. */
static void op_reopen(struct test *t)
{
    cg_image_unref(t->image);
    pool_reopen(&t->pool);
    if (next(&t->random, 2))
        pool_reboot(&t->pool);
    cg_index_set_limit(next(&t->random, 2) ? next(&t->random, 2000) : CG_INDEX_LIMIT);
    open_image(t);
    compare(t, t->image, &t->now);
}

static void (*const ops[])(struct test *) = { op_write,    op_write,  op_write, op_write,
                                              op_write,    op_zero,   op_trim,  op_read,
                                              op_read,     op_read,   op_flush, op_resize,
                                              op_snapshot, op_reopen, op_clone, op_rollback,
                                              op_flatten,  op_reclaim };

static void run(struct test *t)
{
    for (unsigned i = 0; i < rounds; i++) {
        ops[next(&t->random, sizeof ops / sizeof *ops)](t);
        if (i % 64 == 0)
            compare(t, t->image, &t->now);
    }
    compare(t, t->image, &t->now);
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        if (t->has[i])
            op_snapshot(t);
    cg_image_unref(t->image);
    forget_original(t);
    pool_teardown(&t->pool);
}

static void test_random(void **state)
{
    static struct test t;

    (void)state;
    t = (struct test){ .random = seed, .now.size = LENGTH, .name = "volumes/p/v" };
    pool_setup(&t.pool);
    pool_create(t.pool.space, t.name, BASE + LENGTH);
    open_image(&t);
    run(&t);
}

/* Over a parent that ends before the clone's last block does. */
static void test_random_clone(void **state)
{
    static struct test t;
    uint8_t *parent = calloc(1, BASE + LENGTH);

    (void)state;
    t = (struct test){ .random = seed + 1, .now.size = LENGTH, .name = "volumes/p/v" };
    for (uint64_t i = 0; i < LENGTH; i++) /* some blocks zero */
        t.now.bytes[i] = i / 8192 % 3 ? (uint8_t)(i * 7 + i / 4096) : 0;
    memcpy(parent + BASE, t.now.bytes, LENGTH);
    pool_set_parent(parent, BASE + LENGTH);
    pool_setup(&t.pool);
    pool_clone(t.pool.space, POOL_PARENT, t.name);
    assert_string_not_equal(pool_held(), "");
    open_image(&t);
    run(&t);
    free(parent);
}

/* Threads: each owns every fourth piece of 1536 bytes, so that blocks are shared, and knows what
 * is in it; others trim, flush, snapshot and flatten meanwhile. */
#define THREADS 4
#define PIECE 1536u
#define PIECES 256u

struct shared {
    struct pool pool;
    struct cg_image *image;
    unsigned rounds;
    pthread_barrier_t start;
};

struct thread {
    pthread_t thread;
    struct shared *s;
    unsigned number;
    uint8_t want[PIECES];
};

static void *writer_main(void *arg)
{
    struct thread *t = arg;
    uint8_t buf[PIECE];
    unsigned random = seed * 77 + t->number;
    struct cg_error err;

    pthread_barrier_wait(&t->s->start);
    for (unsigned i = 0; i < t->s->rounds; i++) {
        unsigned k = next(&random, PIECES / THREADS) * THREADS + t->number;
        uint64_t off = BASE + (uint64_t)k * PIECE;
        if (next(&random, 3) == 0) {
            if (cg_image_pread(t->s->image, buf, PIECE, off, &err) < 0)
                return (void *)"a read failed";
            for (unsigned b = 0; b < PIECE; b++)
                if (buf[b] != t->want[k])
                    return (void *)"a piece has not what its only writer wrote";
            continue;
        }
        uint8_t value = (uint8_t)next(&random, 4);
        memset(buf, value, PIECE);
        int r = value ? cg_image_pwrite(t->s->image, buf, PIECE, off, 0, &err)
                      : cg_image_zero(t->s->image, PIECE, off, 0, &err);
        if (r < 0)
            return (void *)"a write failed";
        t->want[k] = value;
    }
    return NULL;
}

static void *disturber_main(void *arg)
{
    struct thread *t = arg;
    struct cg_name v = pool_name("volumes/p/v"), s = pool_name("volumes/p/v@s");
    struct cg_error err;

    pthread_barrier_wait(&t->s->start);
    for (unsigned i = 0; i < t->s->rounds / 100; i++) {
        cg_index_set_limit(i % 3 ? 500 * (i % 3) : CG_INDEX_LIMIT);
        if (cg_space_snapshot(t->s->pool.space, &s, 1, &err) < 0 ||
            cg_image_flush(t->s->image, &err) < 0 ||
            cg_image_trim(t->s->image, 65536, BASE + PIECES * PIECE + 65536, 0, &err) < 0 ||
            cg_space_remove(t->s->pool.space, &s, 0, &err) < 0 ||
            cg_space_reclaim(t->s->pool.space, &v, NULL, NULL, &err) < 0)
            return strdup(err.message);
        if (i == 3 && cg_space_flatten(t->s->pool.space, &v, 0, NULL, NULL, &err) < 0)
            return strdup(err.message);
    }
    return NULL;
}

static void test_threads(void **state)
{
    static struct shared s;
    static struct thread threads[THREADS + 1];
    uint8_t *parent = calloc(1, BASE + LENGTH);
    void *result[THREADS + 1];

    (void)state;
    s = (struct shared){ .rounds = rounds * 2 };
    memset(threads, 0, sizeof threads);
    memset(parent + BASE, 3, PIECES * PIECE);
    pool_set_parent(parent, BASE + LENGTH);
    pool_setup(&s.pool);
    pool_clone(s.pool.space, POOL_PARENT, "volumes/p/v");
    s.image = pool_open(s.pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pthread_barrier_init(&s.start, NULL, THREADS + 1);
    for (unsigned i = 0; i <= THREADS; i++) {
        threads[i].s = &s;
        threads[i].number = i;
        memset(threads[i].want, 3, PIECES);
        assert_int_equal(pthread_create(&threads[i].thread, NULL,
                                        i < THREADS ? writer_main : disturber_main, &threads[i]),
                         0);
    }
    for (unsigned i = 0; i <= THREADS; i++)
        pthread_join(threads[i].thread, &result[i]);
    for (unsigned i = 0; i <= THREADS; i++)
        if (result[i])
            fail_msg("thread %u: %s (seed %u)", i, (char *)result[i], seed);
    cg_image_unref(s.image);
    pool_reopen(&s.pool);
    pool_reboot(&s.pool);
    s.image = pool_open(s.pool.space, "volumes/p/v", CG_OPEN_READ);
    for (unsigned k = 0; k < PIECES; k++) {
        uint8_t buf[PIECE];
        pool_read(s.image, buf, PIECE, BASE + (uint64_t)k * PIECE);
        for (unsigned b = 0; b < PIECE; b++)
            assert_int_equal(buf[b], threads[k % THREADS].want[k]);
    }
    cg_image_unref(s.image);
    pthread_barrier_destroy(&s.start);
    pool_teardown(&s.pool);
    free(parent);
}

/* Connections come and go: each opens, writes at once, closes; another process makes snapshots. */
static void *connection_main(void *arg)
{
    struct thread *t = arg;
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_image *image;
    struct cg_error err;
    uint8_t buf[PIECE], have[PIECE];

    pthread_barrier_wait(&t->s->start);
    for (unsigned i = 0; i < t->s->rounds; i++) {
        uint64_t off = BASE + (uint64_t)t->number * PIECE;
        memset(buf, (int)i, PIECE);
        if (cg_space_open(t->s->pool.space, &v, CG_OPEN_WRITE, &image, &err) < 0 ||
            cg_image_pwrite(image, buf, PIECE, off, 0, &err) < 0 ||
            cg_image_pread(image, have, PIECE, off, &err) < 0)
            return strdup(err.message);
        cg_image_unref(image);
        if (memcmp(buf, have, PIECE) != 0)
            return (void *)"a piece has not what was written";
    }
    return NULL;
}

static void *snapshots_main(void *arg)
{
    struct thread *t = arg;
    struct cg_name s = pool_name("volumes/p/v@s");
    struct cg_space *second = pool_second(&t->s->pool);
    struct cg_error err;

    pthread_barrier_wait(&t->s->start);
    for (unsigned i = 0; i < t->s->rounds / 4; i++)
        if (cg_space_snapshot(second, &s, 1, &err) < 0 ||
            cg_space_remove(second, &s, 0, &err) < 0 ||
            cg_space_reclaim(second, &s, NULL, NULL, &err) < 0)
            return strdup(err.message);
    cg_space_free(second);
    return NULL;
}

static void test_connections(void **state)
{
    static struct shared s;
    static struct thread threads[THREADS + 1];
    void *result[THREADS + 1];

    (void)state;
    s = (struct shared){ .rounds = rounds / 20 };
    pool_setup(&s.pool);
    pool_create(s.pool.space, "volumes/p/v", BASE + LENGTH);
    pthread_barrier_init(&s.start, NULL, THREADS + 1);
    for (unsigned i = 0; i <= THREADS; i++) {
        threads[i] = (struct thread){ .s = &s, .number = i };
        assert_int_equal(pthread_create(&threads[i].thread, NULL,
                                        i < THREADS ? connection_main : snapshots_main,
                                        &threads[i]),
                         0);
    }
    for (unsigned i = 0; i <= THREADS; i++)
        pthread_join(threads[i].thread, &result[i]);
    for (unsigned i = 0; i <= THREADS; i++)
        if (result[i])
            fail_msg("thread %u: %s", i, (char *)result[i]);
    struct cg_image *image = pool_open(s.pool.space, "volumes/p/v", CG_OPEN_READ);
    for (unsigned i = 0; i < THREADS; i++) {
        uint8_t have[PIECE];
        pool_read(image, have, PIECE, BASE + i * PIECE);
        for (unsigned b = 0; b < PIECE; b++)
            assert_int_equal(have[b], (uint8_t)(s.rounds - 1));
    }
    cg_image_unref(image);
    pthread_barrier_destroy(&s.start);
    pool_teardown(&s.pool);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_random_clone),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_connections),
    };

    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        rounds /= 10;
    if (argc > 2) {
        seed = (unsigned)atoi(argv[1]);
        rounds = (unsigned)atoi(argv[2]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
