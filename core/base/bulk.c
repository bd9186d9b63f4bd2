#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

/* Thread model: direct is opened under lock and then stays open; refused is atomic. */

#define LARGE_PAGE ((size_t)2 << 20)

/* The most that a device or a file system asks of the alignment of direct writes. */
#define ALIGNMENT 4096

/* Smaller ones are faster through the cache, which gathers them. */
#define DIRECT_MIN ((size_t)128 << 10)

struct cg_bulk {
    int fd;
    atomic_bool refused; /* no direct writes to this file */
    pthread_mutex_t lock;
    int direct; /* guarded by lock: a descriptor with O_DIRECT; -1: not opened yet */
};

void *cg_bulk_buffer(size_t size)
{
    size_t alignment = size < LARGE_PAGE ? ALIGNMENT : LARGE_PAGE;
    void *buf = aligned_alloc(alignment, (size_t)cg_round_up(size, alignment));

    if (buf && size >= LARGE_PAGE)
        madvise(buf, size, MADV_HUGEPAGE); /* only a wish */
    return buf;
}

struct cg_bulk *cg_bulk_new(int fd)
{
    struct cg_bulk *bulk = calloc(1, sizeof *bulk);

    if (!bulk)
        return NULL;
    bulk->fd = fd;
    bulk->direct = -1;
    pthread_mutex_init(&bulk->lock, NULL);
    return bulk;
}

void cg_bulk_free(struct cg_bulk *bulk)
{
    if (!bulk)
        return;
    if (bulk->direct >= 0)
        close(bulk->direct);
    pthread_mutex_destroy(&bulk->lock);
    free(bulk);
}

/* A description of its own: O_DIRECT would otherwise also be fd's.  -1 if there is none. */
static int direct_fd(struct cg_bulk *bulk)
{
    char path[64];

    CG_LOCK(&bulk->lock);
    if (bulk->direct < 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", bulk->fd);
        bulk->direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK);
    }
    return bulk->direct;
}

/* The aligned part of a range, relative to off; false if it isn't worth it. */
static bool direct_part(const void *buf, size_t len, uint64_t off, size_t *ret_start,
                        size_t *ret_end)
{
    if (len < DIRECT_MIN || (uintptr_t)buf % ALIGNMENT != off % ALIGNMENT)
        return false;
    *ret_start = (size_t)(cg_round_up(off, ALIGNMENT) - off);
    *ret_end = (size_t)(cg_round_down(off + len, ALIGNMENT) - off);
    return *ret_end - *ret_start >= DIRECT_MIN;
}

int cg_bulk_pwrite(struct cg_bulk *bulk, const void *buf, size_t len, uint64_t off)
{
    const uint8_t *p = buf;
    size_t start, end;

    if (atomic_load_explicit(&bulk->refused, memory_order_relaxed) ||
        !direct_part(buf, len, off, &start, &end))
        return cg_pwrite_full(bulk->fd, buf, len, off);
    int fd = direct_fd(bulk);
    int r = fd < 0 ? -EINVAL : cg_pwrite_full(fd, p + start, end - start, off + start);
    if (r == -EINVAL) { /* wants another alignment, or knows no direct writes */
        atomic_store(&bulk->refused, true);
        return cg_pwrite_full(bulk->fd, buf, len, off);
    }
    if (r == 0)
        r = cg_pwrite_full(bulk->fd, buf, start, off);
    return r < 0 ? r : cg_pwrite_full(bulk->fd, p + end, len - end, off + end);
}
