/* As QEMU's docs/interop/qcow2.txt lays a file of version 3 out:
 *
 *     header · refcount table · refcount blocks · L1 table · L2 tables · data
 *
 * Each cluster of the image has its place in the data, whether it's there or not, so that nothing
 * has to be remembered.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/image/qcow2.h"
#include "core/image/qcow2_format.h"

#define CLUSTER CG_QCOW2_CLUSTER
#define ENTRIES CG_QCOW2_ENTRIES
#define COPIED (UINT64_C(1) << 63) /* the only reference to a cluster */

struct qcow2 {
    struct cg_image *base; /* a reference */
    uint64_t size;         /* of base, bytes */
    /* The first clusters of the parts, in their order, and of what is behind the last. */
    uint64_t table, blocks, l1, l2, data, end;
};

static void make_header(const struct qcow2 *q, uint8_t *to)
{
    const struct cg_qcow2_header header = { .size = q->size,
                                            .l1_size = (uint32_t)(q->data - q->l2),
                                            .l1 = q->l1,
                                            .table = q->table,
                                            .blocks = q->blocks };

    cg_qcow2_put_header(to, &header);
}

/* What is told for clusters of base that are there. */
struct marking {
    const struct qcow2 *q;
    uint64_t first; /* cluster of base that to begins with */
    bool refs;      /* references, else entries of an L2 table */
    uint8_t *to;
};

static int mark(void *opaque, const struct cg_extent *x, struct cg_error *err)
{
    const struct marking *m = opaque;

    (void)err;
    if (x->type != CG_DATA)
        return 0;
    for (uint64_t c = x->off / CLUSTER; c * CLUSTER < x->off + x->len; c++) {
        if (m->refs)
            cg_put_be16(m->to + 2 * (c - m->first), 1);
        else
            cg_put_be64(m->to + 8 * (c - m->first), (m->q->data + c) * CLUSTER | COPIED);
    }
    return 0;
}

/* Marks which of count clusters of base, from first on, are there. */
static int mark_clusters(const struct qcow2 *q, uint64_t first, uint64_t count, bool refs,
                         uint8_t *to, struct cg_error *err)
{
    struct marking m = { .q = q, .first = first, .refs = refs, .to = to };
    uint64_t off = first * CLUSTER;

    return cg_image_walk(q->base, off, cg_min(count * CLUSTER, q->size - off), mark, &m, err);
}

static int make_refcounts(const struct qcow2 *q, uint64_t block, uint8_t *to, struct cg_error *err)
{
    uint64_t first = block * CG_QCOW2_REFS, end = cg_min(first + CG_QCOW2_REFS, q->end);
    uint64_t c = first;

    for (; c < end && c < q->data; c++)
        cg_put_be16(to + 2 * (c - first), 1);
    return c == end ? 0 : mark_clusters(q, c - q->data, end - c, true, to + 2 * (c - first), err);
}

static int make_cluster(const struct qcow2 *q, uint64_t cluster, uint8_t *to, struct cg_error *err)
{
    memset(to, 0, CLUSTER);
    if (cluster >= q->l2)
        return mark_clusters(q, (cluster - q->l2) * ENTRIES, ENTRIES, false, to, err);
    if (cluster >= q->blocks && cluster < q->l1)
        return make_refcounts(q, cluster - q->blocks, to, err);
    if (cluster < q->table)
        make_header(q, to);
    else if (cluster < q->blocks)
        cg_qcow2_put_table(to, cluster - q->table, q->blocks, q->l1 - q->blocks, 0);
    else
        cg_qcow2_put_table(to, cluster - q->l1, q->l2, q->data - q->l2, COPIED);
    return 0;
}

/* What lies behind base's end, up to the end of its last cluster, is zeros. */
static int read_data(const struct qcow2 *q, uint8_t *buf, size_t len, uint64_t off,
                     struct cg_error *err)
{
    uint64_t at = off - q->data * CLUSTER;
    size_t there = at < q->size ? (size_t)cg_min(len, q->size - at) : 0;

    memset(buf + there, 0, len - there);
    return there ? cg_image_pread(q->base, buf, there, at, err) : 0;
}

static int qcow2_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    const struct qcow2 *q = self;
    CG_CLEANUP(cg_free) uint8_t *cluster = NULL;
    uint8_t *to = buf;
    size_t n;

    for (; len > 0 && off < q->data * CLUSTER; to += n, off += n, len -= n) {
        n = (size_t)cg_min(len, CLUSTER - off % CLUSTER);
        if (!cluster && !(cluster = malloc(CLUSTER)))
            return cg_error_set(err, ENOMEM, "read a qcow2 file");
        int r = make_cluster(q, off / CLUSTER, cluster, err);
        if (r < 0)
            return r;
        memcpy(to, cluster + off % CLUSTER, n);
    }
    return len > 0 ? read_data(q, to, len, off, err) : 0;
}

static int qcow2_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    const struct qcow2 *q = self;
    uint64_t data = q->data * CLUSTER;

    if (e->next < data)
        return cg_extents_to(e, data, CG_DATA, err);
    if (e->next - data >= q->size)
        return cg_extents_to(e, e->end, CG_HOLE, err);
    return cg_extents_as_in(e, q->base, -data, err);
}

static uint64_t qcow2_size(void *self)
{
    const struct qcow2 *q = self;

    return q->end * CLUSTER;
}

static void qcow2_prefetch(void *self, uint64_t len, uint64_t off)
{
    const struct qcow2 *q = self;
    uint64_t data = q->data * CLUSTER, first = cg_max(off, data);

    if (first < off + len && first - data < q->size)
        cg_image_prefetch(q->base, cg_min(off + len - first, q->size - (first - data)),
                          first - data);
}

static void qcow2_block_size(void *self, struct cg_block_size *ret)
{
    (void)self;
    /* Importers read the header in pieces, and libnbd refuses what is smaller than the minimum. */
    *ret = (struct cg_block_size){ .minimum = 1, .preferred = CLUSTER, .maximum = 32 << 20 };
}

static bool qcow2_immutable(void *self)
{
    (void)self;
    return true;
}

static void qcow2_close(void *self)
{
    struct qcow2 *q = self;

    cg_image_unref(q->base);
    free(q);
}

static const struct cg_image_ops qcow2_ops = {
    .name = "qcow2",
    .pread = qcow2_pread,
    .extents = qcow2_extents,
    .size = qcow2_size,
    .prefetch = qcow2_prefetch,
    .block_size = qcow2_block_size,
    .immutable = qcow2_immutable,
    .close = qcow2_close,
};

static uint64_t place(void *opaque, uint64_t table, uint64_t blocks)
{
    struct qcow2 *q = opaque;
    uint64_t tables = cg_round_up(q->size, ENTRIES * CLUSTER) / (ENTRIES * CLUSTER);

    q->table = 1;
    q->blocks = q->table + table;
    q->l1 = q->blocks + blocks;
    q->l2 = q->l1 + cg_qcow2_clusters(8 * tables);
    q->data = q->l2 + tables;
    q->end = q->data + cg_qcow2_clusters(q->size);
    return q->end;
}

int cg_qcow2_open(struct cg_image *base, struct cg_image **ret_image, struct cg_error *err)
{
    if (!cg_image_immutable(base))
        return cg_error_say(err, EINVAL, "it can be written: only a snapshot can be a qcow2 file");
    struct qcow2 *q = calloc(1, sizeof *q);
    struct cg_image *image = q ? cg_image_new(&qcow2_ops, q, true) : NULL;
    if (!image) {
        free(q);
        return cg_error_set(err, ENOMEM, "open a qcow2 file");
    }
    q->base = cg_image_ref(base);
    q->size = cg_image_size(base);
    if (q->size < CG_QCOW2_FILE_MAX)
        cg_qcow2_lay_out(place, q);
    if (q->size >= CG_QCOW2_FILE_MAX || q->end * CLUSTER > CG_QCOW2_FILE_MAX) {
        cg_image_unref(image);
        return cg_error_say(err, EFBIG, "it is larger than 128 TiB, which a qcow2 file can't hold");
    }
    *ret_image = image;
    return 0;
}
