#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/cleanup.h"
#include "core/rbd/limit.h"

/* Thread model: lock guards done and left; who sets the second of them frees the job. */

struct job {
    struct cg_rbd_task task;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool done; /* the thread is */
    bool left; /* the waiter is gone */
    int result;
};

static struct job *new_job(const struct cg_rbd_task *task)
{
    struct job *job = calloc(1, sizeof *job);
    pthread_condattr_t attr;

    if (!job)
        return NULL;
    job->task = *task;
    pthread_mutex_init(&job->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &attr);
    pthread_condattr_destroy(&attr);
    return job;
}

static void free_job(struct job *job)
{
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

static void *job_main(void *opaque)
{
    struct job *job = opaque;
    int r = job->task.run(job->task.arg);

    pthread_mutex_lock(&job->lock);
    job->result = r;
    job->done = true;
    bool left = job->left;
    atomic_uint *count = job->task.left;
    pthread_cond_signal(&job->changed);
    pthread_mutex_unlock(&job->lock);
    if (left) {
        if (count)
            atomic_fetch_sub(count, 1);
        job->task.late(job->task.arg, r);
        free_job(job);
    }
    return NULL;
}

/* True if the thread is done; false, and it's on its own, if it isn't in time. */
static bool wait_for(struct job *job, unsigned seconds)
{
    struct timespec deadline;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += seconds;
    CG_LOCK(&job->lock);
    while (!job->done) {
        if (pthread_cond_timedwait(&job->changed, &job->lock, &deadline) == ETIMEDOUT)
            break;
    }
    job->left = !job->done;
    if (job->left && job->task.left)
        atomic_fetch_add(job->task.left, 1);
    return job->done;
}

bool cg_rbd_limited(const struct cg_rbd_task *task, unsigned seconds, int *ret_result)
{
    pthread_t thread;

    if (task->left && atomic_load(task->left) >= CG_RBD_LEFT_MAX) {
        *ret_result = -ETIMEDOUT;
        return true;
    }
    struct job *job = new_job(task);
    if (!job) {
        *ret_result = task->run(task->arg);
        return true;
    }
    if (pthread_create(&thread, NULL, job_main, job) != 0) {
        /* It must be done: what was opened has to be closed.  Then nobody can leave it. */
        *ret_result = task->run(task->arg);
        free_job(job);
        return true;
    }
    if (!wait_for(job, seconds)) {
        pthread_detach(thread);
        return false;
    }
    pthread_join(thread, NULL);
    *ret_result = job->result;
    free_job(job);
    return true;
}
