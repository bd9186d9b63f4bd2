#include "config.h"

#include <string.h>

#include "core/image/qcow2_format.h"

#define HEADER_LENGTH 104

void cg_qcow2_put_header(uint8_t *to, const struct cg_qcow2_header *h)
{
    memcpy(to, "QFI\xfb", 4);
    cg_put_be32(to + 4, 3);
    cg_put_be32(to + 20, CG_QCOW2_CLUSTER_BITS);
    cg_put_be64(to + 24, h->size);
    cg_put_be32(to + 36, h->l1_size);
    cg_put_be64(to + 40, h->l1 * CG_QCOW2_CLUSTER);
    cg_put_be64(to + 48, h->table * CG_QCOW2_CLUSTER);
    cg_put_be32(to + 56, (uint32_t)(h->blocks - h->table));
    cg_put_be32(to + 60, h->snapshots);
    cg_put_be64(to + 64, h->snapshot_table * CG_QCOW2_CLUSTER);
    cg_put_be32(to + 96, 4); /* refcounts of 16 bits */
    cg_put_be32(to + 100, HEADER_LENGTH);
}

void cg_qcow2_put_table(uint8_t *to, uint64_t part, uint64_t first, uint64_t count, uint64_t flags)
{
    uint64_t done = part * CG_QCOW2_ENTRIES;

    for (uint64_t i = 0; i < CG_QCOW2_ENTRIES && done + i < count; i++)
        cg_put_be64(to + 8 * i, (first + done + i) * CG_QCOW2_CLUSTER | flags);
}

void cg_qcow2_lay_out(uint64_t (*place)(void *opaque, uint64_t table, uint64_t blocks),
                      void *opaque)
{
    uint64_t table = 1, blocks = 1;

    for (;;) {
        uint64_t end = place(opaque, table, blocks);
        uint64_t need = cg_round_up(end, CG_QCOW2_REFS) / CG_QCOW2_REFS;
        if (need <= blocks && cg_qcow2_clusters(8 * blocks) <= table)
            return;
        blocks = cg_max(need, blocks);
        table = cg_max(cg_qcow2_clusters(8 * blocks), table);
    }
}
