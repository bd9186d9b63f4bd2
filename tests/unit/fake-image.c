#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "tests/unit/fake-image.h"

#define BLOCK 4096

struct fake {
    pthread_mutex_t lock;
    uint64_t size;
    uint8_t *bytes;  /* by lock */
    bool *allocated; /* by block; by lock */
    struct fake_faults *faults;
    _Atomic uint64_t *bytes_read;
};

static int call(struct fake *f, const char *what, struct cg_error *err)
{
    if (!f->faults)
        return 0;
    unsigned n = atomic_fetch_add(&f->faults->calls, 1) + 1;
    if (n == f->faults->fail_at)
        return cg_error_say(err, EIO, "fault %u injected: %s", n, what);
    if (strcmp(what, "pwrite") == 0 || strcmp(what, "zero") == 0)
        f->faults->unflushed = true;
    if (strcmp(what, "flush") == 0)
        f->faults->unflushed = false;
    return 0;
}

static int fake_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct fake *f = self;
    int r = call(f, "pread", err);
    CG_LOCK(&f->lock);

    if (r < 0)
        return r;
    memcpy(buf, f->bytes + off, len);
    if (f->bytes_read)
        atomic_fetch_add(f->bytes_read, len);
    return 0;
}

static void allocate(struct fake *f, uint64_t len, uint64_t off, bool allocated)
{
    for (uint64_t b = off / BLOCK; b * BLOCK < off + len; b++) {
        bool whole = b * BLOCK >= off && cg_min((b + 1) * BLOCK, f->size) <= off + len;
        if (allocated || whole)
            f->allocated[b] = allocated;
    }
}

static int fake_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                       struct cg_error *err)
{
    struct fake *f = self;
    int r = call(f, "pwrite", err);
    CG_LOCK(&f->lock);

    (void)flags;
    if (r == 0) {
        memcpy(f->bytes + off, buf, len);
        allocate(f, len, off, true);
    }
    return r;
}

static int fake_flush(void *self, struct cg_error *err)
{
    return call(self, "flush", err);
}

static int fake_zero(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    struct fake *f = self;
    int r = call(f, "zero", err);
    CG_LOCK(&f->lock);

    if (r == 0) {
        memset(f->bytes + off, 0, len);
        allocate(f, len, off, !(flags & CG_MAY_TRIM));
    }
    return r;
}

static int fake_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct fake *f = self;
    int r = call(f, "extents", err);
    CG_LOCK(&f->lock);

    while (r == 0 && !cg_extents_full(e)) {
        uint64_t b = e->next / BLOCK;
        r = cg_extents_to(e, (b + 1) * BLOCK, f->allocated[b] ? CG_DATA : CG_HOLE, err);
    }
    return r;
}

static uint64_t fake_size(void *self)
{
    struct fake *f = self;
    return f->size;
}

static void fake_close(void *self)
{
    struct fake *f = self;

    pthread_mutex_destroy(&f->lock);
    free(f->allocated);
    free(f->bytes);
    free(f);
}

static const struct cg_image_ops fake_ops = {
    .name = "fake",
    .pread = fake_pread,
    .pwrite = fake_pwrite,
    .flush = fake_flush,
    .trim = NULL,
    .zero = fake_zero,
    .extents = fake_extents,
    .size = fake_size,
    .close = fake_close,
};

struct cg_image *fake_image_new(uint64_t size, struct fake_faults *faults,
                                _Atomic uint64_t *bytes_read)
{
    struct fake *f = calloc(1, sizeof *f);

    assert(f);
    pthread_mutex_init(&f->lock, NULL);
    f->size = size;
    f->faults = faults;
    f->bytes_read = bytes_read;
    f->bytes = calloc(1, size + 1);
    f->allocated = calloc(size / BLOCK + 1, sizeof *f->allocated);
    struct cg_image *image = cg_image_new(&fake_ops, f, false);
    assert(f->bytes && f->allocated && image);
    return image;
}
