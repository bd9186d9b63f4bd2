/* Reading ahead for who asks for one piece after the other with few requests in flight, from an
 * image each of whose requests waits for another machine. */
#ifndef CG_IMAGE_READAHEAD_H
#define CG_IMAGE_READAHEAD_H

#include "core/image/image.h"

#define CG_READAHEAD_KEEP_MAX (UINT64_C(48) << 20)

/* base, which gets a reference of its own, to be read only; its bytes must not change while this is
 * open.  Up to four readers at once that go through it in order find what comes next in memory: at
 * most 8 MiB ahead of each, read in parallel, and keep bytes behind it (at most 48 MiB) for who
 * reads things twice; what was read ahead and not used goes after a few seconds with the next read.
 * Small gaps are allowed, and requests a little out of order.  Holes aren't read if base tells them
 * cheaply.  Other reads, and those of readers with many requests in flight, go straight to base.  A
 * failure to read ahead is heard by nobody: the read of that range is made again when it is asked
 * for. Starts no thread before it is needed. */
int cg_readahead_open(struct cg_image *base, uint64_t keep, struct cg_image **ret_image,
                      struct cg_error *err);

#endif
