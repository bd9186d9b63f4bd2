#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/image/readahead.h"
#include "tests/unit/cmocka-all.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

/* An image far away, whose bytes follow from their offsets.  Who reads what is noted: the test's
 * own thread is a read that nothing was read ahead for. */
struct far {
    uint64_t size;
    const struct cg_extent *extents; /* in order, without gaps; NULL: all data */
    pthread_t tester;
    _Atomic uint64_t bad; /* reading it fails; UINT64_MAX: nothing does */
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    bool hold; /* the reads of other threads wait */
    /* Atomic: the tester looks at them without the lock. */
    _Atomic uint64_t direct, bytes;       /* reads of the tester's; bytes by whomever */
    _Atomic unsigned by_others, together; /* other threads' reads, and at most at a moment */
    unsigned others;                      /* at this moment */
    uint64_t begun[4096];                 /* where they began */
};

static uint8_t byte_at(uint64_t off)
{
    return (uint8_t)((off * 2654435761u) >> 13);
}

static int far_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct far *f = self;
    uint8_t *p = buf;
    uint64_t bad = atomic_load(&f->bad);

    assert_true(off + len <= f->size);
    pthread_mutex_lock(&f->lock);
    f->bytes += len;
    if (pthread_equal(pthread_self(), f->tester)) {
        f->direct++;
    } else {
        assert_true(f->by_others < sizeof f->begun / sizeof f->begun[0]);
        f->begun[f->by_others++] = off;
        f->others++;
        f->together = f->others > f->together ? f->others : f->together;
        pthread_cond_broadcast(&f->changed);
        while (f->hold)
            pthread_cond_wait(&f->changed, &f->lock);
        f->others--;
    }
    pthread_mutex_unlock(&f->lock);
    if (bad >= off && bad < off + len)
        return cg_error_say(err, EIO, "bad");
    for (size_t i = 0; i < len; i++)
        p[i] = byte_at(off + i);
    return 0;
}

static int far_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct far *f = self;
    int r = 0;

    pthread_mutex_lock(&f->lock);
    while (f->hold && !pthread_equal(pthread_self(), f->tester))
        pthread_cond_wait(&f->changed, &f->lock);
    pthread_mutex_unlock(&f->lock);
    for (const struct cg_extent *x = f->extents; r == 0 && !cg_extents_full(e); x++)
        r = cg_extents_to(e, x->off + x->len, x->type, err);
    return r;
}

static uint64_t far_size(void *self)
{
    struct far *f = self;
    return f->size;
}

static void far_close(void *self)
{
    (void)self; /* the test's own */
}

static const struct cg_image_ops far_ops = {
    .name = "far",
    .pread = far_pread,
    .size = far_size,
    .close = far_close,
    .remote = true,
};

static const struct cg_image_ops far_ops_with_extents = {
    .name = "far",
    .pread = far_pread,
    .extents = far_extents,
    .size = far_size,
    .close = far_close,
    .remote = true,
    .cheap_extents = true,
};

static struct cg_image *open_far(struct far *f, uint64_t size, const struct cg_extent *extents)
{
    struct cg_error err;
    struct cg_image *ahead = NULL;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *base = NULL;

    memset(f, 0, sizeof *f);
    f->size = size;
    f->extents = extents;
    f->tester = pthread_self();
    f->bad = UINT64_MAX;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    base = cg_image_new(extents ? &far_ops_with_extents : &far_ops, f, true);
    assert_int_equal(cg_readahead_open(base, 8 * MIB, &ahead, &err), 0);
    return ahead;
}

static void close_far(struct far *f, struct cg_image *image)
{
    cg_image_unref(image);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
}

/* Reads and compares; 0 or the failure. */
static int try_read(struct cg_image *image, uint64_t off, size_t len)
{
    struct cg_error err;
    CG_CLEANUP(cg_free) uint8_t *buf = malloc(len);
    int r = cg_image_pread(image, buf, len, off, &err);

    for (size_t i = 0; r == 0 && i < len; i++) {
        if (buf[i] != byte_at(off + i))
            return -EBADMSG;
    }
    return r;
}

static void read_at(struct cg_image *image, uint64_t off, size_t len)
{
    assert_int_equal(try_read(image, off, len), 0);
}

static void read_range(struct cg_image *image, uint64_t off, uint64_t end, size_t piece)
{
    for (; off < end; off += piece)
        read_at(image, off, (size_t)cg_min(piece, end - off));
}

static void hold(struct far *f, bool yes)
{
    CG_LOCK(&f->lock);
    f->hold = yes;
    pthread_cond_broadcast(&f->changed);
}

/* Waits until so many reads by others are waiting. */
static void wait_for_others(struct far *f, unsigned others)
{
    CG_LOCK(&f->lock);
    while (f->others < others)
        pthread_cond_wait(&f->changed, &f->lock);
}

/* Waits until another thread has begun to read at off. */
static void wait_for_read_at(struct far *f, uint64_t off)
{
    CG_LOCK(&f->lock);
    for (unsigned i = 0;;) {
        for (; i < f->by_others; i++) {
            if (f->begun[i] == off)
                return;
        }
        pthread_cond_wait(&f->changed, &f->lock);
    }
}

/* Who reads in order, whatever the piece, hits memory from the third read on, and nothing is read
 * twice or beyond the end. */
static void test_sequential(void **state)
{
    (void)state;
    static struct far f;
    const size_t pieces[] = { 4096, 64 << 10, 100000, 1 << 20, 4 << 20 };

    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        uint64_t size = 40 * MIB + 1536;
        struct cg_image *image = open_far(&f, size, NULL);
        read_range(image, 0, size, pieces[i]);
        assert_int_equal(f.bytes, size);
        assert_true(f.direct <= cg_max(2, 128 * KIB / pieces[i]));
        close_far(&f, image);
    }
}

/* Several pieces are on their way at the same time, and a reader waits for its own. */
static void test_parallel(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 64 * MIB, NULL);

    hold(&f, true);
    read_range(image, 0, 8 * MIB, 4 << 20);
    wait_for_others(&f, 8);
    assert_int_equal(f.direct, 2);
    hold(&f, false);
    read_range(image, 8 * MIB, 64 * MIB, 4 << 20);
    assert_int_equal(f.direct, 2);
    assert_int_equal(f.together, 8);
    close_far(&f, image);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *seed >> 33;
}

/* Random reads read what they ask for and nothing else. */
static void test_random(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 1024 * MIB, NULL);
    uint64_t seed = 1;

    for (unsigned i = 0; i < 500; i++)
        read_at(image, next_random(&seed) % (1024 * MIB / 4096) * 4096, 4096);
    assert_int_equal(f.direct, 500);
    assert_int_equal(f.bytes, 500 * 4096);
    close_far(&f, image);
}

/* Two in turns, with random reads between them. */
static void test_two_streams(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 1024 * MIB, NULL);
    uint64_t seed = 2, random = 0;

    for (uint64_t at = 0; at < 32 * MIB; at += 64 * KIB) {
        read_at(image, 100 * MIB + at, 64 << 10);
        read_at(image, 200 * MIB + at, 64 << 10);
        read_at(image, 300 * MIB + next_random(&seed) % (700 * MIB / 4096) * 4096, 4096);
        random++;
    }
    assert_int_equal(f.direct, random + 4);
    assert_true(f.bytes <= 64 * MIB + random * 4096 + 16 * MIB);
    close_far(&f, image);
}

/* One after the other: those that ended make place. */
static void test_many_streams(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 1024 * MIB, NULL);

    for (uint64_t i = 0; i < 9; i++)
        read_range(image, i * 100 * MIB, i * 100 * MIB + 4 * MIB, 64 << 10);
    assert_int_equal(f.direct, 9 * 2);
    close_far(&f, image);
}

/* A little out of order, as requests of one reader that are under way together. */
static void test_jitter(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 64 * MIB, NULL);
    static const uint64_t order[] = { 1, 0, 3, 2, 7, 5, 4, 6 };

    for (uint64_t at = 0; at < 64; at++) {
        for (size_t i = 0; i < 8; i++)
            read_at(image, at * MIB + order[i] * 128 * KIB, 128 << 10);
    }
    assert_true(f.direct <= 8);
    assert_true(f.bytes <= 65 * MIB);
    close_far(&f, image);
}

/* A failure is for who reads that range, and is tried again for whoever reads it then. */
static void test_failure(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 32 * MIB, NULL);

    f.bad = 10 * MIB + 1000;
    for (uint64_t off = 0; off < 32 * MIB; off += 64 * KIB)
        assert_int_equal(try_read(image, off, 64 << 10), off == 10 * MIB ? -EIO : 0);
    f.bad = UINT64_MAX;
    read_at(image, 10 * MIB, 64 << 10);
    close_far(&f, image);
}

/* Holes aren't read, and the reader that leaves them out is known behind them. */
static void test_holes(void **state)
{
    (void)state;
    static struct far f;
    static const struct cg_extent extents[] = {
        { 0, 2 << 20, CG_DATA },         { 2 << 20, 18 << 20, CG_HOLE },
        { 20 << 20, 1 << 20, CG_DATA },  { 21 << 20, 19 << 20, CG_ZERO },
        { 40 << 20, 24 << 20, CG_DATA },
    };
    struct cg_image *image = open_far(&f, 64 * MIB, extents);

    read_range(image, 0, MIB, 64 << 10);
    wait_for_read_at(&f, 20 * MIB);
    uint64_t direct = f.direct;
    read_range(image, MIB, 2 * MIB, 64 << 10);
    read_range(image, 20 * MIB, 21 * MIB, 64 << 10);
    read_range(image, 40 * MIB, 64 * MIB, 64 << 10);
    assert_int_equal(f.direct, direct);
    assert_int_equal(f.bytes, 27 * MIB);
    /* Who reads them all the same gets them. */
    read_range(image, 2 * MIB, 20 * MIB, 64 << 10);
    close_far(&f, image);
}

/* More readers than are read ahead for, of all of whom it's asked at the same time where there is
 * data. */
static void test_many_questions(void **state)
{
    (void)state;
    static struct far f;
    static const struct cg_extent extents[] = { { 0, UINT64_C(4) << 30, CG_DATA } };
    struct cg_image *image = open_far(&f, UINT64_C(4) << 30, extents);

    hold(&f, true);
    for (uint64_t i = 0; i < 16; i++)
        read_range(image, i * 100 * MIB, i * 100 * MIB + MIB, 512 << 10);
    assert_int_equal(f.direct, 32);
    hold(&f, false);
    pthread_mutex_lock(&f.lock);
    while (f.by_others < 4)
        pthread_cond_wait(&f.changed, &f.lock);
    pthread_mutex_unlock(&f.lock);
    for (uint64_t i = 0; i < 40; i++)
        read_range(image, i * 100 * MIB, i * 100 * MIB + 2 * MIB, 512 << 10);
    close_far(&f, image);
}

struct reader {
    struct cg_image *image;
    unsigned number;
    int result;
};

static void *read_some(void *opaque)
{
    struct reader *d = opaque;
    uint64_t seed = d->number;

    for (uint64_t off = d->number % 4 * 5 * MIB; d->result == 0 && off + 96 * KIB <= 48 * MIB;
         off += 96 * KIB) {
        d->result = try_read(d->image, off, 96 << 10);
        if (d->result == 0)
            d->result = try_read(d->image, next_random(&seed) % (47 * MIB), 5000);
    }
    return NULL;
}

/* Several threads, some over the same ground. */
static void test_concurrent(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 48 * MIB + 512, NULL);
    struct reader readers[6];
    pthread_t threads[6];

    f.tester = 0; /* no thread */
    for (unsigned i = 0; i < 6; i++) {
        readers[i] = (struct reader){ .image = image, .number = i };
        assert_int_equal(pthread_create(&threads[i], NULL, read_some, &readers[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].result, 0);
    }
    close_far(&f, image);
}

static void *read_one(void *opaque)
{
    struct reader *d = opaque;

    d->result = try_read(d->image, (100 + 10 * d->number) * MIB, 4096);
    return NULL;
}

/* With many reads in flight nobody is helped. */
static void test_busy(void **state)
{
    (void)state;
    static struct far f;
    struct cg_image *image = open_far(&f, 1024 * MIB, NULL);
    struct reader readers[8];
    pthread_t threads[8];

    hold(&f, true);
    for (unsigned i = 0; i < 8; i++) {
        readers[i] = (struct reader){ .image = image, .number = i };
        assert_int_equal(pthread_create(&threads[i], NULL, read_one, &readers[i]), 0);
    }
    wait_for_others(&f, 8);
    read_range(image, 0, 8 * MIB, 1 << 20);
    assert_int_equal(f.by_others, 8);
    assert_int_equal(f.direct, 8);
    hold(&f, false);
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].result, 0);
    }
    read_range(image, 8 * MIB, 10 * MIB, 1 << 20);
    assert_true(f.by_others > 8);
    close_far(&f, image);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequential),     cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_random),         cmocka_unit_test(test_two_streams),
        cmocka_unit_test(test_many_streams),   cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_failure),        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_concurrent),     cmocka_unit_test(test_busy),
        cmocka_unit_test(test_many_questions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
