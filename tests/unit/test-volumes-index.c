/* Chains of many layers with random states, compared with a model of them: what is read, extents
 * and changes are the same however much of the index there is room for, also while several threads
 * read.
 *
 * Run with a seed to look for more: test-volumes-index SEED. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/files.h"
#include "core/volumes/chain.h"
#include "core/volumes/index.h"
#include "tests/unit/scratch.h"
#include "tests/unit/cmocka-all.h"

#define LAYERS 120u
#define BLOCKS 480u /* that are used: around the end of the first window, and the last ones */
#define WINDOW ((uint64_t)CG_MAP_WINDOW_BLOCKS)
#define SIZE ((WINDOW + WINDOW + 150) * CG_BLOCK + 512)
#define GROWN (SIZE + 50 * CG_BLOCK)

static unsigned seed = 1;
#ifdef __SANITIZE_THREAD__
static bool slow = true;
#else
static bool slow; /* this is valgrind */
#endif

static int dirfd_;
static char run_dir[64], uuids[LAYERS][CG_UUID_LEN + 1];
static enum cg_state states[LAYERS][BLOCKS];
static struct cg_layer *layers[LAYERS];

static unsigned next(unsigned *state, unsigned below)
{
    *state = *state * 1103515245 + 12345;
    return (*state >> 8) % below;
}

/* Where block number i of those that are used lies. */
static uint64_t place(unsigned i)
{
    return i < BLOCKS / 2 ? WINDOW - 100 + i : 2 * WINDOW - 40 + (i - BLOCKS / 2);
}

/* The block that lies there, or -1. */
static int used(uint64_t block)
{
    if (block >= place(0) && block < place(0) + BLOCKS / 2)
        return (int)(block - place(0));
    if (block >= place(BLOCKS / 2) && block < place(BLOCKS / 2) + BLOCKS / 2)
        return (int)(block - place(BLOCKS / 2) + BLOCKS / 2);
    return -1;
}

static uint64_t layer_size(unsigned layer)
{
    return layer < 40 ? SIZE : GROWN;
}

/* The bytes of a block in a layer differ from those of all others. */
static void content(unsigned layer, unsigned i, uint8_t ret[static CG_BLOCK])
{
    for (unsigned at = 0; at < CG_BLOCK; at += 8)
        cg_put_le64(ret + at, ((uint64_t)layer << 32 | i << 16 | at) + 1);
}

static void fill_layer(unsigned l, unsigned *random)
{
    static uint8_t buf[CG_BLOCK];
    unsigned kind = next(random, 5), n;
    struct cg_error err;

    for (unsigned i = 0; i < BLOCKS; i += n) {
        enum cg_state state = (enum cg_state)next(random, 3);
        n = kind == 0 ? 1 : 1 + next(random, kind == 1 ? 3 : 60);
        if (kind == 4 || next(random, 3)) /* most blocks come from deep below */
            state = CG_STATE_ABSENT;
        if (kind == 4)
            n = BLOCKS;
        for (unsigned k = i; k < i + n && k < BLOCKS; k++) {
            if ((place(k) + 1) * CG_BLOCK > layer_size(l))
                continue;
            content(l, k, buf);
            int r = state == CG_STATE_DATA
                        ? cg_layer_write(layers[l], buf, CG_BLOCK, place(k) * CG_BLOCK, 0, NULL,
                                         NULL, &err)
                    : state == CG_STATE_ZERO ? cg_layer_zero(layers[l], place(k), 1, &err)
                                             : 0;
            assert_int_equal(r, 0);
            states[l][k] = state;
        }
    }
}

static void open_layers(void)
{
    struct cg_error err;

    for (unsigned l = 0; l < LAYERS; l++)
        if (cg_layer_open(dirfd_, uuids[l], &layers[l], &err) < 0)
            fail_msg("%s", err.message);
}

static void close_layers(void)
{
    for (unsigned l = 0; l < LAYERS; l++)
        cg_layer_unref(layers[l]);
}

static int setup(void **state)
{
    unsigned random = seed;
    struct cg_error err;

    if (scratch_setup(state) < 0)
        return -1;
    snprintf(run_dir, sizeof run_dir, "%s/run", scratch);
    dirfd_ = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mkdirat(dirfd_, "run", 0700) < 0)
        return -1;
    for (unsigned l = 0; l < LAYERS; l++) {
        cg_uuid(uuids[l]);
        assert_int_equal(cg_layer_create(dirfd_, uuids[l], layer_size(l), &err), 0);
        assert_int_equal(cg_layer_open(dirfd_, uuids[l], &layers[l], &err), 0);
        assert_int_equal(cg_layer_begin(layers[l], run_dir, &err), 0);
        fill_layer(l, &random);
        assert_int_equal(cg_layer_end(layers[l], &err), 0);
        cg_layer_unref(layers[l]);
    }
    return 0;
}

static int teardown(void **state)
{
    close(dirfd_);
    return scratch_teardown(state);
}

/* The topmost of the lowest count layers that has something at block; -1 for none. */
static int owner(unsigned count, uint64_t block)
{
    int i = used(block);

    for (unsigned l = count; i >= 0 && l-- > 0;)
        if (states[l][i] != CG_STATE_ABSENT)
            return (int)l;
    return -1;
}

static void want_block(unsigned count, uint64_t block, uint8_t ret[static CG_BLOCK])
{
    int l = owner(count, block);

    memset(ret, 0, CG_BLOCK);
    if (l >= 0 && states[l][used(block)] == CG_STATE_DATA)
        content((unsigned)l, (unsigned)used(block), ret);
}

/* A range that has at least one block in use. */
static void random_range(struct cg_chain *chain, unsigned *random, uint64_t *ret_off,
                         uint64_t *ret_len)
{
    uint64_t size = cg_chain_size(chain);
    uint64_t off = place(next(random, BLOCKS)) * CG_BLOCK + next(random, 3) * 700;
    uint64_t len = next(random, 5) ? 1 + next(random, 30000) : 1 + next(random, 1 << 20);

    if (off >= size)
        off = size - 1;
    *ret_off = off;
    *ret_len = cg_min(len, size - off);
}

/* These tell what is wrong; NULL for nothing. */

static const char *check_read(struct cg_chain *chain, unsigned *random)
{
    unsigned count = (unsigned)cg_chain_count(chain);
    uint64_t off, len;
    struct cg_error err;
    uint8_t block[CG_BLOCK];
    const char *wrong = NULL;

    random_range(chain, random, &off, &len);
    uint8_t *have = malloc(len);
    memset(have, 0xa5, len);
    if (cg_chain_read(chain, have, len, off, &err) < 0)
        wrong = "a read failed";
    for (uint64_t at = off; !wrong && at < off + len;) {
        uint64_t in = at % CG_BLOCK, n = cg_min(CG_BLOCK - in, off + len - at);
        want_block(count, at / CG_BLOCK, block);
        if (memcmp(have + (at - off), block + in, n) != 0)
            wrong = "a read gave something else";
        at += n;
    }
    free(have);
    return wrong;
}

static bool is_data(unsigned count, uint64_t block)
{
    int l = owner(count, block);

    return l >= 0 && states[l][used(block)] == CG_STATE_DATA;
}

static const char *check_extents(struct cg_chain *chain, unsigned *random)
{
    unsigned count = (unsigned)cg_chain_count(chain);
    uint64_t off, len;
    struct cg_extents e;
    struct cg_error err;
    const char *wrong = NULL;

    random_range(chain, random, &off, &len);
    cg_extents_init(&e, off, off + len, 1 + next(random, 100));
    if (cg_chain_extents(chain, &e, &err) < 0 || e.count == 0)
        wrong = "extents failed";
    for (size_t i = 0; !wrong && i < e.count; i++)
        for (uint64_t b = e.v[i].off / CG_BLOCK; b * CG_BLOCK < e.v[i].off + e.v[i].len; b++)
            if ((e.v[i].type == CG_DATA) != is_data(count, b))
                wrong = "an extent has another type";
    cg_extents_clear(&e);
    return wrong;
}

struct diff {
    unsigned count, first;
    uint64_t at; /* what lies before was told, or not to be told */
    uint64_t end;
    const char *wrong;
};

static bool differs(const struct diff *d, uint64_t block)
{
    return owner(d->count, block) >= (int)d->first;
}

static void pass_over(struct diff *d, uint64_t to)
{
    for (; d->at < to; d->at += CG_BLOCK)
        if (used(d->at / CG_BLOCK) >= 0 && differs(d, d->at / CG_BLOCK))
            d->wrong = "a changed block was left out";
}

static int add_changed(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct diff *d = opaque;

    (void)err;
    pass_over(d, e->off);
    for (; d->at < e->off + e->len; d->at += CG_BLOCK)
        if (!differs(d, d->at / CG_BLOCK))
            d->wrong = "a block has not changed";
        else if ((e->type == CG_DATA) != is_data(d->count, d->at / CG_BLOCK))
            d->wrong = "a changed block has another type";
    return 0;
}

static const char *check_diff(struct cg_chain *chain, unsigned *random)
{
    struct diff d = { .count = (unsigned)cg_chain_count(chain) };
    struct cg_error err;

    d.first = next(random, d.count);
    if (cg_chain_diff(chain, d.first, cg_chain_size(chain), add_changed, &d, &err) < 0)
        return "a diff failed";
    pass_over(&d, cg_chain_size(chain));
    return d.wrong;
}

static const char *check(struct cg_chain *chain, unsigned *random)
{
    const char *wrong = check_read(chain, random);

    if (!wrong)
        wrong = check_extents(chain, random);
    if (!wrong && next(random, 20) == 0)
        wrong = check_diff(chain, random);
    return wrong;
}

static void check_often(struct cg_chain *chain, unsigned times)
{
    unsigned random = seed;

    for (unsigned i = 0; i < (slow ? 1 + times / 10 : times); i++) {
        const char *wrong = check(chain, &random);
        if (wrong)
            fail_msg("%zu layers, seed %u, check %u: %s", cg_chain_count(chain), seed, i, wrong);
    }
}

static struct cg_chain *new_chain(unsigned count)
{
    struct cg_chain *chain = cg_chain_new(cg_layer_size(layers[count - 1]), layers, count, NULL);

    assert_non_null(chain);
    return chain;
}

/* Chains of every depth, opened at once and grown layer by layer. */
static void test_depths(void **state)
{
    (void)state;
    open_layers();
    struct cg_chain *grown = new_chain(1);
    for (unsigned count = 1; count <= LAYERS; count++) {
        struct cg_chain *chain = new_chain(count);
        check_often(chain, 20);
        cg_chain_unref(chain);
        check_often(grown, 20);
        if (count < LAYERS) {
            struct cg_chain *more = cg_chain_push(grown, NULL, layers[count]);
            assert_non_null(more);
            cg_chain_unref(grown);
            grown = more;
        }
    }
    assert_true(cg_index_memory() > 0);
    cg_chain_unref(grown);
    assert_int_equal(cg_index_memory(), 0);
    close_layers();
}

/* A chain of one sealed layer has no index. */
static void test_shallow(void **state)
{
    (void)state;
    open_layers();
    for (unsigned count = 1; count <= 2; count++) {
        struct cg_chain *chain = new_chain(count);
        check_often(chain, 50);
        assert_int_equal(cg_index_memory(), 0);
        cg_chain_unref(chain);
    }
    close_layers();
}

/* Three windows don't fit into what is enough for each. */
static void test_limit(void **state)
{
    static const size_t limits[] = { 0, 100, 600, 1200, CG_INDEX_LIMIT };

    (void)state;
    open_layers();
    struct cg_chain *one = new_chain(LAYERS), *other = new_chain(LAYERS / 2);
    check_often(one, 50);
    check_often(other, 50);
    assert_true(slow || cg_index_memory() > 1200);
    for (unsigned i = 0; i < sizeof limits / sizeof *limits; i++) {
        cg_index_set_limit(limits[i]);
        assert_true(cg_index_memory() <= limits[i]);
        check_often(one, 50);
        check_often(other, 50);
        assert_true(cg_index_memory() <= limits[i]);
    }
    cg_chain_unref(one);
    assert_true(cg_index_memory() > 0);
    check_often(other, 50);
    cg_chain_unref(other);
    assert_int_equal(cg_index_memory(), 0);
    close_layers();
}

#define THREADS 4

struct reader {
    pthread_t thread;
    unsigned random;
    struct cg_chain *chain[2];
    atomic_uint *reading;
    const char *wrong;
};

static void *reader_main(void *arg)
{
    struct reader *r = arg;

    for (unsigned i = 0; i < (slow ? 40 : 400) && !r->wrong; i++)
        r->wrong = check(r->chain[i % 2], &r->random);
    atomic_fetch_sub(r->reading, 1);
    return NULL;
}

/* Windows come and go while others look into them; indexes too, which others share. */
static void test_threads(void **state)
{
    struct reader readers[THREADS];
    atomic_uint reading = THREADS;
    unsigned turns = 0;

    (void)state;
    open_layers();
    struct cg_chain *shared = new_chain(LAYERS - 1);
    struct cg_chain *pushed = cg_chain_push(shared, NULL, layers[LAYERS - 1]);
    for (unsigned i = 0; i < THREADS; i++) {
        readers[i] =
            (struct reader){ .random = seed + i, .chain = { shared, pushed }, .reading = &reading };
        assert_int_equal(pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]), 0);
    }
    while (atomic_load(&reading) > 0) {
        struct cg_chain *brief = new_chain(5 + turns % 100);
        check_often(brief, 2);
        cg_index_set_limit(turns++ % 2 ? 0 : 3000);
        cg_chain_unref(brief);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(readers[i].thread, NULL);
    for (unsigned i = 0; i < THREADS; i++)
        if (readers[i].wrong)
            fail_msg("thread %u, seed %u: %s", i, seed, readers[i].wrong);
    cg_index_set_limit(CG_INDEX_LIMIT);
    cg_chain_unref(pushed);
    cg_chain_unref(shared);
    assert_int_equal(cg_index_memory(), 0);
    close_layers();
}

/* A block whose state is damaged in the layer that has it is an error, and only that block. */
static void test_damaged(void **state)
{
    static const uint8_t damaged = 0xff; /* four blocks */
    uint8_t have[CG_BLOCK], want[CG_BLOCK], was;
    char name[CG_UUID_LEN + 5];
    unsigned i = 8;
    uint64_t block = place(i);
    struct cg_error err;

    (void)state;
    int l = -1;
    for (; l < 0 && i < BLOCKS / 2; i += 4) {
        block = place(i);
        l = owner(LAYERS - 1, block);
        for (unsigned k = 0; l >= 0 && k < 4; k++) /* one block isn't damaged by the way */
            l = owner(LAYERS - 1, block + k) == l ? l : -1;
    }
    assert_true(l >= 0);
    assert_int_equal(block % 4, 0);
    snprintf(name, sizeof name, "%s.map", uuids[l]);
    int fd = openat(dirfd_, name, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &was, 1, (off_t)(CG_MAP_HEADER + block / 4)), 1);
    assert_int_equal(pwrite(fd, &damaged, 1, (off_t)(CG_MAP_HEADER + block / 4)), 1);
    open_layers();
    struct cg_chain *chain = new_chain(LAYERS);
    for (uint64_t b = block - 2; b < block + 6; b++) {
        bool bad = b >= block && b < block + 4 && owner(LAYERS, b) == l;
        int r = cg_chain_read(chain, have, CG_BLOCK, b * CG_BLOCK, &err);
        assert_int_equal(r, bad ? -EIO : 0);
        want_block(LAYERS, b, want);
        if (bad)
            assert_non_null(strstr(err.message, "is damaged"));
        else
            assert_memory_equal(have, want, CG_BLOCK);
    }
    cg_chain_unref(chain);
    close_layers();
    assert_int_equal(pwrite(fd, &was, 1, (off_t)(CG_MAP_HEADER + block / 4)), 1);
    close(fd);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_depths),  cmocka_unit_test(test_shallow),
        cmocka_unit_test(test_limit),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_damaged),
    };

    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        slow = true;
    if (argc > 1)
        seed = (unsigned)atoi(argv[1]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
