#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/bytes.h"
#include "core/image/image.h"
#include "core/image/window.h"

struct window {
    struct cg_image *base; /* owns a reference */
    uint64_t off, len;
    struct cg_image_ops
        ops; /* without what base can't, so that asking the window tells the truth */
};

static int window_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct window *w = self;
    return cg_image_pread(w->base, buf, len, w->off + off, err);
}

static int window_borrow(void *self, size_t len, uint64_t off, struct cg_loan *ret,
                         struct cg_error *err)
{
    struct window *w = self;
    return cg_image_borrow(w->base, len, w->off + off, ret, err);
}

static void window_give_back(void *self, struct cg_loan *loan)
{
    struct window *w = self;
    cg_image_give_back(w->base, loan);
}

static int window_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                         struct cg_error *err)
{
    struct window *w = self;
    return cg_image_pwrite(w->base, buf, len, w->off + off, flags, err);
}

static int window_flush(void *self, struct cg_error *err)
{
    struct window *w = self;
    return cg_image_flush(w->base, err);
}

static int window_trim(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct window *w = self;
    return cg_image_trim(w->base, len, w->off + off, flags, err);
}

static int window_zero(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct window *w = self;
    return cg_image_zero(w->base, len, w->off + off, flags, err);
}

static int window_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct window *w = self;
    return cg_extents_as_in(e, w->base, w->off, err);
}

static uint64_t window_size(void *self)
{
    struct window *w = self;
    return w->len;
}

static void window_prefetch(void *self, uint64_t len, uint64_t off)
{
    struct window *w = self;
    cg_image_prefetch(w->base, len, w->off + off);
}

static void window_block_size(void *self, struct cg_block_size *ret)
{
    struct window *w = self;
    cg_image_block_size(w->base, ret);
}

static bool window_immutable(void *self)
{
    struct window *w = self;
    return cg_image_immutable(w->base);
}

static void window_close(void *self)
{
    struct window *w = self;

    cg_image_unref(w->base);
    free(w);
}

static const struct cg_image_ops window_ops = {
    .name = "window",
    .pread = window_pread,
    .borrow = window_borrow,
    .give_back = window_give_back,
    .pwrite = window_pwrite,
    .flush = window_flush,
    .trim = window_trim,
    .zero = window_zero,
    .extents = window_extents,
    .size = window_size,
    .prefetch = window_prefetch,
    .block_size = window_block_size,
    .immutable = window_immutable,
    .close = window_close,
};

int cg_window_open(struct cg_image *base, uint64_t off, uint64_t len, struct cg_image **ret_image,
                   struct cg_error *err)
{
    uint64_t size = cg_image_size(base);

    if (off > size || len > size - off)
        return cg_error_say(
            err, EINVAL, "%llu bytes at %llu reach beyond the end of an image of %llu bytes",
            (unsigned long long)len, (unsigned long long)off, (unsigned long long)size);
    struct window *w = calloc(1, sizeof *w);
    if (!w)
        return cg_error_set(err, ENOMEM, "open a window");
    *w = (struct window){ .base = base, .off = off, .len = len, .ops = window_ops };
    if (!cg_image_can_trim(base))
        w->ops.trim = NULL;
    if (!cg_image_can_zero(base))
        w->ops.zero = NULL;
    struct cg_image *image = cg_image_new(&w->ops, w, cg_image_read_only(base));
    if (!image) {
        free(w);
        return cg_error_set(err, ENOMEM, "open a window");
    }
    cg_image_ref(base);
    *ret_image = image;
    return 0;
}
