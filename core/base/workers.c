#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/cleanup.h"
#include "core/base/workers.h"

/* Thread model: a loop's threads share struct loop; next and failed are atomic, the first error is
 * guarded by lock.  A pool's fields are all guarded by its lock. */

struct loop {
    uint64_t items;
    cg_work_fn *fn;
    void *opaque;
    _Atomic uint64_t next;
    atomic_bool failed;
    pthread_mutex_t lock;
    int result;          /* guarded by lock */
    struct cg_error err; /* guarded by lock */
};

struct loop_worker {
    struct loop *loop;
    unsigned number;
    pthread_t thread;
};

static void *loop_main(void *arg)
{
    struct loop_worker *w = arg;
    struct loop *l = w->loop;
    struct cg_error err = { .message = "" };

    while (!atomic_load(&l->failed)) {
        uint64_t item = atomic_fetch_add(&l->next, 1);
        if (item >= l->items)
            break;
        int r = l->fn(l->opaque, item, w->number, &err);
        if (r < 0) {
            CG_LOCK(&l->lock);
            if (l->result == 0) {
                l->result = r;
                l->err = err;
            }
            atomic_store(&l->failed, true);
        }
    }
    return NULL;
}

unsigned cg_processors(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : (unsigned)n;
}

int cg_parallel(uint64_t items, unsigned threads, cg_work_fn *fn, void *opaque,
                struct cg_error *err)
{
    if (threads == 0)
        threads = cg_processors();
    if (threads > items)
        threads = (unsigned)items;
    if (items == 0)
        return 0;
    struct loop l = { .items = items, .fn = fn, .opaque = opaque };
    pthread_mutex_init(&l.lock, NULL);
    struct loop_worker *workers = calloc(threads, sizeof *workers);
    if (!workers)
        return cg_error_set(err, ENOMEM, "start workers");
    unsigned started = 0;
    for (; started + 1 < threads; started++) {
        workers[started] = (struct loop_worker){ .loop = &l, .number = started };
        if (pthread_create(&workers[started].thread, NULL, loop_main, &workers[started]))
            break;
    }
    workers[started] = (struct loop_worker){ .loop = &l, .number = started };
    loop_main(&workers[started]); /* the caller is one of them */
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    free(workers);
    pthread_mutex_destroy(&l.lock);
    if (l.result < 0 && err)
        *err = l.err;
    return l.result;
}

struct task {
    void (*fn)(void *opaque);
    void *opaque;
};

struct cg_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool closing;
    unsigned threads, max_threads, idle;
    pthread_t *thread;
    unsigned first, queued, max_queued; /* a ring of tasks */
    struct task *task;
};

struct cg_pool *cg_pool_new(unsigned threads, unsigned queued)
{
    struct cg_pool *p = calloc(1, sizeof *p);

    if (!p)
        return NULL;
    p->max_threads = threads;
    p->max_queued = queued;
    p->thread = calloc(threads, sizeof *p->thread);
    p->task = calloc(queued, sizeof *p->task);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    if (!p->thread || !p->task) {
        cg_pool_free(p);
        return NULL;
    }
    return p;
}

static void *pool_main(void *arg)
{
    struct cg_pool *p = arg;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->queued == 0 && !p->closing) {
            p->idle++;
            pthread_cond_wait(&p->wake, &p->lock);
            p->idle--;
        }
        if (p->queued == 0)
            break;
        struct task t = p->task[p->first];
        p->first = (p->first + 1) % p->max_queued;
        p->queued--;
        pthread_mutex_unlock(&p->lock);
        t.fn(t.opaque);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

bool cg_pool_submit(struct cg_pool *p, void (*fn)(void *opaque), void *opaque)
{
    CG_LOCK(&p->lock);
    if (p->closing || p->queued == p->max_queued)
        return false;
    if (p->idle <= p->queued && p->threads < p->max_threads &&
        pthread_create(&p->thread[p->threads], NULL, pool_main, p) == 0)
        p->threads++;
    if (p->threads == 0)
        return false;
    p->task[(p->first + p->queued) % p->max_queued] = (struct task){ fn, opaque };
    p->queued++;
    pthread_cond_signal(&p->wake);
    return true;
}

void cg_pool_free(struct cg_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->thread);
    free(p->task);
    free(p);
}
