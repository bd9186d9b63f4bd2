/* One asynchronous call of librbd that is waited for with a time limit.  librbd itself waits for
 * ever when the cluster is away, and goes on when it comes back; what gave up waiting leaves its
 * call to librbd, with the buffers that the call still uses.
 *
 *     r = cg_rbd_call_new(calls, len, &call, err);
 *     if (r == 0)
 *         r = cg_rbd_call_wait(call, rbd_aio_read(image, off, len, call->buf, call->completion));
 *     ...                                     // call->buf is the caller's if r >= 0
 *     cg_rbd_call_unref(call);
 */
#ifndef CG_RBD_CALL_H
#define CG_RBD_CALL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <rbd/librbd.h>

#include "core/base/error.h"

/* What the calls of one image share. */
struct cg_rbd_calls {
    unsigned timeout;                  /* seconds */
    atomic_uint unanswered;            /* calls that somebody gave up waiting for */
    _Atomic uint64_t unanswered_bytes; /* what they hold */
    /* Called once for each call when librbd is done with it and its waiter too. */
    void (*freed)(void *opaque);
    void *opaque;
};

struct cg_rbd_call {
    rbd_completion_t completion;
    void *buf; /* of the length asked for, undefined content; NULL for 0 */
    /* The rest is call.c's. */
    size_t held;
    struct cg_rbd_calls *calls;
    atomic_int state;
    atomic_uint refs;
};

/* len: of buf; held: the bytes that librbd keeps as long as it hasn't answered, buf or a copy of
 * its own.  -ETIMEDOUT at once if so much is unanswered that memory is at stake. */
int cg_rbd_call_new(struct cg_rbd_calls *calls, size_t len, size_t held,
                    struct cg_rbd_call **ret_call, struct cg_error *err);

/* started: what librbd said when the call was begun.  Waits for the answer and returns it (bytes,
 * 0, -errno); -ETIMEDOUT if none came in time. */
int64_t cg_rbd_call_wait(struct cg_rbd_call *call, int started);

/* NULL is fine. */
void cg_rbd_call_unref(struct cg_rbd_call *call);

#endif
