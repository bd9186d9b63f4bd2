#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/rbd/call.h"
#include "core/rbd/rbd_image.h"

/* Thread model: librbd's handle takes calls from any thread.  The struct stays until librbd is done
 * with its last call: refs counts those and the owner. */

struct cg_rbd_image {
    struct cg_rbd_cluster *cluster; /* pinned */
    const struct cg_rbd_config *config;
    rbd_image_t image; /* set by librbd when the open is answered */
    struct cg_rbd_calls calls;
    atomic_uint refs;
    char *text;
    bool write, snapshot;
    void (*done)(void *opaque); /* of the wrapping */
    void *opaque;
    uint64_t watch;       /* of updates; 0 for none */
    atomic_bool outdated; /* the size may have changed */
    _Atomic uint64_t size;
};

static void unref(void *opaque)
{
    struct cg_rbd_image *im = opaque;

    if (atomic_fetch_sub(&im->refs, 1) != 1)
        return;
    cg_rbd_cluster_unpin(im->cluster);
    free(im->text);
    free(im);
}

static int begin(struct cg_rbd_image *im, size_t len, struct cg_rbd_call **ret_call,
                 struct cg_error *err)
{
    atomic_fetch_add(&im->refs, 1);
    int r = cg_rbd_call_new(&im->calls, len, ret_call, err);
    if (r < 0)
        unref(im);
    return r;
}

static int failed(struct cg_rbd_image *im, int64_t r, const char *what, struct cg_error *err)
{
    if (r == -ETIMEDOUT)
        return cg_error_say(err, ETIMEDOUT, "%s %s: the cluster didn't answer within %u s", what,
                            im->text, im->calls.timeout);
    return cg_rbd_failed((int)r, err, "%s %s", what, im->text);
}

/* Waits for a call that moves no data back, and gives it up. */
static int finish(struct cg_rbd_image *im, struct cg_rbd_call *call, int started, const char *what,
                  struct cg_error *err)
{
    int64_t r = cg_rbd_call_wait(call, started);

    cg_rbd_call_unref(call);
    return r < 0 ? failed(im, r, what, err) : 0;
}

static void updated(void *opaque)
{
    struct cg_rbd_image *im = opaque;

    atomic_store(&im->outdated, true);
}

static int start(struct cg_rbd_image *im, struct cg_error *err)
{
    uint64_t size;

    if (im->write) {
        int r = rbd_update_watch(im->image, &im->watch, updated, im);
        if (r < 0)
            return failed(im, r, "watch", err);
    }
    int r = rbd_get_size(im->image, &size);
    if (r < 0)
        return failed(im, r, "ask for the size of", err);
    atomic_store(&im->size, size);
    return 0;
}

static int open_image(struct cg_rbd_image *im, rados_ioctx_t io, const char *image,
                      const char *snapshot, struct cg_error *err)
{
    struct cg_rbd_call *call;
    int r = begin(im, 0, &call, err);

    if (r < 0)
        return r;
    const char *snap = *snapshot ? snapshot : NULL;
    int started = im->write ? rbd_aio_open(io, image, &im->image, snap, call->completion)
                            : rbd_aio_open_read_only(io, image, &im->image, snap, call->completion);
    int64_t n = cg_rbd_call_wait(call, started);
    cg_rbd_call_unref(call);
    if (n == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", im->text);
    return n < 0 ? failed(im, n, "open", err) : 0;
}

int cg_rbd_image_open(struct cg_rbd_cluster *cluster, const struct cg_rbd_config *config,
                      rados_ioctx_t io, const char *image, const char *snapshot, bool write,
                      const char *text, struct cg_rbd_image **ret_image, struct cg_error *err)
{
    struct cg_rbd_image *im = calloc(1, sizeof *im);

    if (!im || !(im->text = strdup(text))) {
        free(im);
        return cg_error_set(err, ENOMEM, "open %s", text);
    }
    im->cluster = cluster;
    im->config = config;
    im->write = write && !*snapshot;
    im->snapshot = *snapshot;
    im->calls.timeout = config->timeout;
    im->calls.freed = unref;
    im->calls.opaque = im;
    atomic_init(&im->refs, 1);
    cg_rbd_cluster_pin(cluster);
    int r = open_image(im, io, image, snapshot, err);
    if (r < 0) {
        unref(im); /* one that is opened later after all stays open: nobody is there to close it */
        return r;
    }
    r = start(im, err);
    if (r < 0) {
        cg_rbd_image_close(im);
        return r;
    }
    *ret_image = im;
    return 0;
}

void cg_rbd_image_close(struct cg_rbd_image *im)
{
    struct cg_rbd_call *call;

    if (!im)
        return;
    if (im->watch)
        rbd_update_unwatch(im->image, im->watch);
    if (begin(im, 0, &call, NULL) == 0) {
        cg_rbd_call_wait(call, rbd_aio_close(im->image, call->completion));
        cg_rbd_call_unref(call);
    }
    unref(im);
}

rbd_image_t cg_rbd_image_handle(struct cg_rbd_image *im)
{
    return im->image;
}

static int image_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    int r = begin(im, len, &call, err);

    if (r < 0)
        return r;
    int64_t n =
        cg_rbd_call_wait(call, rbd_aio_read(im->image, off, len, call->buf, call->completion));
    if (n < 0)
        r = failed(im, n, "read", err);
    else if ((uint64_t)n != len)
        r = cg_error_say(err, EIO, "read %s: it ends within the request: it was shrunk", im->text);
    else
        memcpy(buf, call->buf, len);
    cg_rbd_call_unref(call);
    return r;
}

static int image_flush(void *self, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    int r = begin(im, 0, &call, err);

    return r < 0 ? r : finish(im, call, rbd_aio_flush(im->image, call->completion), "flush", err);
}

/* FUA: without a write-back cache a write is stable when it's acknowledged. */
static int settle(struct cg_rbd_image *im, unsigned flags, struct cg_error *err)
{
    if ((flags & CG_FUA) && im->config->cache == CG_RBD_CACHE_WRITEBACK)
        return image_flush(im, err);
    return 0;
}

static int image_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                        struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    int r = begin(im, 0, &call, err);

    if (r < 0)
        return r;
    /* librbd copies buf before it returns: see rbd_disable_zero_copy_writes. */
    r = finish(im, call, rbd_aio_write(im->image, off, len, buf, call->completion), "write", err);
    return r < 0 ? r : settle(im, flags, err);
}

static int image_trim(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    int r = begin(im, 0, &call, err);

    if (r < 0)
        return r;
    r = finish(im, call, rbd_aio_discard(im->image, off, len, call->completion), "trim", err);
    return r < 0 ? r : settle(im, flags, err);
}

static int image_zero(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    int zero_flags = flags & CG_MAY_TRIM ? 0 : RBD_WRITE_ZEROES_FLAG_THICK_PROVISION;
    int r;

    if ((flags & CG_FAST) && zero_flags)
        return cg_error_set(err, ENOTSUP, "zero %s", im->text);
    r = begin(im, 0, &call, err);
    if (r < 0)
        return r;
    r = finish(im, call, rbd_aio_write_zeroes(im->image, off, len, call->completion, zero_flags, 0),
               "zero", err);
    return r < 0 ? r : settle(im, flags, err);
}

static uint64_t image_size(void *self)
{
    struct cg_rbd_image *im = self;
    uint64_t size;

    if (atomic_exchange(&im->outdated, false) && rbd_get_size(im->image, &size) == 0)
        atomic_store(&im->size, size);
    return atomic_load(&im->size);
}

static int image_resize(void *self, uint64_t size, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    int r = rbd_resize2(im->image, size, false, NULL, NULL);

    if (r < 0)
        return failed(im, r, "resize", err);
    atomic_store(&im->outdated, true);
    return 0;
}

static bool image_immutable(void *self)
{
    struct cg_rbd_image *im = self;

    return im->snapshot;
}

int cg_rbd_image_lock(struct cg_rbd_image *im, struct cg_error *err)
{
    rbd_image_watcher_t watchers[16];
    size_t count = sizeof watchers / sizeof *watchers;

    int r = rbd_watchers_list(im->image, watchers, &count);
    if (r == 0 && count > 1) {
        /* Which of them is ours doesn't matter: one isn't. */
        r = cg_error_say(err, EBUSY, "%s is open elsewhere for writing (client at %s)", im->text,
                         watchers[0].addr);
        rbd_watchers_list_cleanup(watchers, count);
        return r;
    }
    if (r == 0)
        rbd_watchers_list_cleanup(watchers, count);
    r = rbd_lock_acquire(im->image, RBD_LOCK_MODE_EXCLUSIVE);
    if (r == -EBUSY || r == -EROFS)
        return cg_error_say(err, EBUSY, "%s is being written by another client", im->text);
    if (r == -EINVAL) /* an image without the feature has no lock */
        r = 0;
    return r < 0 ? failed(im, r, "lock", err) : 0;
}

static void image_close(void *self)
{
    struct cg_rbd_image *im = self;

    im->done(im->opaque);
}

static const struct cg_image_ops image_ops = {
    .name = "rbd",
    .pread = image_pread,
    .pwrite = image_pwrite,
    .flush = image_flush,
    .trim = image_trim,
    .zero = image_zero,
    .extents = cg_rbd_image_extents,
    .size = image_size,
    .resize = image_resize,
    .immutable = image_immutable,
    .close = image_close,
};

int cg_rbd_image_wrap(struct cg_rbd_image *im, void (*done)(void *opaque), void *opaque,
                      struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_image *image = cg_image_new(&image_ops, im, !im->write);

    if (!image)
        return cg_error_set(err, ENOMEM, "open %s", im->text);
    im->done = done;
    im->opaque = opaque;
    *ret_image = image;
    return 0;
}
