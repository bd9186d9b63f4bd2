/* What moving much data fast takes: buffers in large pages, and writes around the page cache.  A
 * job that fills an image and ends with a flush has nothing of the cache but its costs: a copy, a
 * page to find for each 4 KiB, writers of one file that wait for each other. */
#ifndef CG_BASE_BULK_H
#define CG_BASE_BULK_H

#include <stddef.h>
#include <stdint.h>

/* size bytes for I/O, in large pages where the kernel has them; free() frees them.  NULL if memory
 * is short. */
void *cg_bulk_buffer(size_t size);

struct cg_bulk;

/* For writes to the file or device fd, which stays the caller's.  Opens nothing before the first
 * large write.  NULL if memory is short. */
struct cg_bulk *cg_bulk_new(int fd);

/* NULL is fine. */
void cg_bulk_free(struct cg_bulk *bulk);

/* As cg_pwrite_full to the file.  Large writes whose buffer is as aligned as their place go around
 * the page cache, unless the file can't have it so.  The kernel keeps the two ways coherent; an
 * fsync of fd covers both.  Any thread. */
int cg_bulk_pwrite(struct cg_bulk *bulk, const void *buf, size_t len, uint64_t off);

#endif
