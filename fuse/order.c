/* Threads: one worker at a time waits for the kernel in receive, under the mutex receiving; before
 * it lets the next one in it has noted what it got, with a number.  A request counts as answered
 * when its handler is back.  receiving is taken before state, never after it.  Workers are ended by
 * cancelling them where they wait for the kernel, and only there.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <fuse_lowlevel.h>
#include <linux/fuse.h>

#include "core/base/cleanup.h"
#include "fuse/order.h"

struct worker {
    struct cg_order *order;
    struct fuse_session *session;
    pthread_t thread;
    struct fuse_buf buf;
    /* What it's at, guarded by order->state; number 0 for nothing. */
    uint64_t number;
    uint32_t opcode;
    uint64_t ino;
};

struct cg_order {
    pthread_mutex_t receiving;
    pthread_mutex_t state; /* guards what follows up to workers */
    pthread_cond_t answered;
    unsigned waiting; /* for answered */
    uint64_t numbers;
    int result;             /* of the first worker that ended */
    bool greeted;           /* the first request, INIT, went well */
    struct worker *workers; /* in cg_order_serve; of those not started yet, number is 0 */
    size_t count;
    int ended; /* an eventfd: a worker has ended by itself */
    void (*ready)(void);
};

static _Thread_local struct worker *self;

struct cg_order *cg_order_new(void)
{
    struct cg_order *order = calloc(1, sizeof *order);

    if (!order)
        return NULL;
    order->ended = eventfd(0, EFD_CLOEXEC);
    if (order->ended < 0) {
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
    close(order->ended);
    pthread_cond_destroy(&order->answered);
    pthread_mutex_destroy(&order->state);
    pthread_mutex_destroy(&order->receiving);
    free(order);
}

static void note_answered(struct worker *w)
{
    struct cg_order *order = w->order;

    CG_LOCK(&order->state);
    w->number = 0;
    if (order->waiting)
        pthread_cond_broadcast(&order->answered);
}

/* The head of a request as the kernel lays it out, in its own byte order. */
static void note_received(struct worker *w)
{
    struct cg_order *order = w->order;
    struct fuse_in_header head;

    if (w->buf.size < sizeof head)
        return;
    memcpy(&head, w->buf.mem, sizeof head);
    CG_LOCK(&order->state);
    w->number = ++order->numbers;
    w->opcode = head.opcode;
    w->ino = head.nodeid;
}

static void unlock(void *opaque)
{
    pthread_mutex_unlock(opaque);
}

/* Above 0: something was received; 0: the mount is gone; or -errno. */
static int receive(struct worker *w)
{
    int r;

    pthread_mutex_lock(&w->order->receiving);
    pthread_cleanup_push(unlock, &w->order->receiving);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    r = fuse_session_receive_buf(w->session, &w->buf);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    if (r > 0)
        note_received(w);
    pthread_cleanup_pop(1);
    return r;
}

/* False if there is nothing more to be done: libfuse gives up a session that can't begin. */
static bool handle(struct worker *w)
{
    struct cg_order *order = w->order;
    bool first = w->number == 1; /* INIT: the kernel sends no other before its answer */

    fuse_session_process_buf(w->session, &w->buf);
    bool goes_on = !fuse_session_exited(w->session);
    note_answered(w);
    if (first && goes_on) {
        pthread_mutex_lock(&order->state);
        order->greeted = true;
        pthread_mutex_unlock(&order->state);
        order->ready();
    }
    return goes_on;
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    int r;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    self = w;
    do
        r = receive(w);
    while (r == -EINTR || (r > 0 && handle(w)));
    CG_LOCK(&w->order->state);
    if (w->order->result == 0 && r < 0)
        w->order->result = r;
    eventfd_write(w->order->ended, 1);
    return NULL;
}

/* Returns how many threads were started; fewer if the system has no more. */
static unsigned start(struct cg_order *order, struct fuse_session *session)
{
    for (unsigned i = 0; i < order->count; i++) {
        struct worker *w = &order->workers[i];
        w->order = order;
        w->session = session;
        if (pthread_create(&w->thread, NULL, work, w) != 0)
            return i;
    }
    return (unsigned)order->count;
}

int cg_order_serve(struct cg_order *order, struct fuse_session *session, unsigned threads, int stop,
                   void (*ready)(void))
{
    struct pollfd fds[] = { { .fd = stop, .events = POLLIN },
                            { .fd = order->ended, .events = POLLIN } };

    order->workers = calloc(threads, sizeof *order->workers);
    if (!order->workers)
        return -ENOMEM;
    order->count = threads;
    order->ready = ready;
    unsigned started = start(order, session);
    int r = started > 0 ? 0 : -EAGAIN;
    while (r == 0 && poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    bool asked = r == 0 && fds[0].revents;
    fuse_session_exit(session);
    for (unsigned i = 0; i < started; i++)
        pthread_cancel(order->workers[i].thread);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(order->workers[i].thread, NULL);
        free(order->workers[i].buf.mem);
    }
    free(order->workers);
    order->workers = NULL;
    if (r == 0)
        r = order->result;
    return r == 0 && !order->greeted && !asked ? -EPROTO : r;
}

static bool earlier_locked(const struct cg_order *order, uint32_t opcode, uint64_t ino)
{
    for (size_t i = 0; i < order->count; i++) {
        const struct worker *w = &order->workers[i];
        if (w->number && w->number < self->number && w->opcode == opcode &&
            (ino == 0 || w->ino == ino))
            return true;
    }
    return false;
}

/* ino 0: of any file. */
static void wait_for_earlier(struct cg_order *order, uint32_t opcode, uint64_t ino)
{
    CG_LOCK(&order->state);
    while (earlier_locked(order, opcode, ino)) {
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
