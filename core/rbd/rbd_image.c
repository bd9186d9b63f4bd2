#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/bytes.h"
#include "core/base/size.h"
#include "core/rbd/call.h"
#include "core/rbd/limit.h"
#include "core/rbd/policy.h"
#include "core/rbd/rbd_image.h"

/* Thread model: librbd's handle takes calls from any thread.  The struct stays until librbd is done
 * with the last call: refs counts calls and the owner. */

/* How long closing waits for a cluster that has left calls unanswered. */
#define LAST_WAIT 1 /* seconds */

/* How long to wait for the error of a request that ends by itself when the time limit is past. */
#define LOOK_MORE 1 /* seconds */

struct cg_rbd_image {
    struct cg_rbd_cluster *cluster; /* pinned */
    const struct cg_rbd_config *config;
    rados_ioctx_t io;
    rbd_image_t image; /* NULL until it's open */
    uint64_t watch;    /* of updates, if it's open for writing */
    struct cg_rbd_calls calls;
    atomic_uint refs;
    char *text;
    bool write, snapshot;
    void (*done)(void *opaque); /* of the wrapping */
    void *opaque;
    void (*closed)(void *opaque); /* librbd is done with it; may be NULL */
    void *closed_opaque;
    atomic_uint doing; /* limited things that run, whether waited for or not */
    atomic_uint left;  /* of them, those that nobody waits for any more */
    atomic_bool shut_out;
    atomic_bool outdated;  /* the size may have changed */
    _Atomic uint64_t size; /* Ceph's images end at any byte, ours with zeros at a sector's end */
    struct cg_rbd_policy policy; /* of a head that is written */
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

static int begin(struct cg_rbd_image *im, size_t len, size_t held, struct cg_rbd_call **ret_call,
                 struct cg_error *err)
{
    atomic_fetch_add(&im->refs, 1);
    int r = cg_rbd_call_new(&im->calls, len, held, ret_call, err);
    if (r < 0) {
        unref(im);
        cg_error_prefix(err, r, "%s", im->text);
    }
    return r;
}

int cg_rbd_image_failed(struct cg_rbd_image *im, int64_t r, const char *what, struct cg_error *err)
{
    if (r == -ETIMEDOUT)
        return cg_error_say(err, ETIMEDOUT, "%s %s: the cluster didn't answer within %u s", what,
                            im->text, im->config->timeout);
    if (r == -ESHUTDOWN) {
        atomic_store(&im->shut_out, true);
        cg_rbd_cluster_shut_out(im->cluster, im->io);
    }
    return cg_rbd_failed((int)r, err, "%s %s", what, im->text);
}

bool cg_rbd_image_writes_back(struct cg_rbd_image *im)
{
    return im->policy.writes_back && im->config->cache == CG_RBD_CACHE_WRITEBACK;
}

bool cg_rbd_image_shut_out(struct cg_rbd_image *im)
{
    return atomic_load(&im->shut_out);
}

/* Waits for a call that moves no data back, and gives it up. */
static int finish(struct cg_rbd_image *im, struct cg_rbd_call *call, int started, const char *what,
                  struct cg_error *err)
{
    int64_t r = cg_rbd_call_wait(call, started);

    cg_rbd_call_unref(call);
    return r < 0 ? cg_rbd_image_failed(im, r, what, err) : 0;
}

static void updated(void *opaque)
{
    struct cg_rbd_image *im = opaque;

    atomic_store(&im->outdated, true);
}

/* librbd frees an image that is closed right after it was opened or refreshed, as each change of it
 * by anybody does, while a thread of its own may not be back from saying that this was done: seen
 * in 16.2.15 on a loaded machine, where it then used what was freed (ImageState).  It needs a few
 * instructions to get out of there, and as long as it takes to be given a processor for them. */
int cg_rbd_close(rbd_image_t image)
{
    const struct timespec pause = { .tv_nsec = 20000000 };

    nanosleep(&pause, NULL);
    return rbd_close(image);
}

/* What opening needs, apart from the struct, which may be given up meanwhile. */
struct opening {
    struct cg_rbd_image *im; /* a reference */
    char *name, *snapshot;
    rbd_image_t image;
    uint64_t watch, size;
    struct cg_rbd_policy policy;
};

static int open_to_read(struct opening *o)
{
    const char *snapshot = *o->snapshot ? o->snapshot : NULL;
    int r = rbd_open_read_only(o->im->io, o->name, &o->image, snapshot);

    if (r != -ENOENT || !snapshot)
        return r;
    /* librbd says this also of a snapshot whose object map is lost; then it can do this. */
    r = rbd_open_read_only(o->im->io, o->name, &o->image, NULL);
    if (r < 0)
        return r;
    r = rbd_snap_set(o->image, snapshot);
    if (r < 0)
        cg_rbd_close(o->image);
    return r;
}

static int close_handle(struct cg_rbd_image *im, rbd_image_t image, uint64_t watch)
{
    if (im->write)
        rbd_update_unwatch(image, watch);
    return cg_rbd_close(image);
}

static int open_run(void *arg)
{
    struct opening *o = arg;

    int r = o->im->write ? rbd_open(o->im->io, o->name, &o->image, NULL) : open_to_read(o);
    if (r < 0)
        return r;
    if (o->im->write)
        r = rbd_update_watch(o->image, &o->watch, updated, o->im);
    if (r < 0) {
        cg_rbd_close(o->image);
        return r;
    }
    r = rbd_get_size(o->image, &o->size);
    if (r == 0 && o->im->write)
        r = cg_rbd_policy(o->image, &o->policy);
    if (r < 0)
        close_handle(o->im, o->image, o->watch);
    return r;
}

static void free_opening(struct opening *o)
{
    unref(o->im);
    free(o->name);
    free(o->snapshot);
    free(o);
}

static void open_late(void *arg, int r)
{
    struct opening *o = arg;

    if (r == 0)
        close_handle(o->im, o->image, o->watch);
    free_opening(o);
}

static int open_image(struct cg_rbd_image *im, const char *name, const char *snapshot,
                      struct cg_error *err)
{
    struct opening *o = calloc(1, sizeof *o);
    struct cg_rbd_task task = { open_run, open_late, o, cg_rbd_cluster_left(im->cluster, im->io) };
    int r;

    if (!o)
        return cg_error_set(err, ENOMEM, "open %s", im->text);
    atomic_fetch_add(&im->refs, 1);
    o->im = im;
    o->name = strdup(name);
    o->snapshot = strdup(snapshot);
    if (!o->name || !o->snapshot)
        r = -ENOMEM;
    else if (!cg_rbd_limited(&task, im->calls.timeout, &r))
        return cg_rbd_image_failed(im, -ETIMEDOUT, "open", err);
    im->image = r == 0 ? o->image : NULL;
    im->watch = o->watch;
    im->policy = o->policy;
    atomic_store(&im->size, o->size);
    free_opening(o);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", im->text);
    return r < 0 ? cg_rbd_image_failed(im, r, "open", err) : 0;
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
    im->io = io;
    im->write = write;
    im->snapshot = *snapshot;
    im->calls.timeout = config->timeout + (write ? 0 : LOOK_MORE);
    im->calls.freed = unref;
    im->calls.opaque = im;
    atomic_init(&im->refs, 1);
    cg_rbd_cluster_pin(cluster);
    int r = open_image(im, image, snapshot, err);
    if (r < 0) {
        unref(im);
        return r;
    }
    *ret_image = im;
    return 0;
}

static int close_run(void *arg)
{
    struct cg_rbd_image *im = arg;
    const struct timespec pause = { .tv_nsec = 10000000 };

    while (atomic_load(&im->doing) > 0) /* something nobody waits for any more */
        nanosleep(&pause, NULL);
    return close_handle(im, im->image, im->watch);
}

static void tell_closed(struct cg_rbd_image *im)
{
    if (im->closed)
        im->closed(im->closed_opaque);
    unref(im);
}

static void close_late(void *arg, int r)
{
    (void)r;
    tell_closed(arg);
}

void cg_rbd_image_close(struct cg_rbd_image *im)
{
    if (im)
        cg_rbd_image_close_then(im, NULL, NULL);
}

void cg_rbd_image_close_then(struct cg_rbd_image *im, void (*closed)(void *opaque), void *opaque)
{
    struct cg_rbd_task task = { close_run, close_late, im, NULL };
    int r;

    im->closed = closed;
    im->closed_opaque = opaque;
    bool away = atomic_load(&im->calls.unanswered) > 0 || atomic_load(&im->doing) > 0;
    if (!cg_rbd_limited(&task, away ? LAST_WAIT : im->calls.timeout, &r))
        return;
    /* All has been answered, but a thread of librbd may not be back from saying so: without it the
     * connection can be taken down. */
    while (atomic_load(&im->refs) > 1)
        sched_yield();
    tell_closed(im);
}

static int doing_run(void *arg)
{
    struct cg_rbd_doing *doing = arg;

    return doing->run(doing, doing->image->image);
}

static void doing_late(void *arg, int r)
{
    struct cg_rbd_doing *doing = arg;
    struct cg_rbd_image *im = doing->image;

    (void)r;
    doing->free(doing);
    atomic_fetch_sub(&im->doing, 1);
    unref(im);
}

bool cg_rbd_image_limited(struct cg_rbd_image *im, struct cg_rbd_doing *doing, int *ret_result)
{
    struct cg_rbd_task task = { doing_run, doing_late, doing, &im->left };

    doing->image = im;
    atomic_fetch_add(&im->refs, 1);
    atomic_fetch_add(&im->doing, 1);
    if (!cg_rbd_limited(&task, im->calls.timeout, ret_result))
        return false;
    atomic_fetch_sub(&im->doing, 1);
    unref(im);
    return true;
}

void cg_rbd_image_cleanup(struct cg_rbd_image **im)
{
    cg_rbd_image_close(*im);
}

rbd_image_t cg_rbd_image_handle(struct cg_rbd_image *im)
{
    return im->image;
}

uint64_t cg_rbd_image_end(struct cg_rbd_image *im)
{
    return atomic_load(&im->size);
}

const char *cg_rbd_image_text(struct cg_rbd_image *im)
{
    return im->text;
}

uint64_t cg_rbd_image_client(struct cg_rbd_image *im)
{
    return rados_get_instance_id(rados_ioctx_get_cluster(im->io));
}

/* How much of a range Ceph's image has. */
static uint64_t within(struct cg_rbd_image *im, uint64_t len, uint64_t off)
{
    uint64_t size = atomic_load(&im->size);

    return off < size ? cg_min(len, size - off) : 0;
}

static int image_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    size_t own = (size_t)within(im, len, off);

    memset((uint8_t *)buf + own, 0, len - own);
    if (own == 0)
        return 0;
    int r = begin(im, own, own, &call, err);
    if (r < 0)
        return r;
    int64_t n =
        cg_rbd_call_wait(call, rbd_aio_read(im->image, off, own, call->buf, call->completion));
    if (n < 0)
        r = cg_rbd_image_failed(im, n, "read", err);
    else if ((uint64_t)n != own)
        r = cg_error_say(err, EIO, "read %s: it ends within the request: it was shrunk", im->text);
    else
        memcpy(buf, call->buf, own);
    cg_rbd_call_unref(call);
    return r;
}

static int image_flush(void *self, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    int r = begin(im, 0, 0, &call, err);

    return r < 0 ? r : finish(im, call, rbd_aio_flush(im->image, call->completion), "flush", err);
}

/* Without a write-back cache a write is stable when it's acknowledged.  With one that wasn't asked
 * for, since the image or its pool has settings of its own, each write waits for a flush. */
static int settle(struct cg_rbd_image *im, unsigned flags, struct cg_error *err)
{
    bool asked = im->config->cache == CG_RBD_CACHE_WRITEBACK;

    if (im->policy.writes_back && (!asked || (flags & CG_FUA)))
        return image_flush(im, err);
    return 0;
}

static int image_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                        struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;
    size_t own = (size_t)within(im, len, off);

    if (!cg_is_zero((const uint8_t *)buf + own, len - own))
        return cg_error_say(err, ENOSPC, "write %s: behind its %" PRIu64 " bytes are only zeros",
                            im->text, atomic_load(&im->size));
    len = own;
    if (len == 0)
        return 0;
    int r = begin(im, im->policy.zero_copy ? len : 0, len, &call, err);
    if (r < 0)
        return r;
    /* Who gives up waiting takes buf away: librbd has copied it when it returns, or gets a copy. */
    if (im->policy.zero_copy)
        buf = memcpy(call->buf, buf, len);
    r = finish(im, call, rbd_aio_write(im->image, off, len, buf, call->completion), "write", err);
    return r < 0 ? r : settle(im, flags, err);
}

static int image_trim(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct cg_rbd_image *im = self;
    struct cg_rbd_call *call;

    len = within(im, len, off);
    if (len == 0)
        return 0;
    int r = begin(im, 0, 0, &call, err);
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
    len = within(im, len, off);
    if (len == 0)
        return 0;
    r = begin(im, 0, 0, &call, err);
    if (r < 0)
        return r;
    r = finish(im, call, rbd_aio_write_zeroes(im->image, off, len, call->completion, zero_flags, 0),
               "zero", err);
    return r < 0 ? r : settle(im, flags, err);
}

struct sizing {
    struct cg_rbd_doing doing;
    uint64_t size;
};

static int size_run(void *arg, rbd_image_t image)
{
    struct sizing *s = arg;

    return rbd_get_size(image, &s->size);
}

static uint64_t image_original_size(void *self)
{
    struct cg_rbd_image *im = self;
    int r = -ENOMEM;

    if (!atomic_exchange(&im->outdated, false))
        return atomic_load(&im->size);
    struct sizing *s = calloc(1, sizeof *s);
    if (s)
        s->doing = (struct cg_rbd_doing){ .run = size_run, .free = free };
    bool ended = !s || cg_rbd_image_limited(im, &s->doing, &r);
    if (ended && r == 0)
        atomic_store(&im->size, s->size);
    else
        atomic_store(&im->outdated, true);
    if (ended)
        free(s);
    return atomic_load(&im->size);
}

static uint64_t image_size(void *self)
{
    return cg_round_up(image_original_size(self), CG_SECTOR);
}

static bool image_immutable(void *self)
{
    struct cg_rbd_image *im = self;

    return im->snapshot;
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
    .original_size = image_original_size,
    .immutable = image_immutable,
    .close = image_close,
    .remote = true,
};

int cg_rbd_image_wrap(struct cg_rbd_image *im, bool read_only, void (*done)(void *opaque),
                      void *opaque, struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_image *image = cg_image_new(&image_ops, im, read_only || !im->write);

    if (!image)
        return cg_error_set(err, ENOMEM, "open %s", im->text);
    im->done = done;
    im->opaque = opaque;
    *ret_image = image;
    return 0;
}
