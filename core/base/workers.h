/* Threads for the jobs: a parallel loop, and a small pool for work nobody waits for. */
#ifndef CG_BASE_WORKERS_H
#define CG_BASE_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

/* Does item; worker is a number below the loop's threads that no other call has at the same
 * time, to pick a buffer by.  Returns 0 or -errno with err set. */
typedef int cg_work_fn(void *opaque, uint64_t item, unsigned worker, struct cg_error *err);

/* Calls fn for each item from 0 to items - 1, in about that order, in up to threads threads of its
 * own (0: the number of processors).  After a failure no further item is begun.  Returns when no
 * call is running: 0, or the first failure. */
int cg_parallel(uint64_t items, unsigned threads, cg_work_fn *fn, void *opaque,
                struct cg_error *err);

/* The processors that this process may use, at least 1. */
unsigned cg_processors(void);

struct cg_pool;

/* A pool of up to threads threads and at most queued waiting tasks.  Starts no thread before the
 * first task, so it may be made before a fork.  NULL if memory is short. */
struct cg_pool *cg_pool_new(unsigned threads, unsigned queued);

/* Has fn(opaque) called in a thread of the pool.  False, and nothing happens, if the queue is full,
 * the pool is closing or no thread can be had.  Any thread. */
bool cg_pool_submit(struct cg_pool *pool, void (*fn)(void *opaque), void *opaque);

/* Takes no more tasks, runs those that wait, joins the threads, frees.  NULL is fine. */
void cg_pool_free(struct cg_pool *pool);

#endif
