/* An open volume as an image.
 *
 * Thread model.  Reads take a reference to the chain and no lock.  Writes hold the gate shared, so
 * that a snapshot can wait until none is under way; what they need from the layers below, which may
 * lie behind a network, they read before that.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/volumes/volume.h"

static int image_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *head = cg_volume_head(self);

    return cg_chain_read(head, buf, len, off, err);
}

static int begin(struct cg_volume *v, struct cg_error *err)
{
    return atomic_load_explicit(&v->writing, memory_order_acquire) ? 0 : cg_volume_begin(v, err);
}

/* With the gate held: the volume takes writes, and the range is still in it (a rollback may have
 * made it smaller). */
static int check_gated(struct cg_volume *v, uint64_t len, uint64_t off, struct cg_error *err)
{
    uint64_t size = cg_chain_size(v->head);
    int r = cg_volume_check(v, err);

    if (r < 0)
        return r;
    if (off > size || len > size - off)
        return cg_error_say(err, ENOSPC, "%s has become smaller", v->label);
    return 0;
}

/* Writes if nothing of the layers below is needed, or if edges are of the head's chain.  1: they
 * are needed, *ret_chain is the chain to read them from. */
static int write_once(struct cg_volume *v, const void *buf, size_t len, uint64_t off,
                      unsigned flags, struct cg_chain *chain, const struct cg_chain_edges *edges,
                      struct cg_chain **ret_chain, struct cg_error *err)
{
    static const struct cg_chain_edges none;
    bool aligned = (off | len) % CG_BLOCK == 0;

    CG_LOCK_SHARED(&v->gate);
    int r = check_gated(v, len, off, err);
    if (r < 0)
        return r;
    if (chain != v->head) {
        r = cg_chain_overwrite(v->head, buf, len, off, flags, err);
        if (r != 0)
            return r < 0 ? r : 0;
        if (!aligned) {
            *ret_chain = cg_chain_ref(v->head);
            return 1;
        }
        edges = &none;
    }
    return cg_chain_write(v->head, buf, len, off, flags, edges, err);
}

static int write_range(struct cg_volume *v, const void *buf, size_t len, uint64_t off,
                       unsigned flags, struct cg_error *err)
{
    struct cg_chain *chain = NULL;
    struct cg_chain_edges edges;

    for (;;) {
        struct cg_chain *next = NULL;
        int r = write_once(v, buf, len, off, flags, chain, &edges, &next, err);
        cg_chain_unref(chain);
        if (r <= 0)
            return r;
        chain = next;
        r = cg_chain_edges(chain, len, off, &edges, err);
        if (r < 0) {
            cg_chain_unref(chain);
            return r;
        }
    }
}

static int flush(struct cg_volume *v, struct cg_error *err)
{
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *head = cg_volume_head(v);

    if (atomic_load(&v->failed) < 0)
        return cg_error_say(err, EIO, "%s: an earlier change failed: open it again", v->label);
    return cg_layer_flush(cg_chain_top(head), err);
}

/* Somebody else writes the volume, or did since.  If it is another handle of this process, a flush
 * covers what was acknowledged there too. */
static int flush_taken_over(struct cg_volume *v, struct cg_error *err)
{
    struct cg_volume *writer = cg_volume_find(v->space, v->dirfd, true);

    if (!writer)
        return 0;
    int r = flush(writer, err);
    cg_volume_unref(writer);
    return r;
}

static int image_flush(void *self, struct cg_error *err)
{
    struct cg_volume *v = self;
    struct cg_writer last;

    if (!atomic_load(&v->writing)) {
        /* What a process acknowledged before it was killed is as much ours to make durable. */
        int r = cg_writer_read(v->dirfd, &last, err);
        if (r < 0 || last.pid == 0)
            return r;
        r = cg_volume_begin(v, err);
        if (r == -EBUSY || r == -ESTALE)
            return flush_taken_over(v, err);
        if (r < 0)
            return r;
    }
    return flush(v, err);
}

static int finish(struct cg_volume *v, int r, unsigned flags, struct cg_error *err)
{
    return r == 0 && (flags & CG_FUA) ? flush(v, err) : r;
}

static int image_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                        struct cg_error *err)
{
    int r = begin(self, err);

    if (r == 0)
        r = write_range(self, buf, len, off, flags, err);
    return finish(self, r, flags, err);
}

/* Zeroes the whole blocks of a range, and says which they are: none if first >= end.  The volume's
 * last block is whole if the range goes to the end, which is only known with the gate held: a
 * resize may have moved it. */
static int zero_blocks(struct cg_volume *v, uint64_t len, uint64_t off, uint64_t *ret_first,
                       uint64_t *ret_end, struct cg_error *err)
{
    CG_LOCK_SHARED(&v->gate);
    uint64_t end = off + len;
    int r = check_gated(v, len, off, err);

    if (r < 0)
        return r;
    if (end == cg_chain_size(v->head))
        end = cg_round_up(end, CG_BLOCK);
    *ret_first = (off + CG_BLOCK - 1) / CG_BLOCK;
    *ret_end = end / CG_BLOCK;
    if (*ret_first >= *ret_end)
        return 0;
    return cg_chain_zero(v->head, *ret_first, *ret_end - *ret_first, err);
}

static int image_trim(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    uint64_t first, end;
    int r = begin(self, err);

    if (r == 0)
        r = zero_blocks(self, len, off, &first, &end, err);
    return finish(self, r, flags, err);
}

static int image_zero(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err)
{
    static const uint8_t zeros[2 * CG_BLOCK];
    uint64_t first, end;
    int r = begin(self, err);

    if (r == 0)
        r = zero_blocks(self, len, off, &first, &end, err);
    if (r < 0)
        return r;
    if (first >= end) /* within two blocks */
        return finish(self, write_range(self, zeros, len, off, 0, err), flags, err);
    uint64_t head = first * CG_BLOCK - off;
    uint64_t tail = off + len > end * CG_BLOCK ? off + len - end * CG_BLOCK : 0;
    if (head)
        r = write_range(self, zeros, head, off, 0, err);
    if (r == 0 && tail)
        r = write_range(self, zeros, tail, end * CG_BLOCK, 0, err);
    return finish(self, r, flags, err);
}

static int image_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *head = cg_volume_head(self);

    return cg_chain_extents(head, e, err);
}

static uint64_t image_size(void *self)
{
    struct cg_volume *v = self;

    return atomic_load_explicit(&v->size, memory_order_acquire);
}

static uint64_t image_original_size(void *self)
{
    struct cg_volume *v = self;

    return v->original_size;
}

static void image_prefetch(void *self, uint64_t len, uint64_t off)
{
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *head = cg_volume_head(self);

    cg_chain_prefetch(head, len, off);
}

static bool image_immutable(void *self)
{
    struct cg_volume *v = self;

    return *v->snapshot;
}

static void image_close(void *self)
{
    cg_volume_unref(self);
}

static const struct cg_image_ops head_ops = {
    .name = "volume",
    .pread = image_pread,
    .pwrite = image_pwrite,
    .flush = image_flush,
    .trim = image_trim,
    .zero = image_zero,
    .extents = image_extents,
    .size = image_size,
    .original_size = image_original_size,
    .prefetch = image_prefetch,
    .immutable = image_immutable,
    .close = image_close,
};

int cg_volume_image(struct cg_volume *v, bool read_only, struct cg_image **ret_image,
                    struct cg_error *err)
{
    struct cg_image *image = cg_image_new(&head_ops, v, read_only || *v->snapshot);

    if (!image)
        return cg_error_set(err, ENOMEM, "open %s", v->label);
    *ret_image = image;
    return 0;
}
