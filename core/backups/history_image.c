/* The bytes of a history, as QEMU's docs/interop/qcow2.txt lays a qcow2 file of version 3 out:
 *
 *     header · refcount table · refcount blocks · snapshot table · an L1 table per point and the
 *     active one · L2 tables · slots, 4 MiB each
 *
 * No entry has the flag "copied": nobody writes to it.
 */
#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/history.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/image/qcow2_format.h"

/* Thread model: all is fixed when it's made but last, a hint that any thread may overwrite. */

#define CLUSTER CG_QCOW2_CLUSTER
#define CHUNK_CLUSTERS (CG_CHUNK_SIZE / CLUSTER)
#define SNAPSHOT_HEADER 40
#define SNAPSHOT_EXTRA 16
#define ZERO_FLAG 1
#define AHEAD 2 /* slots read ahead of a sequential reader */

struct history_image {
    struct cg_project *project;
    struct cg_history *h; /* owned */
    uint8_t *snapshots;   /* the snapshot table, padded to clusters; owned */
    /* First clusters of the parts, in their order. */
    uint64_t table, blocks, snapshot_table, l1, l2, data, end;
    uint64_t *l1_first;    /* of each point's L1 table and the active one's; owned */
    _Atomic uint64_t last; /* slot that was read last */
};

static const struct cg_point *last_point(const struct history_image *q)
{
    return cg_history_point(q->h, cg_history_count(q->h) - 1);
}

/* The i-th L1 table is the i-th point's; the one after them is the active one. */
static unsigned point_of_l1(const struct history_image *q, unsigned i)
{
    return i < cg_history_count(q->h) ? i : i - 1;
}

static uint32_t l1_size(const struct history_image *q, unsigned i)
{
    uint64_t size = cg_history_point(q->h, point_of_l1(q, i))->size;

    return (uint32_t)(cg_round_up(size, CG_HISTORY_L2_SPAN) / CG_HISTORY_L2_SPAN);
}

/* Parts, by the cluster in them */

static void make_header(const struct history_image *q, uint8_t *to)
{
    unsigned points = cg_history_count(q->h);
    const struct cg_qcow2_header header = { .size = last_point(q)->size,
                                            .l1_size = l1_size(q, points),
                                            .l1 = q->l1_first[points],
                                            .table = q->table,
                                            .blocks = q->blocks,
                                            .snapshot_table = q->snapshot_table,
                                            .snapshots = points };

    cg_qcow2_put_header(to, &header);
}

/* Bytes that a slot's chunk has. */
static uint32_t slot_len(const struct history_image *q, const struct cg_history_use *use)
{
    return cg_chunk_len(cg_history_point(q->h, use->point)->size, use->chunk);
}

/* Counts clusters of slots from cluster on, up to the end of the slot or count; returns how many
 * were counted. */
static uint64_t count_slot(const struct history_image *q, uint64_t cluster, uint64_t count,
                           uint8_t *to)
{
    struct cg_history_use use;
    uint64_t in = (cluster - q->data) % CHUNK_CLUSTERS, n = cg_min(count, CHUNK_CLUSTERS - in);

    cg_history_slot(q->h, (cluster - q->data) / CHUNK_CLUSTERS, &use);
    uint64_t used = cg_qcow2_clusters(slot_len(q, &use));
    for (uint64_t i = 0; i < n; i++)
        cg_put_be16(to + 2 * i, in + i < used ? (uint16_t)use.refs : 0);
    return n;
}

static void make_refcounts(const struct history_image *q, uint64_t block, uint8_t *to)
{
    uint64_t tables = cg_history_l2_tables(q->h);
    uint64_t first = block * CG_QCOW2_REFS, end = cg_min(first + CG_QCOW2_REFS, q->end);
    struct cg_history_use use;

    for (uint64_t c = first; c < end;) {
        uint8_t *at = to + 2 * (c - first);
        if (c >= q->data) {
            c += count_slot(q, c, end - c, at);
            continue;
        }
        if (c < q->l2) {
            cg_put_be16(at, 1);
        } else if (c < q->l2 + tables) {
            cg_history_table(q->h, c - q->l2, &use);
            cg_put_be16(at, (uint16_t)use.refs);
        }
        c++;
    }
}

static void make_l1(const struct history_image *q, uint64_t cluster, uint8_t *to)
{
    unsigned i = cg_history_count(q->h);
    uint64_t l2;

    while (q->l1_first[i] > cluster)
        i--;
    uint64_t first = (cluster - q->l1_first[i]) * CG_QCOW2_ENTRIES, size = l1_size(q, i);
    for (uint64_t n = first; n < size && n < first + CG_QCOW2_ENTRIES; n++) {
        if (cg_history_l2(q->h, point_of_l1(q, i), n, &l2))
            cg_put_be64(to + 8 * (n - first), (q->l2 + l2) * CLUSTER);
    }
}

static void make_l2(const struct history_image *q, uint64_t l2, uint8_t *to)
{
    struct cg_history_use use;
    uint64_t slot;

    cg_history_table(q->h, l2, &use);
    uint64_t size = cg_history_point(q->h, use.point)->size;
    for (unsigned i = 0; i < CG_HISTORY_L2_CHUNKS; i++) {
        uint64_t chunk = use.chunk + i;
        if (chunk >= cg_chunk_count(size))
            return;
        enum cg_history_kind kind = cg_history_chunk(q->h, use.point, chunk, &slot);
        uint64_t used = cg_qcow2_clusters(cg_chunk_len(size, chunk));
        for (uint64_t k = 0; kind != CG_HISTORY_NEVER && k < used; k++) {
            uint64_t entry = kind == CG_HISTORY_ZERO
                                 ? ZERO_FLAG
                                 : (q->data + slot * CHUNK_CLUSTERS + k) * CLUSTER;
            cg_put_be64(to + 8 * (i * CHUNK_CLUSTERS + k), entry);
        }
    }
}

static void make_cluster(const struct history_image *q, uint64_t cluster, uint8_t *to)
{
    memset(to, 0, CLUSTER);
    if (cluster < q->table)
        make_header(q, to);
    else if (cluster < q->blocks)
        cg_qcow2_put_table(to, cluster - q->table, q->blocks, q->snapshot_table - q->blocks, 0);
    else if (cluster < q->snapshot_table)
        make_refcounts(q, cluster - q->blocks, to);
    else if (cluster < q->l1)
        memcpy(to, q->snapshots + (cluster - q->snapshot_table) * CLUSTER, CLUSTER);
    else if (cluster < q->l2)
        make_l1(q, cluster, to);
    else if (cluster < q->l2 + cg_history_l2_tables(q->h))
        make_l2(q, cluster - q->l2, to);
}

/* Reading */

static void read_ahead(struct history_image *q, uint64_t slot)
{
    struct cg_ref ref;

    if (slot - atomic_exchange(&q->last, slot) != 1) /* its first clusters may be zeros, unread */
        return;
    for (uint64_t i = slot + 1; i <= slot + AHEAD && i < cg_history_slots(q->h); i++) {
        if (cg_history_ref(q->h, i, &ref, NULL) < 0)
            return;
        cg_repository_prefetch(cg_project_repository(q->project), q->project, &ref);
    }
}

/* Reads up to the end of the slot; *ret_n is how much that is. */
static int read_slot(struct history_image *q, uint8_t *buf, size_t len, uint64_t off, size_t *ret_n,
                     struct cg_error *err)
{
    uint64_t in = off - q->data * CLUSTER, slot = in / CG_CHUNK_SIZE;
    uint32_t at = (uint32_t)(in % CG_CHUNK_SIZE);
    size_t n = (size_t)cg_min(len, CG_CHUNK_SIZE - at);
    struct cg_ref ref;

    read_ahead(q, slot);
    int r = cg_history_ref(q->h, slot, &ref, err);
    if (r < 0)
        return r;
    size_t own = at < ref.len ? (size_t)cg_min(n, ref.len - at) : 0;
    memset(buf + own, 0, n - own);
    *ret_n = n;
    return own ? cg_project_read(q->project, &ref, buf, own, at, err) : 0;
}

static int history_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct history_image *q = self;
    CG_CLEANUP(cg_free) uint8_t *cluster = NULL;
    uint8_t *to = buf;
    size_t n;

    for (; len > 0; to += n, off += n, len -= n) {
        if (off >= q->data * CLUSTER) {
            int r = read_slot(q, to, len, off, &n, err);
            if (r < 0)
                return r;
            continue;
        }
        n = (size_t)cg_min(len, CLUSTER - off % CLUSTER);
        if (!cluster && !(cluster = malloc(CLUSTER)))
            return cg_error_set(err, ENOMEM, "read a history");
        make_cluster(q, off / CLUSTER, cluster);
        memcpy(to, cluster + off % CLUSTER, n);
    }
    return 0;
}

static uint64_t history_size(void *self)
{
    struct history_image *q = self;

    return q->end * CLUSTER;
}

static void history_block_size(void *self, struct cg_block_size *ret)
{
    (void)self;
    /* Importers read the header in pieces, and libnbd refuses what is smaller than the minimum. */
    *ret = (struct cg_block_size){ .minimum = 1, .preferred = CLUSTER, .maximum = 32 << 20 };
}

static bool history_immutable(void *self)
{
    (void)self;
    return true;
}

static void history_close(void *self)
{
    struct history_image *q = self;

    cg_history_free(q->h);
    free(q->l1_first);
    free(q->snapshots);
    free(q);
}

static const struct cg_image_ops history_ops = {
    .name = "history",
    .pread = history_pread,
    .size = history_size,
    .block_size = history_block_size,
    .immutable = history_immutable,
    .close = history_close,
};

/* Making it */

static size_t snapshot_bytes(const struct history_image *q, unsigned i, char id[static 12])
{
    size_t n = SNAPSHOT_HEADER + SNAPSHOT_EXTRA + strlen(cg_history_point(q->h, i)->name);

    n += (size_t)snprintf(id, 12, "%u", i + 1);
    return (size_t)cg_round_up(n, 8);
}

/* The snapshot table's length; q->snapshots is filled if it's there. */
static uint64_t make_snapshots(struct history_image *q)
{
    uint64_t at = 0;
    char id[12];

    for (unsigned i = 0; i < cg_history_count(q->h); i++) {
        const struct cg_point *point = cg_history_point(q->h, i);
        size_t len = snapshot_bytes(q, i, id);
        if (q->snapshots) {
            uint8_t *to = q->snapshots + at;
            cg_put_be64(to, q->l1_first[i] * CLUSTER);
            cg_put_be32(to + 8, l1_size(q, i));
            cg_put_be16(to + 12, (uint16_t)strlen(id));
            cg_put_be16(to + 14, (uint16_t)strlen(point->name));
            cg_put_be32(to + 16, (uint32_t)point->time);
            cg_put_be32(to + 36, SNAPSHOT_EXTRA);
            cg_put_be64(to + SNAPSHOT_HEADER + 8, point->size);
            uint8_t *text = to + SNAPSHOT_HEADER + SNAPSHOT_EXTRA;
            memcpy(text, id, strlen(id));
            memcpy(text + strlen(id), point->name, strlen(point->name));
        }
        at += len;
    }
    return at;
}

static uint64_t place(void *opaque, uint64_t table, uint64_t blocks)
{
    struct history_image *q = opaque;

    q->table = 1;
    q->blocks = q->table + table;
    q->snapshot_table = q->blocks + blocks;
    q->l1 = q->snapshot_table + cg_qcow2_clusters(make_snapshots(q));
    q->l2 = q->l1;
    for (unsigned i = 0; i <= cg_history_count(q->h); i++) {
        q->l1_first[i] = q->l2;
        q->l2 += cg_qcow2_clusters(8 * (uint64_t)l1_size(q, i));
    }
    q->data = cg_round_up(q->l2 + cg_history_l2_tables(q->h), CHUNK_CLUSTERS);
    q->end = q->data + cg_history_slots(q->h) * CHUNK_CLUSTERS;
    return q->end;
}

static int lay_out(struct history_image *q, struct cg_error *err)
{
    q->l1_first = calloc(cg_history_count(q->h) + 1, sizeof *q->l1_first);
    if (!q->l1_first)
        return cg_error_set(err, ENOMEM, "open a history");
    cg_qcow2_lay_out(place, q);
    if (q->end * CLUSTER > CG_QCOW2_FILE_MAX)
        return cg_error_say(err, EFBIG,
                            "the history holds more than 128 TiB of changes: take one up to an "
                            "earlier point");
    q->snapshots = calloc(q->l1 - q->snapshot_table + 1, CLUSTER);
    if (!q->snapshots)
        return cg_error_set(err, ENOMEM, "open a history");
    make_snapshots(q);
    return 0;
}

int cg_history_image(struct cg_project *project, const char *volume, const char *point,
                     struct cg_image **ret_image, struct cg_error *err)
{
    struct history_image *q = calloc(1, sizeof *q);

    if (!q)
        return cg_error_set(err, ENOMEM, "open a history");
    q->project = project;
    atomic_init(&q->last, UINT64_MAX / 2);
    int r = cg_history_new(project, volume, point, &q->h, err);
    if (r == 0)
        r = lay_out(q, err);
    struct cg_image *image = r == 0 ? cg_image_new(&history_ops, q, true) : NULL;
    if (r == 0 && !image)
        r = cg_error_set(err, ENOMEM, "open a history");
    if (r < 0) {
        history_close(q);
        return r;
    }
    *ret_image = image;
    return 0;
}
