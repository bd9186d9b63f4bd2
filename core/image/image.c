#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/image/image.h"

struct cg_image {
    const struct cg_image_ops *ops;
    void *self; /* owned: ops->close frees it */
    bool read_only;
    atomic_uint refs;
};

struct cg_image *cg_image_new(const struct cg_image_ops *ops, void *self, bool read_only)
{
    struct cg_image *image = calloc(1, sizeof *image);

    if (!image)
        return NULL;
    image->ops = ops;
    image->self = self;
    image->read_only = read_only || !ops->pwrite;
    atomic_init(&image->refs, 1);
    return image;
}

struct cg_image *cg_image_ref(struct cg_image *image)
{
    atomic_fetch_add(&image->refs, 1);
    return image;
}

void cg_image_unref(struct cg_image *image)
{
    if (!image || atomic_fetch_sub(&image->refs, 1) != 1)
        return;
    image->ops->close(image->self);
    free(image);
}

void cg_image_cleanup(struct cg_image **image)
{
    int saved = errno;

    cg_image_unref(*image);
    errno = saved;
}

/* errnum: what a range beyond the end is. */
static int check_range(struct cg_image *image, uint64_t len, uint64_t off, int errnum,
                       struct cg_error *err)
{
    uint64_t size = cg_image_size(image);

    if (off > size || len > size - off)
        return cg_error_say(
            err, errnum, "%llu bytes at %llu reach beyond the end of an image of %llu bytes",
            (unsigned long long)len, (unsigned long long)off, (unsigned long long)size);
    return 0;
}

static int check_write(struct cg_image *image, uint64_t len, uint64_t off, struct cg_error *err)
{
    if (image->read_only)
        return cg_error_say(err, EROFS, "the image is read-only");
    return check_range(image, len, off, ENOSPC, err);
}

int cg_image_pread(struct cg_image *image, void *buf, size_t len, uint64_t off,
                   struct cg_error *err)
{
    int r = check_range(image, len, off, EINVAL, err);

    if (r < 0 || len == 0)
        return r;
    return image->ops->pread(image->self, buf, len, off, err);
}

int cg_image_borrow(struct cg_image *image, size_t len, uint64_t off, struct cg_loan *ret,
                    struct cg_error *err)
{
    int r = check_range(image, len, off, EINVAL, err);

    if (r < 0)
        return r;
    return image->ops->borrow && len > 0 ? image->ops->borrow(image->self, len, off, ret, err)
                                         : -ENOTSUP;
}

void cg_image_give_back(struct cg_image *image, struct cg_loan *loan)
{
    image->ops->give_back(image->self, loan);
}

int cg_image_pwrite(struct cg_image *image, const void *buf, size_t len, uint64_t off,
                    unsigned flags, struct cg_error *err)
{
    int r = check_write(image, len, off, err);

    if (r < 0 || len == 0)
        return r;
    return image->ops->pwrite(image->self, buf, len, off, flags & (CG_FUA | CG_BULK), err);
}

int cg_image_flush(struct cg_image *image, struct cg_error *err)
{
    if (image->read_only || !image->ops->flush)
        return 0;
    return image->ops->flush(image->self, err);
}

int cg_image_trim(struct cg_image *image, uint64_t len, uint64_t off, unsigned flags,
                  struct cg_error *err)
{
    int r = check_write(image, len, off, err);

    if (r < 0 || len == 0)
        return r;
    if (!image->ops->trim)
        return flags & CG_FUA ? cg_image_flush(image, err) : 0;
    return image->ops->trim(image->self, len, off, flags & CG_FUA, err);
}

static int write_zeros(struct cg_image *image, uint64_t len, uint64_t off, unsigned flags,
                       struct cg_error *err)
{
    static const uint8_t zeros[1 << 20];

    while (len > 0) {
        size_t n = (size_t)cg_min(len, sizeof zeros);
        unsigned last = n == len ? flags & CG_FUA : 0;
        int r = image->ops->pwrite(image->self, zeros, n, off, last, err);
        if (r < 0)
            return r;
        off += n;
        len -= n;
    }
    /* FUA on the last piece covers only that piece. */
    return flags & CG_FUA ? cg_image_flush(image, err) : 0;
}

int cg_image_zero(struct cg_image *image, uint64_t len, uint64_t off, unsigned flags,
                  struct cg_error *err)
{
    int r = check_write(image, len, off, err);

    if (r < 0 || len == 0)
        return r;
    if (image->ops->zero) {
        r = image->ops->zero(image->self, len, off, flags, err);
        if (r != -ENOTSUP || (flags & CG_FAST))
            return r;
    } else if (flags & CG_FAST) {
        return cg_error_say(err, ENOTSUP, "zeroing is not faster than writing zeros here");
    }
    return write_zeros(image, len, off, flags, err);
}

int cg_image_extents(struct cg_image *image, struct cg_extents *e, struct cg_error *err)
{
    int r = check_range(image, e->end - e->start, e->start, EINVAL, err);

    if (r < 0 || cg_extents_full(e))
        return r;
    if (!image->ops->extents)
        return cg_extents_to(e, e->end, CG_DATA, err);
    return image->ops->extents(image->self, e, err);
}

int cg_extents_as_in(struct cg_extents *e, struct cg_image *base, uint64_t distance,
                     struct cg_error *err)
{
    CG_CLEANUP(cg_extents_clear) struct cg_extents there;

    cg_extents_init(&there, e->next + distance, cg_min(e->end + distance, cg_image_size(base)),
                    e->max);
    int r = cg_image_extents(base, &there, err);
    for (size_t i = 0; r == 0 && i < there.count; i++) {
        const struct cg_extent *x = &there.v[i];
        r = cg_extents_to(e, x->off + x->len - distance, x->type, err);
    }
    return r;
}

int cg_image_walk(struct cg_image *image, uint64_t off, uint64_t len, cg_extent_fn *fn,
                  void *opaque, struct cg_error *err)
{
    uint64_t end = off + len;

    while (off < end) {
        struct cg_extents e;
        cg_extents_init(&e, off, end, 1024);
        int r = cg_image_extents(image, &e, err);
        for (size_t i = 0; r == 0 && i < e.count; i++)
            r = fn(opaque, &e.v[i], err);
        if (r == 0 && e.next == off)
            r = cg_error_say(err, EIO, "the image described no extent at %llu",
                             (unsigned long long)off);
        off = e.next;
        cg_extents_clear(&e);
        if (r != 0)
            return r;
    }
    return 0;
}

uint64_t cg_image_size(struct cg_image *image)
{
    return image->ops->size(image->self);
}

uint64_t cg_image_original_size(struct cg_image *image)
{
    uint64_t size = cg_image_size(image);
    uint64_t original = image->ops->original_size ? image->ops->original_size(image->self) : size;

    return cg_round_up(original, CG_SECTOR) == size ? original : size;
}

bool cg_image_read_only(struct cg_image *image)
{
    return image->read_only;
}

bool cg_image_immutable(struct cg_image *image)
{
    return image->ops->immutable && image->ops->immutable(image->self);
}

bool cg_image_remote(struct cg_image *image)
{
    return image->ops->remote;
}

bool cg_image_cheap_extents(struct cg_image *image)
{
    return image->ops->cheap_extents && image->ops->extents;
}

bool cg_image_can_trim(struct cg_image *image)
{
    return !image->read_only && image->ops->trim;
}

bool cg_image_can_zero(struct cg_image *image)
{
    return !image->read_only && image->ops->zero;
}

void cg_image_block_size(struct cg_image *image, struct cg_block_size *ret)
{
    *ret = (struct cg_block_size){ .minimum = 512, .preferred = 4096, .maximum = 32 << 20 };
    if (image->ops->block_size)
        image->ops->block_size(image->self, ret);
}

void cg_image_prefetch(struct cg_image *image, uint64_t len, uint64_t off)
{
    uint64_t size = cg_image_size(image);

    if (image->ops->prefetch && off < size)
        image->ops->prefetch(image->self, cg_min(len, size - off), off);
}
