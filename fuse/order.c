/* Threads: one worker at a time waits in read(2) on the kernel's device, under the mutex receiving;
 * before it lets the next one in it has noted what it got, with a number.  What a worker got counts
 * as answered when it comes for more.  receiving is taken before state, never after it.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <fuse_lowlevel.h>
#include <linux/fuse.h>

#include "core/base/cleanup.h"
#include "fuse/fs.h"
#include "fuse/order.h"

struct worker {
    struct cg_order *order;
    /* What it's at, guarded by order->state; number 0 for nothing. */
    uint64_t number;
    uint32_t opcode;
    uint64_t ino;
    struct worker *prev, *next;
};

struct cg_order {
    pthread_mutex_t receiving;
    pthread_mutex_t state; /* guards what follows */
    pthread_cond_t answered;
    unsigned waiting; /* for answered */
    uint64_t numbers;
    struct worker *workers;
    pthread_key_t self; /* each thread's struct worker; set once */
};

static void leave(void *opaque)
{
    struct worker *w = opaque;
    struct cg_order *order = w->order;

    pthread_mutex_lock(&order->state);
    if (w->prev)
        w->prev->next = w->next;
    else
        order->workers = w->next;
    if (w->next)
        w->next->prev = w->prev;
    pthread_cond_broadcast(&order->answered);
    pthread_mutex_unlock(&order->state);
    free(w);
}

struct cg_order *cg_order_new(void)
{
    struct cg_order *order = calloc(1, sizeof *order);

    if (!order)
        return NULL;
    if (pthread_key_create(&order->self, leave) != 0) {
        free(order);
        return NULL;
    }
    pthread_mutex_init(&order->receiving, NULL);
    pthread_mutex_init(&order->state, NULL);
    pthread_cond_init(&order->answered, NULL);
    return order;
}

void cg_order_free(struct cg_order *order)
{
    if (!order)
        return;
    pthread_key_delete(order->self);
    pthread_cond_destroy(&order->answered);
    pthread_mutex_destroy(&order->state);
    pthread_mutex_destroy(&order->receiving);
    free(order);
}

/* The calling thread's entry, made when it comes for the first time; NULL if memory is short. */
static struct worker *self(struct cg_order *order)
{
    struct worker *w = pthread_getspecific(order->self);

    if (w)
        return w;
    w = calloc(1, sizeof *w);
    if (!w || pthread_setspecific(order->self, w) != 0) {
        free(w);
        return NULL;
    }
    w->order = order;
    CG_LOCK(&order->state);
    w->next = order->workers;
    if (w->next)
        w->next->prev = w;
    order->workers = w;
    return w;
}

static void note_answered(struct cg_order *order)
{
    struct worker *w = pthread_getspecific(order->self);

    CG_LOCK(&order->state);
    w->number = 0;
    if (order->waiting)
        pthread_cond_broadcast(&order->answered);
}

/* The head of a request as the kernel lays it out, in its own byte order. */
static void note_received(struct cg_order *order, struct worker *w, const void *buf, ssize_t len)
{
    struct fuse_in_header head;

    if (len < (ssize_t)sizeof head)
        return;
    memcpy(&head, buf, sizeof head);
    CG_LOCK(&order->state);
    w->number = ++order->numbers;
    w->opcode = head.opcode;
    w->ino = head.nodeid;
}

static void unlock(void *opaque)
{
    pthread_mutex_unlock(opaque);
}

/* Under receiving. */
static ssize_t receive_next(struct cg_order *order, int fd, void *buf, size_t len)
{
    ssize_t n = read(fd, buf, len);

    if (n > 0)
        note_received(order, pthread_getspecific(order->self), buf, n);
    return n;
}

static ssize_t receive(int fd, void *buf, size_t len, void *userdata)
{
    struct cg_order *order = ((struct cg_fs *)userdata)->order;
    ssize_t n;

    if (!self(order)) {
        errno = ENOMEM;
        return -1;
    }
    note_answered(order);
    pthread_mutex_lock(&order->receiving);
    pthread_cleanup_push(unlock, &order->receiving); /* workers are ended by cancelling */
    n = receive_next(order, fd, buf, len);
    pthread_cleanup_pop(1);
    return n;
}

static ssize_t reply(int fd, struct iovec *v, int count, void *userdata)
{
    (void)userdata;
    return writev(fd, v, count);
}

int cg_order_install(struct cg_order *order, struct fuse_session *session)
{
    const struct fuse_custom_io io = { .read = receive, .writev = reply };

    (void)order;
    return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

static bool earlier_locked(const struct cg_order *order, const struct worker *me, uint32_t opcode,
                           uint64_t ino)
{
    for (const struct worker *w = order->workers; w; w = w->next) {
        if (w->number && w->number < me->number && w->opcode == opcode &&
            (ino == 0 || w->ino == ino))
            return true;
    }
    return false;
}

/* ino 0: of any file. */
static void wait_for_earlier(struct cg_order *order, uint32_t opcode, uint64_t ino)
{
    struct worker *me = pthread_getspecific(order->self);

    if (!me)
        return;
    CG_LOCK(&order->state);
    while (earlier_locked(order, me, opcode, ino)) {
        order->waiting++;
        pthread_cond_wait(&order->answered, &order->state);
        order->waiting--;
    }
}

void cg_order_after_releases(struct cg_order *order)
{
    wait_for_earlier(order, FUSE_RELEASE, 0);
}

void cg_order_after_reads(struct cg_order *order, uint64_t ino)
{
    wait_for_earlier(order, FUSE_READ, ino);
}
