/* The kernel's requests in the order in which it made them.
 *
 * When a program closes a volume and opens it again, it must see what others wrote in between.  But
 * all handles of one volume in one process share one view of it, which ends with the last of them,
 * and the kernel doesn't wait for the answer when it tells us of a close (RELEASE): a worker may
 * come to the next OPEN before another one has dealt with the RELEASE that it received.  So an OPEN
 * waits for the RELEASEs that were received before it.  And since the kernel sends RELEASE only
 * when it has no more reads ahead under way, FLUSH, for which close(2) waits, waits for those.
 */
#ifndef CG_FUSE_ORDER_H
#define CG_FUSE_ORDER_H

#include <stdint.h>

struct cg_order;
struct fuse_session;

/* NULL if memory is short. */
struct cg_order *cg_order_new(void);

/* No thread is in the session any more.  NULL is fine. */
void cg_order_free(struct cg_order *order);

/* Handles the requests of a mounted session in so many threads, until its mount is gone or the
 * descriptor stop can be read.  Calls ready, in one of them, when the kernel has been greeted: the
 * mount is usable then.  Returns 0 or -errno; -EPROTO: libfuse and the kernel couldn't agree. */
int cg_order_serve(struct cg_order *order, struct fuse_session *session, unsigned threads, int stop,
                   void (*ready)(void));

/* In a worker's handling of a request: waits until those of its kind that were received earlier
 * have been answered. */
void cg_order_after_releases(struct cg_order *order);
void cg_order_after_reads(struct cg_order *order, uint64_t ino);

#endif
