#include "config.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/rbd/call.h"

/* Thread model: a call has two owners, its waiter and librbd (whose thread runs answered()); state
 * goes from WAITING to ANSWERED or to GIVEN_UP, once. */

#define UNANSWERED_MAX 256
#define UNANSWERED_BYTES_MAX (UINT64_C(256) << 20)

enum { WAITING, ANSWERED, GIVEN_UP };

/* Counts a call among the unanswered ones, or no longer. */
static void count(struct cg_rbd_call *call, bool unanswered)
{
    if (unanswered) {
        atomic_fetch_add(&call->calls->unanswered, 1);
        atomic_fetch_add(&call->calls->unanswered_bytes, call->held);
    } else {
        atomic_fetch_sub(&call->calls->unanswered_bytes, call->held);
        atomic_fetch_sub(&call->calls->unanswered, 1);
    }
}

static void answered(rbd_completion_t completion, void *opaque)
{
    struct cg_rbd_call *call = opaque;
    int expected = WAITING;

    (void)completion;
    if (atomic_compare_exchange_strong(&call->state, &expected, ANSWERED))
        syscall(SYS_futex, &call->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    else
        count(call, false);
    cg_rbd_call_unref(call);
}

int cg_rbd_call_new(struct cg_rbd_calls *calls, size_t len, size_t held,
                    struct cg_rbd_call **ret_call, struct cg_error *err)
{
    if (atomic_load(&calls->unanswered) >= UNANSWERED_MAX ||
        atomic_load(&calls->unanswered_bytes) >= UNANSWERED_BYTES_MAX)
        return cg_error_say(err, ETIMEDOUT, "the cluster hasn't answered earlier requests yet");
    struct cg_rbd_call *call = calloc(1, sizeof *call);
    if (!call || (len > 0 && !(call->buf = malloc(len))) ||
        rbd_aio_create_completion(call, answered, &call->completion) < 0) {
        if (call)
            free(call->buf);
        free(call);
        return cg_error_set(err, ENOMEM, "begin a request");
    }
    call->calls = calls;
    call->held = held;
    atomic_init(&call->state, WAITING);
    atomic_init(&call->refs, 2);
    *ret_call = call;
    return 0;
}

/* Sleeps until the state isn't WAITING any more or the deadline is past. */
static void sleep_until(struct cg_rbd_call *call, const struct timespec *deadline)
{
    while (atomic_load(&call->state) == WAITING) {
        if (syscall(SYS_futex, &call->state, FUTEX_WAIT_BITSET_PRIVATE, WAITING, deadline, NULL,
                    FUTEX_BITSET_MATCH_ANY) < 0 &&
            errno == ETIMEDOUT)
            return;
    }
}

int64_t cg_rbd_call_wait(struct cg_rbd_call *call, int started)
{
    struct timespec deadline;
    int expected = WAITING;

    if (started < 0) { /* librbd won't answer */
        cg_rbd_call_unref(call);
        return started;
    }
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += call->calls->timeout;
    sleep_until(call, &deadline);
    count(call, true);
    if (atomic_compare_exchange_strong(&call->state, &expected, GIVEN_UP))
        return -ETIMEDOUT;
    count(call, false);
    return rbd_aio_get_return_value(call->completion);
}

void cg_rbd_call_unref(struct cg_rbd_call *call)
{
    if (!call || atomic_fetch_sub(&call->refs, 1) != 1)
        return;
    rbd_aio_release(call->completion);
    struct cg_rbd_calls *calls = call->calls;
    free(call->buf);
    free(call);
    calls->freed(calls->opaque);
}
