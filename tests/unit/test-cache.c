#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/cache.h"
#include "tests/unit/cmocka-all.h"

#define THREADS 8

static struct cg_ref ref_of(unsigned n, uint32_t len)
{
    struct cg_ref ref = { .era = 1, .len = len };

    memcpy(ref.id, &n, sizeof n);
    return ref;
}

struct loader {
    _Atomic unsigned loads;
    int result;
    pthread_barrier_t *barrier; /* the load takes until all have come; may be NULL */
};

static int load(void *opaque, const struct cg_ref *ref, void *buf, struct cg_error *err)
{
    struct loader *l = opaque;

    atomic_fetch_add(&l->loads, 1);
    if (l->barrier)
        pthread_barrier_wait(l->barrier);
    memset(buf, ref->id[0], ref->len);
    return l->result < 0 ? cg_error_say(err, -l->result, "as told") : 0;
}

static int get(struct cg_cache *cache, unsigned n, uint32_t len, struct loader *l)
{
    struct cg_ref ref = ref_of(n, len);
    struct cg_cached *e;
    struct cg_error err;

    int r = cg_cache_get(cache, &ref, load, l, &e, &err);
    if (r < 0) {
        assert_string_equal(err.message, "as told");
        return r;
    }
    assert_int_equal(cg_cached_data(e)[0], n);
    assert_int_equal(cg_cached_data(e)[len - 1], n);
    cg_cache_release(cache, e);
    return 0;
}

static bool has(struct cg_cache *cache, unsigned n, uint32_t len)
{
    struct cg_ref ref = ref_of(n, len);

    return cg_cache_has(cache, &ref);
}

static void test_bounded(void **state)
{
    (void)state;
    struct cg_cache *cache = cg_cache_new(3 * CG_CHUNK_SIZE);
    struct loader l = { .result = 0 };

    for (unsigned i = 1; i <= 3; i++)
        assert_int_equal(get(cache, i, CG_CHUNK_SIZE, &l), 0);
    assert_int_equal(get(cache, 1, CG_CHUNK_SIZE, &l), 0);
    assert_int_equal(l.loads, 3);
    assert_int_equal(get(cache, 4, CG_CHUNK_SIZE, &l), 0);
    /* The one used least recently went. */
    assert_true(has(cache, 1, CG_CHUNK_SIZE) && has(cache, 3, CG_CHUNK_SIZE) &&
                has(cache, 4, CG_CHUNK_SIZE) && !has(cache, 2, CG_CHUNK_SIZE));
    /* The same id of another length or era is another object. */
    assert_false(has(cache, 1, 512));
    for (unsigned i = 10; i < 250; i++)
        assert_int_equal(get(cache, i, CG_CHUNK_SIZE - i % 3, &l), 0);
    assert_int_equal(l.loads, 244);
    cg_cache_free(cache);
}

static void test_failed_load(void **state)
{
    (void)state;
    struct cg_cache *cache = cg_cache_new(CG_CHUNK_SIZE);
    struct loader l = { .result = -EIO };

    assert_int_equal(get(cache, 1, 512, &l), -EIO);
    assert_false(has(cache, 1, 512));
    l.result = 0;
    assert_int_equal(get(cache, 1, 512, &l), 0);
    assert_int_equal(l.loads, 2);
    cg_cache_free(cache);
}

struct racer {
    struct cg_cache *cache;
    struct loader *loader;
    pthread_barrier_t *start;
    _Atomic unsigned *failed;
};

static void *race(void *opaque)
{
    struct racer *r = opaque;

    pthread_barrier_wait(r->start);
    for (unsigned i = 0; i < 2000; i++) {
        if (get(r->cache, 1 + i % 40, 4096, r->loader) < 0)
            atomic_fetch_add(r->failed, 1);
    }
    return NULL;
}

/* Many threads over more objects than fit. */
static void test_race(void **state)
{
    (void)state;
    for (int failing = 0; failing < 2; failing++) {
        struct cg_cache *cache = cg_cache_new(20 * 4096);
        struct loader l = { .result = failing ? -EIO : 0 };
        pthread_barrier_t start;
        _Atomic unsigned failed = 0;
        pthread_t thread[THREADS];
        struct racer r = { cache, &l, &start, &failed };

        pthread_barrier_init(&start, NULL, THREADS);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, race, &r), 0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(thread[i], NULL);
        assert_int_equal(failed, failing ? THREADS * 2000 : 0);
        assert_true(l.loads <= THREADS * 2000);
        pthread_barrier_destroy(&start);
        cg_cache_free(cache);
    }
}

struct pair {
    struct cg_cache *cache;
    struct loader *loader;
    pthread_barrier_t *barrier;
};

static void *first(void *opaque)
{
    struct pair *p = opaque;

    assert_int_equal(get(p->cache, 1, 4096, p->loader), 0);
    return NULL;
}

/* What another is loading isn't loaded again: it can't have begun before the first load, which
 * waits for us, ends. */
static void test_single_flight(void **state)
{
    (void)state;
    struct cg_cache *cache = cg_cache_new(CG_CHUNK_SIZE);
    pthread_barrier_t barrier;
    struct loader l = { .barrier = &barrier };
    struct pair p = { cache, &l, &barrier };
    pthread_t thread;

    pthread_barrier_init(&barrier, NULL, 2);
    assert_int_equal(pthread_create(&thread, NULL, first, &p), 0);
    while (!has(cache, 1, 4096))
        sched_yield();
    assert_int_equal(cg_cache_loads(cache), 1); /* under way */
    pthread_barrier_wait(&barrier);
    assert_int_equal(get(cache, 1, 4096, &l), 0);
    pthread_join(thread, NULL);
    assert_int_equal(l.loads, 1);
    pthread_barrier_destroy(&barrier);
    cg_cache_free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_failed_load),
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_single_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
