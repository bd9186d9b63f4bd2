/* A workload on volumes, recorded, cut at every point and replayed as after a crash of the host;
 * and the same with each system call failing once.
 *
 * What must hold after a crash: each sector of a volume is as it was at the last flush that was
 * acknowledged, or as some later operation left it, the one under way included; a snapshot or a
 * clone that was acknowledged is there with exactly its bytes, one that was being made is there
 * whole or not at all.
 */
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
#include "tests/unit/recorder.h"
#include "tests/unit/volumes-pool.h"
#include "tests/unit/cmocka-all.h"

#define SIZE (160 * 1024 + 1536u)
#define GROWN (SIZE + 8192u)
#define SECTOR 512u
#define STEPS_MAX 100

/* The volume after each step. */
struct moment {
    uint8_t bytes[GROWN];
    uint64_t size;     /* 0: there is no volume yet */
    unsigned flushed;  /* the last step that made all before it durable */
    uint64_t value[4]; /* which images have appeared: the step at which their content was, + 1 */
};

enum { SNAPSHOT_1, SNAPSHOT_2, CLONE_1, CLONE_2, IMAGES };
static const char *const image_names[] = { "volumes/p/v@s1", "volumes/p/v@s2", "volumes/p/c",
                                           "volumes/q/d" };

enum op {
    CREATE,
    WRITE,
    ZERO,
    TRIM,
    FLUSH,
    FUA,
    SNAPSHOT,
    UNSNAPSHOT,
    CLONE,
    REMOVE,
    RESIZE,
    CLOSE,
    FLATTEN,
    RECLAIM
};

struct step {
    enum op op;
    uint32_t off, len; /* or which image */
};

static const struct step steps[] = {
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
#define STEPS (sizeof steps / sizeof *steps)

/* Under valgrind only every so many points, for time's sake. */
static unsigned stride = 1;

static struct moment history[STEPS + 1]; /* [i]: before step i */

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(((i + seed * 977) * 2654435761u) >> 13);
}

/* What the volume is a clone of. */
static uint8_t parent[SIZE];

/* What a step makes of the model. */
static void apply(struct moment *m, const struct step *s, unsigned i)
{
    uint64_t first, end;

    switch (s->op) {
    case CREATE:
        memcpy(m->bytes, parent, SIZE);
        m->size = SIZE;
        m->flushed = i + 1;
        break;
    case WRITE:
    case FUA:
        fill(m->bytes + s->off, s->len, i);
        break;
    case ZERO:
        memset(m->bytes + s->off, 0, s->len);
        break;
    case TRIM:
        first = cg_round_up(s->off, 4096);
        end = s->off + s->len == m->size ? m->size : cg_round_down(s->off + s->len, 4096);
        memset(m->bytes + first, 0, end - first);
        break;
    case SNAPSHOT:
        m->value[s->off] = i + 1;
        break;
    case CLONE:
        m->value[s->off] = s->len ? m->value[s->len - 1] : i + 1;
        break;
    case UNSNAPSHOT:
    case REMOVE:
        m->value[s->off] = 0;
        break;
    case RESIZE:
        m->size = s->off;
        break;
    case FLUSH:
    case CLOSE:
    case FLATTEN:
    case RECLAIM:
        break;
    }
    if (s->op == FLUSH || s->op == FUA || s->op == CLOSE || s->op == SNAPSHOT || s->op == RESIZE ||
        (s->op == CLONE && !s->len))
        m->flushed = i + 1;
}

static void plan(void)
{
    for (unsigned i = 0; i < SIZE; i++) /* every fourth block is zero */
        parent[i] = i / 4096 % 4 ? (uint8_t)(i * 31 + i / 4096) : 0;
    pool_set_parent(parent, SIZE);
    memset(history, 0, sizeof history);
    for (unsigned i = 0; i < STEPS; i++) {
        history[i + 1] = history[i];
        apply(&history[i + 1], &steps[i], i);
    }
}

static int perform(struct cg_space *space, struct cg_image **image, const struct step *s,
                   unsigned i, struct cg_error *err)
{
    static uint8_t buf[GROWN];
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_name other = v;

    if (s->op == SNAPSHOT || s->op == UNSNAPSHOT || s->op == CLONE || s->op == REMOVE)
        other = pool_name(image_names[s->off]);
    fill(buf, s->op == WRITE || s->op == FUA ? s->len : 0, i);
    switch (s->op) {
    case CREATE:
        return cg_space_clone(space, POOL_PARENT, &v, err);
    case SNAPSHOT:
        return cg_space_snapshot(space, &other, 1, err);
    case CLONE:
        return cg_space_clone(space, s->len ? image_names[s->len - 1] : "volumes/p/v", &other, err);
    case UNSNAPSHOT:
    case REMOVE:
        return cg_space_remove(space, &other, 0, err);
    case RESIZE:
        return cg_space_resize(space, &v, s->off, err);
    case FLATTEN:
        return cg_space_flatten(space, &v, 0, NULL, NULL, err);
    case RECLAIM:
        return cg_space_reclaim(space, &v, NULL, NULL, err);
    case CLOSE:
        cg_image_unref(*image);
        *image = NULL;
        return 0;
    default:
        break;
    }
    if (!*image) {
        int r = cg_space_open(space, &v, CG_OPEN_WRITE, image, err);
        if (r < 0)
            return r;
    }
    switch (s->op) {
    case WRITE:
    case FUA:
        return cg_image_pwrite(*image, buf, s->len, s->off, s->op == FUA ? CG_FUA : 0, err);
    case ZERO:
        return cg_image_zero(*image, s->len, s->off, 0, err);
    case TRIM:
        return cg_image_trim(*image, s->len, s->off, 0, err);
    default:
        return cg_image_flush(*image, err);
    }
}

/* The sectors of have are each as in one of the moments [from, to]. */
static void check_sectors(const uint8_t *have, uint64_t size, unsigned from, unsigned to,
                          const char *where)
{
    for (uint64_t at = 0; at < size; at += SECTOR) {
        size_t n = cg_min(SECTOR, size - at);
        unsigned k = from;
        while (k <= to && memcmp(have + at, history[k].bytes + at, n) != 0)
            k++;
        if (k > to)
            fail_msg("%s: the sector at %llu is none of those of moments %u to %u", where,
                     (unsigned long long)at, from, to);
    }
}

static int open_any(struct cg_space *space, const char *text, struct cg_image **ret,
                    struct cg_error *err)
{
    struct cg_name name = pool_name(text);

    return cg_space_open(space, &name, CG_OPEN_WRITE, ret, err);
}

/* flushed: the last step that made all before it durable. */
static void check_head(struct cg_space *space, unsigned done, unsigned flushed, const char *where)
{
    static uint8_t have[GROWN];
    unsigned under_way = done < STEPS ? done + 1 : done;
    struct cg_image *image;
    struct cg_error err;
    int r = open_any(space, "volumes/p/v", &image, &err);

    if (r == -ENOENT && history[done].size == 0)
        return;
    if (r < 0)
        fail_msg("%s: %s", where, err.message);
    uint64_t size = cg_image_size(image);
    if (size != history[done].size && size != history[under_way].size)
        fail_msg("%s: it has %llu bytes", where, (unsigned long long)size);
    if (cg_image_pread(image, have, size, 0, &err) < 0)
        fail_msg("%s: %s", where, err.message);
    check_sectors(have, size, flushed, under_way, where);
    /* It takes writes. */
    if (cg_image_pwrite(image, "x", 1, 5, CG_FUA, &err) < 0)
        fail_msg("%s: %s", where, err.message);
    have[5] = 'x';
    pool_same(image, have, size);
    cg_image_unref(image);
}

static void check_image(struct cg_space *space, unsigned which, unsigned done, const char *where)
{
    unsigned under_way = done < STEPS ? done + 1 : done;
    uint64_t was = history[done].value[which], will = history[under_way].value[which];
    uint64_t moment = was ? was : will;
    struct cg_image *image;
    struct cg_error err;
    int r = open_any(space, image_names[which], &image, &err);

    if (r == -ENOENT && (!was || !will))
        return;
    if (r < 0)
        fail_msg("%s: %s: %s", where, image_names[which], err.message);
    if (!moment)
        fail_msg("%s: there is a %s", where, image_names[which]);
    pool_same(image, history[moment].bytes, history[moment].size);
    cg_image_unref(image);
}

/* bad_close: the step at which the volume was closed without all of it being flushed; 0 for none.
 */
static void replay_one(size_t cut, enum recorder_loss loss, unsigned seed, unsigned bad_close)
{
    struct pool pool;
    char where[100];

    pool_setup(&pool);
    cg_space_free(pool.space);
    pool_move_to_tmpfs(&pool);
    unsigned done = recorder_replay(pool.dir, cut, loss, seed);
    snprintf(where, sizeof where, "cut at %zu, loss %d, seed %u, after step %u", cut, (int)loss,
             seed, done);
    pool_reboot(&pool);
    pool.space = pool_second(&pool);
    for (unsigned i = 0; i < IMAGES; i++)
        check_image(pool.space, i, done, where);
    unsigned flushed = history[done].flushed;
    if (bad_close && flushed == bad_close + 1)
        flushed = history[bad_close].flushed;
    check_head(pool.space, done, flushed, where);
    for (unsigned i = 0; i < IMAGES; i++)
        check_image(pool.space, i, done, where);
    pool_teardown(&pool);
}

static void test_crash(void **state)
{
    struct cg_image *image = NULL;
    struct cg_error err;
    struct pool pool;

    (void)state;
    plan();
    pool_setup(&pool);
    recorder_start(pool.dir);
    for (unsigned i = 0; i < STEPS; i++) {
        if (perform(pool.space, &image, &steps[i], i, &err) < 0)
            fail_msg("step %u: %s", i, err.message);
        recorder_mark(i + 1);
    }
    cg_image_unref(image);
    size_t count = recorder_stop();
    pool_teardown(&pool);
    for (size_t cut = 0; cut <= count; cut += stride) {
        replay_one(cut, LOSE_NOTHING, 0, 0);
        replay_one(cut, LOSE_ALL, 0, 0);
        for (unsigned seed = 1; seed <= 3; seed++)
            replay_one(cut, LOSE_SOME, seed, 0);
    }
    recorder_free();
}

/* Does a step, after a failure once more with the volume opened again.  True if it failed first. */
static bool persist(struct cg_space *space, struct cg_image **image, unsigned i)
{
    const struct step *s = &steps[i];
    struct cg_error err;
    int r = perform(space, image, s, i, &err);

    if (r == 0)
        return false;
    assert_true(*err.message);
    if (r != -EIO && r != -ENOSPC)
        fail_msg("step %u: %s (%d)", i, err.message, r);
    cg_image_unref(*image);
    *image = NULL;
    r = perform(space, image, s, i, &err);
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
    for (unsigned i = 0; i < STEPS; i++) {
        persist(pool.space, &image, i);
        /* Exactly what was acknowledged, whatever failed on the way. */
        if (image)
            pool_same(image, history[i + 1].bytes, history[i + 1].size);
    }
    bool reached = recorder_calls() >= n;
    cg_image_unref(image);
    recorder_fail(0, 0);
    pool_reopen(&pool);
    for (unsigned i = 0; i < IMAGES; i++)
        check_image(pool.space, i, STEPS, where);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_READ);
    pool_same(image, history[STEPS].bytes, history[STEPS].size);
    cg_image_unref(image);
    pool_teardown(&pool);
    return reached;
}

static void test_failures(void **state)
{
    static const int errnums[] = { EIO, ENOSPC };

    (void)state;
    plan();
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
    size_t at[STEPS];
    struct pool pool;

    pool_setup(&pool);
    recorder_start(pool.dir);
    recorder_fail(n, EIO);
    for (unsigned i = 0; i < STEPS; i++) {
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
    for (unsigned i = failed_at; failed_at && i <= STEPS; i++)
        replay_one(at[i - 1], LOSE_ALL, 0, bad_close);
    recorder_free();
    return reached;
}

/* What a failed sync didn't get to the disk, and the kernel calls clean from then on, gets there
 * all the same before a later flush is acknowledged. */
static void test_lost(void **state)
{
    (void)state;
    plan();
    for (unsigned n = 1; lose_one(n); n += stride)
        ;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_lost),
    };

    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        stride = 53;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
