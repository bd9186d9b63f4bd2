/* The connections of an image over an NBD export. */
#ifndef CG_IMAGE_NBD_POOL_H
#define CG_IMAGE_NBD_POOL_H

#include <stdint.h>

#include "core/base/error.h"

struct cg_nbd_pool;
struct nbd_handle;

/* Connects to uri, once.  The caller frees the pool. */
int cg_nbd_pool_new(const char *uri, struct cg_nbd_pool **ret_pool, struct cg_error *err);

/* Allows up to so many connections, at most 16; more are made when all are in use.  Only where the
 * server says that they share one cache (multi-conn): a flush on any of them covers all then. */
void cg_nbd_pool_grow(struct cg_nbd_pool *pool, unsigned connections);

/* No connection may be borrowed.  NULL is fine. */
void cg_nbd_pool_free(struct cg_nbd_pool *pool);

/* A connection for this thread alone, until it's given back; waits for one.  -EIO when a connection
 * broke: what was acknowledged on it and not flushed may be lost, so nothing goes on as if it
 * hadn't been. */
int cg_nbd_borrow(struct cg_nbd_pool *pool, struct nbd_handle **ret_handle, struct cg_error *err);

/* One that is idle, NULL if none is. */
struct nbd_handle *cg_nbd_borrow_idle(struct cg_nbd_pool *pool);

void cg_nbd_give_back(struct cg_nbd_pool *pool, struct nbd_handle *handle);

/* Gives a connection back after a libnbd call in this thread, and makes the call's result (-1 or
 * not) one of ours; what, len (0: none) and off go into the message. */
int cg_nbd_done(struct cg_nbd_pool *pool, struct nbd_handle *handle, int result, const char *what,
                uint64_t len, uint64_t off, struct cg_error *err);

/* Turns the failure of this thread's last libnbd call into one of ours. */
int cg_nbd_failed(const char *uri, const char *what, uint64_t len, uint64_t off,
                  struct cg_error *err);

#endif
