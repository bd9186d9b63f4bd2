/* The images that are open through the mount, and who may not be open beside whom: a volume and one
 * of its partitions are two page caches over the same bytes, so as soon as one of them is open for
 * writing the other can't be opened.  (Two partitions don't overlap, and what can't be written
 * doesn't matter.) */
#ifndef CG_FUSE_OPENS_H
#define CG_FUSE_OPENS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/gateway.h"

struct cg_opens;

/* One open(2). */
struct cg_open {
    const char *path;       /* its name as text */
    struct cg_image *image; /* owned */
    bool write;
    bool direct;            /* reads and writes go around the page cache */
    atomic_bool dirty;      /* written since the last flush by way of this handle */
    _Atomic time_t written; /* when it was last written; 0 for never */
};

/* NULL if memory is short. */
struct cg_opens *cg_opens_new(void);

/* Nothing is open any more.  NULL is fine. */
void cg_opens_free(struct cg_opens *opens);

/* Opens an image.  It goes around the page cache if that's asked for, and if not as long as another
 * handle does: so no page of it is cached that such a write wouldn't reach.  (And through the cache
 * as long as another does.)  For writing its lock is taken now, so that the one who comes second
 * learns it from open(2) and not from a lost write.  -EBUSY: see above, or another process writes
 * it; -EROFS: it can only be read.  The caller closes it.  Any thread. */
int cg_opens_open(struct cg_opens *opens, struct cg_gateway *gateway, const struct cg_name *name,
                  bool write, bool direct, struct cg_open **ret_open, struct cg_error *err);

/* Says that a write by way of this handle has ended, well or not.  Any thread. */
void cg_opens_written(struct cg_open *open);

/* Makes everything stable that was written to the image, by whichever handle.  Any thread. */
int cg_opens_sync(struct cg_open *open, struct cg_error *err);

/* As cg_opens_sync, but does nothing if nothing was written by way of this handle since it was last
 * synced. */
int cg_opens_flush(struct cg_open *open, struct cg_error *err);

/* Flushes and closes.  After a failure to flush it is closed all the same, and err says what was
 * lost. */
int cg_opens_close(struct cg_opens *opens, struct cg_open *open, struct cg_error *err);

/* Closes one of those that are still open, -ENOENT if there is none.  For the end: nothing is in
 * flight. */
int cg_opens_close_any(struct cg_opens *opens, struct cg_error *err);

/* The size of the image at path and when it was last written, if it's open.  Any thread. */
bool cg_opens_find(struct cg_opens *opens, const char *path, uint64_t *ret_size,
                   time_t *ret_written);

#endif
