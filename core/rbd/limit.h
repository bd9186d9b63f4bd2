/* A time limit for what librbd only does synchronously: it runs in a thread of its own, which is
 * left behind, until the cluster answers, when nobody waits any longer. */
#ifndef CG_RBD_LIMIT_H
#define CG_RBD_LIMIT_H

#include <stdatomic.h>
#include <stdbool.h>

/* So many tasks may be left behind for one thing, before no more are begun for it. */
#define CG_RBD_LEFT_MAX 16

struct cg_rbd_task {
    /* Runs in the thread; returns what librbd said. */
    int (*run)(void *arg);
    /* Called in the thread after run if nobody waited for it: undoes what it did, frees arg. */
    void (*late)(void *arg, int r);
    void *arg;
    /* Counts those left behind for the same thing, and outlives them; NULL: it must run, however
     * many were. */
    atomic_uint *left;
};

/* True: run has ended and *ret_result is what it returned; arg is the caller's as before.  False:
 * it hasn't within so many seconds, and arg belongs to late.  If too many were left behind it isn't
 * run at all, and the result is -ETIMEDOUT. */
bool cg_rbd_limited(const struct cg_rbd_task *task, unsigned seconds, int *ret_result);

#endif
