/* What the virtual qcow2 files have in common: version 3, clusters of 64 KiB, reference counts of
 * 16 bits (QEMU's docs/interop/qcow2.txt).  Places in the file are counted in clusters. */
#ifndef CG_IMAGE_QCOW2_FORMAT_H
#define CG_IMAGE_QCOW2_FORMAT_H

#include "core/base/bytes.h"

#define CG_QCOW2_CLUSTER_BITS 16
#define CG_QCOW2_CLUSTER (UINT64_C(1) << CG_QCOW2_CLUSTER_BITS) /* bytes */
#define CG_QCOW2_ENTRIES (CG_QCOW2_CLUSTER / 8)                 /* of a table in a cluster */
#define CG_QCOW2_REFS (CG_QCOW2_CLUSTER / 2) /* clusters whose references one block counts */
/* librbd compares offsets after masking them to 63 - CG_QCOW2_CLUSTER_BITS bits. */
#define CG_QCOW2_FILE_MAX (UINT64_C(1) << (63 - CG_QCOW2_CLUSTER_BITS)) /* bytes */

struct cg_qcow2_header {
    uint64_t size;           /* of the image, bytes */
    uint32_t l1_size;        /* entries */
    uint64_t l1;             /* the L1 table */
    uint64_t table, blocks;  /* refcount table, and the blocks, which follow it */
    uint64_t snapshot_table; /* 0 if there are no snapshots */
    uint32_t snapshots;
};

static inline uint64_t cg_qcow2_clusters(uint64_t bytes)
{
    return cg_round_up(bytes, CG_QCOW2_CLUSTER) / CG_QCOW2_CLUSTER;
}

/* Writes the header to a cluster of zeros. */
void cg_qcow2_put_header(uint8_t *to, const struct cg_qcow2_header *header);

/* Writes, to a cluster of zeros, the part-th cluster of a table whose count entries are the
 * clusters from first on, with flags. */
void cg_qcow2_put_table(uint8_t *to, uint64_t part, uint64_t first, uint64_t count, uint64_t flags);

/* Calls place, which places all parts of the file and returns its end, with as many clusters for
 * the refcount table and the refcount blocks as that takes: they count themselves too. */
void cg_qcow2_lay_out(uint64_t (*place)(void *opaque, uint64_t table, uint64_t blocks),
                      void *opaque);

#endif
