#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/base/workers.h"
#include "core/image/nbd.h"
#include "core/image/nbd_pool.h"

/* Thread model: no threads of its own; each request borrows a connection from the pool.  edge_lock
 * orders writes of partial blocks (exclusive, as they read first) against all other writes
 * (shared). It is held during requests; those end at the latest when the connection does. sync_lock
 * guards sync_error. */

#define CONNECTIONS_MAX 4
#define DATA_MAX (UINT32_C(32) << 20) /* a request's payload, unless the server says less */
#define RANGE_MAX (UINT64_C(1) << 30) /* of a request without payload: lengths have 32 bits */

struct nbd {
    char *uri;
    struct cg_nbd_pool *pool;
    uint64_t own;     /* bytes of the export */
    uint64_t size;    /* own rounded up to 512: zeros follow */
    uint32_t minimum; /* what requests must be aligned to */
    uint32_t maximum; /* bytes of a read or write */
    bool can_fua, can_flush, can_fast_zero;
    struct cg_image_ops ops; /* without what the server can't */
    pthread_rwlock_t edge_lock;
    pthread_mutex_t sync_lock;
    int sync_error; /* guarded by sync_lock: the errno of a failed flush, for ever */
};

/* The aligned range around another, within the export. */
static void widen(struct nbd *n, uint64_t *len, uint64_t *off)
{
    uint64_t end = cg_min(cg_round_up(*off + *len, n->minimum), n->own);

    *off = cg_round_down(*off, n->minimum);
    *len = end - *off;
}

static bool aligned(struct nbd *n, uint64_t len, uint64_t off)
{
    uint64_t end = off + len;

    return off % n->minimum == 0 && (end % n->minimum == 0 || end == n->own);
}

/* Reads an aligned range. */
static int read_blocks(struct nbd *n, uint8_t *buf, size_t len, uint64_t off, struct cg_error *err)
{
    while (len > 0) {
        size_t piece = (size_t)cg_min(len, n->maximum);
        struct nbd_handle *h;
        int r = cg_nbd_borrow(n->pool, &h, err);
        if (r == 0)
            r = cg_nbd_done(n->pool, h, nbd_pread(h, buf, piece, off, 0), "read", piece, off, err);
        if (r < 0)
            return r;
        buf += piece;
        len -= piece;
        off += piece;
    }
    return 0;
}

/* The blocks around a range in memory that the caller frees; *ret_skip is where the range begins in
 * it. */
static int read_around(struct nbd *n, uint64_t len, uint64_t off, uint8_t **ret_buf,
                       uint64_t *ret_skip, struct cg_error *err)
{
    uint64_t whole = len, start = off;

    widen(n, &whole, &start);
    uint8_t *buf = malloc(whole);
    if (!buf)
        return cg_error_set(err, ENOMEM, "read %s", n->uri);
    int r = read_blocks(n, buf, whole, start, err);
    if (r < 0) {
        free(buf);
        return r;
    }
    *ret_buf = buf;
    *ret_skip = off - start;
    return 0;
}

static int nbd_image_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct nbd *n = self;
    size_t own = off < n->own ? (size_t)cg_min(len, n->own - off) : 0;

    memset((uint8_t *)buf + own, 0, len - own);
    if (own == 0 || aligned(n, own, off))
        return read_blocks(n, buf, own, off, err);
    CG_CLEANUP(cg_free) uint8_t *around = NULL;
    uint64_t skip;
    int r = read_around(n, own, off, &around, &skip, err);
    if (r == 0)
        memcpy(buf, around + skip, own);
    return r;
}

static int nbd_image_flush(void *self, struct cg_error *err)
{
    struct nbd *n = self;
    struct nbd_handle *h;

    if (!n->can_flush) /* the server has nothing to flush */
        return 0;
    pthread_mutex_lock(&n->sync_lock);
    int failed = n->sync_error;
    pthread_mutex_unlock(&n->sync_lock);
    if (failed)
        return cg_error_set(err, failed, "an earlier flush of %s failed", n->uri);
    int r = cg_nbd_borrow(n->pool, &h, err);
    if (r < 0)
        return r;
    r = cg_nbd_done(n->pool, h, nbd_flush(h, 0), "flush", 0, 0, err);
    if (r < 0) {
        CG_LOCK(&n->sync_lock);
        n->sync_error = -r;
    }
    return r;
}

enum command { WRITE, TRIM, ZERO };

static int send_command(struct nbd_handle *h, enum command command, const void *buf, uint64_t len,
                        uint64_t off, uint32_t flags)
{
    switch (command) {
    case WRITE:
        return nbd_pwrite(h, buf, len, off, flags);
    case TRIM:
        return nbd_trim(h, len, off, flags);
    case ZERO:
        return nbd_zero(h, len, off, flags);
    }
    abort();
}

/* Does a command over an aligned range, in pieces. */
static int change_blocks(struct nbd *n, enum command command, const void *buf, uint64_t len,
                         uint64_t off, uint32_t flags, struct cg_error *err)
{
    static const char *const words[] = { "write", "trim", "zero" };
    uint64_t most = command == WRITE ? n->maximum : RANGE_MAX;
    const uint8_t *p = buf;

    while (len > 0) {
        uint64_t piece = cg_min(len, most);
        struct nbd_handle *h;
        int r = cg_nbd_borrow(n->pool, &h, err);
        if (r == 0)
            r = cg_nbd_done(n->pool, h, send_command(h, command, p, piece, off, flags),
                            words[command], piece, off, err);
        if (r < 0)
            return r;
        p = p ? p + piece : NULL;
        len -= piece;
        off += piece;
    }
    return 0;
}

/* Writes a range that isn't made of whole blocks; buf NULL: zeros. */
static int write_around(struct nbd *n, const void *buf, uint64_t len, uint64_t off, uint32_t flags,
                        struct cg_error *err)
{
    CG_CLEANUP(cg_free) uint8_t *around = NULL;
    CG_LOCK_EXCLUSIVE(&n->edge_lock);
    uint64_t skip;
    int r = read_around(n, len, off, &around, &skip, err);

    if (r < 0)
        return r;
    if (buf)
        memcpy(around + skip, buf, len);
    else
        memset(around + skip, 0, len);
    widen(n, &len, &off);
    return change_blocks(n, WRITE, around, len, off, flags, err);
}

/* As change_blocks, beside writes of partial blocks. */
static int change(struct nbd *n, enum command command, const void *buf, uint64_t len, uint64_t off,
                  uint32_t flags, struct cg_error *err)
{
    CG_LOCK_SHARED(&n->edge_lock);
    return change_blocks(n, command, buf, len, off, flags, err);
}

static uint32_t fua_flag(struct nbd *n, unsigned flags)
{
    return (flags & CG_FUA) && n->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
}

/* A server that doesn't know FUA is asked to flush instead. */
static int make_stable(struct nbd *n, unsigned flags, struct cg_error *err)
{
    return (flags & CG_FUA) && !n->can_fua ? nbd_image_flush(n, err) : 0;
}

static int nbd_image_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                            struct cg_error *err)
{
    struct nbd *n = self;
    int r = aligned(n, len, off) ? change(n, WRITE, buf, len, off, fua_flag(n, flags), err)
                                 : write_around(n, buf, len, off, fua_flag(n, flags), err);

    return r < 0 ? r : make_stable(n, flags, err);
}

/* The whole blocks within a range: *ret_end <= *ret_start if there is none. */
static void whole_blocks(struct nbd *n, uint64_t len, uint64_t off, uint64_t *ret_start,
                         uint64_t *ret_end)
{
    uint64_t end = off + len;

    *ret_start = cg_round_up(off, n->minimum);
    *ret_end = end == n->own ? end : cg_round_down(end, n->minimum);
}

static int nbd_image_trim(void *self, uint64_t len, uint64_t off, unsigned flags,
                          struct cg_error *err)
{
    struct nbd *n = self;
    uint64_t start, end;
    int r = 0;

    whole_blocks(n, len, off, &start, &end);
    if (start < end)
        r = change(n, TRIM, NULL, end - start, start, fua_flag(n, flags), err);
    return r < 0 ? r : make_stable(n, flags, err);
}

static int zero_edge(struct nbd *n, uint64_t start, uint64_t end, uint32_t flags,
                     struct cg_error *err)
{
    return start < end ? write_around(n, NULL, end - start, start, flags, err) : 0;
}

static int nbd_image_zero(void *self, uint64_t len, uint64_t off, unsigned flags,
                          struct cg_error *err)
{
    struct nbd *n = self;
    uint32_t fua = fua_flag(n, flags), f = fua;
    uint64_t start, end;
    int r;

    if ((flags & CG_FAST) && !n->can_fast_zero)
        return cg_error_say(err, ENOTSUP, "%s can't tell whether it zeroes fast", n->uri);
    if (!(flags & CG_MAY_TRIM))
        f |= LIBNBD_CMD_FLAG_NO_HOLE;
    if (flags & CG_FAST)
        f |= LIBNBD_CMD_FLAG_FAST_ZERO;
    whole_blocks(n, len, off, &start, &end);
    if (start >= end) {
        r = zero_edge(n, off, off + len, fua, err);
    } else {
        r = change(n, ZERO, NULL, end - start, start, f, err);
        if (r == 0)
            r = zero_edge(n, off, start, fua, err);
        if (r == 0)
            r = zero_edge(n, end, off + len, fua, err);
    }
    return r < 0 ? r : make_stable(n, flags, err);
}

struct status {
    struct cg_extents *e;
    struct cg_error *err;
    int result;
};

/* base:allocation: a hole that isn't known to read as zeros is data to us. */
static enum cg_extent_type extent_type(uint32_t flags)
{
    if (!(flags & LIBNBD_STATE_ZERO))
        return CG_DATA;
    return flags & LIBNBD_STATE_HOLE ? CG_HOLE : CG_ZERO;
}

/* One answer to a block status request: pairs of length and flags. */
static int add_status(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                      size_t count, int *error)
{
    struct status *s = opaque;

    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
        return 0;
    for (size_t i = 0; s->result == 0 && i + 1 < count; i += 2) {
        offset += entries[i];
        s->result = cg_extents_to(s->e, offset, extent_type(entries[i + 1]), s->err);
    }
    return 0;
}

static int nbd_image_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct nbd *n = self;
    struct status s = { .e = e, .err = err };
    uint64_t off = e->next, len = cg_min(e->end - off, RANGE_MAX);
    struct nbd_handle *h;

    if (off >= n->own)
        return cg_extents_to(e, e->end, CG_HOLE, err);
    widen(n, &len, &off);
    int r = cg_nbd_borrow(n->pool, &h, err);
    if (r < 0)
        return r;
    nbd_extent_callback callback = { .callback = add_status, .user_data = &s };
    r = cg_nbd_done(n->pool, h, nbd_block_status(h, len, off, callback, 0),
                    "ask for the extents of", len, off, err);
    return r < 0 ? r : s.result;
}

static uint64_t nbd_image_size(void *self)
{
    struct nbd *n = self;
    return n->size;
}

static int forget(void *opaque, int *error)
{
    (void)opaque;
    (void)error;
    return 1; /* retire the command: nobody asks for its result */
}

/* Sends the request on a connection that has nothing to do; the answer is taken in by the next
 * request on it. */
static void nbd_image_prefetch(void *self, uint64_t len, uint64_t off)
{
    struct nbd *n = self;
    nbd_completion_callback callback = { .callback = forget };

    if (off >= n->own)
        return;
    len = cg_min(len, n->maximum);
    widen(n, &len, &off);
    struct nbd_handle *h = cg_nbd_borrow_idle(n->pool);
    if (!h)
        return;
    nbd_aio_cache(h, len, off, callback, 0);
    cg_nbd_give_back(n->pool, h);
}

static void nbd_image_close(void *self)
{
    struct nbd *n = self;

    cg_nbd_pool_free(n->pool);
    pthread_mutex_destroy(&n->sync_lock);
    pthread_rwlock_destroy(&n->edge_lock);
    free(n->uri);
    free(n);
}

static const struct cg_image_ops nbd_ops = {
    .name = "nbd",
    .pread = nbd_image_pread,
    .pwrite = nbd_image_pwrite,
    .flush = nbd_image_flush,
    .trim = nbd_image_trim,
    .zero = nbd_image_zero,
    .extents = nbd_image_extents,
    .size = nbd_image_size,
    .prefetch = nbd_image_prefetch,
    .close = nbd_image_close,
    .remote = true,
    .cheap_extents = true,
};

/* Sizes of blocks; what the server doesn't say is what the protocol has clients assume. */
static int measure(struct nbd *n, struct nbd_handle *h, bool write, struct cg_error *err)
{
    int64_t size = nbd_get_size(h);
    int64_t minimum = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t maximum = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    if (size < 0 || minimum < 0 || maximum < 0)
        return cg_nbd_failed(n->uri, "ask the size of", 0, 0, err);
    if ((uint64_t)size > CG_IMAGE_MAX)
        return cg_error_say(err, EFBIG, "%s has more than 4 EiB", n->uri);
    n->own = (uint64_t)size;
    n->size = cg_round_up(n->own, CG_SECTOR);
    n->minimum = minimum ? (uint32_t)minimum : CG_SECTOR;
    n->maximum = maximum ? (uint32_t)cg_min((uint64_t)maximum, DATA_MAX) : DATA_MAX;
    if ((n->minimum & (n->minimum - 1)) || n->minimum > n->maximum)
        return cg_error_say(err, EPROTO, "%s has blocks of %u to %u bytes, which makes no sense",
                            n->uri, n->minimum, n->maximum);
    n->maximum = (uint32_t)cg_round_down(n->maximum, n->minimum);
    if (write && n->size != n->own)
        return cg_error_say(err, EINVAL,
                            "%s has %llu bytes, not a multiple of 512: it can only be read", n->uri,
                            (unsigned long long)n->own);
    return 0;
}

static int ask_abilities(struct nbd *n, struct nbd_handle *h, bool write, struct cg_error *err)
{
    int read_only = nbd_is_read_only(h), multi = nbd_can_multi_conn(h);
    int context = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION);
    int trim = nbd_can_trim(h), zero = nbd_can_zero(h), fast = nbd_can_fast_zero(h);
    int fua = nbd_can_fua(h), flush = nbd_can_flush(h), cache = nbd_can_cache(h);

    if (read_only < 0 || multi < 0 || context < 0 || trim < 0 || zero < 0 || fast < 0 || fua < 0 ||
        flush < 0 || cache < 0)
        return cg_nbd_failed(n->uri, "ask the abilities of", 0, 0, err);
    if (write && read_only)
        return cg_error_say(err, EROFS, "the server of %s lets it only be read", n->uri);
    n->ops = nbd_ops;
    if (!context)
        n->ops.extents = NULL;
    if (!trim)
        n->ops.trim = NULL;
    if (!zero)
        n->ops.zero = NULL;
    if (!cache)
        n->ops.prefetch = NULL;
    n->can_fua = fua;
    n->can_flush = flush;
    n->can_fast_zero = fast;
    if (multi)
        cg_nbd_pool_grow(n->pool, (unsigned)cg_min(CONNECTIONS_MAX, 2 * cg_processors()));
    return 0;
}

static int open_export(struct nbd *n, bool write, struct cg_error *err)
{
    struct nbd_handle *h;
    int r = cg_nbd_pool_new(n->uri, &n->pool, err);

    if (r == 0)
        r = cg_nbd_borrow(n->pool, &h, err);
    if (r < 0)
        return r;
    r = measure(n, h, write, err);
    if (r == 0)
        r = ask_abilities(n, h, write, err);
    cg_nbd_give_back(n->pool, h);
    return r;
}

int cg_nbd_open(const char *uri, bool write, struct cg_image **ret_image, struct cg_error *err)
{
    struct nbd *n = calloc(1, sizeof *n);
    struct cg_image *image;
    int r;

    if (!n)
        return cg_error_set(err, ENOMEM, "open %s", uri);
    pthread_rwlock_init(&n->edge_lock, NULL);
    pthread_mutex_init(&n->sync_lock, NULL);
    n->uri = strdup(uri);
    r = n->uri ? open_export(n, write, err) : cg_error_set(err, ENOMEM, "open %s", uri);
    if (r < 0)
        goto fail;
    image = cg_image_new(&n->ops, n, !write);
    if (!image) {
        r = cg_error_set(err, ENOMEM, "open %s", uri);
        goto fail;
    }
    *ret_image = image;
    return 0;
fail:
    nbd_image_close(n);
    return r;
}
