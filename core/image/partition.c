#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <blkid/blkid.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/image/window.h"

/* Tables are read by libblkid, which wants a file: it gets one in memory, sparse, of the image's
 * size, with copies of the sectors in which tables lie.  Everything else in it is a hole, so a
 * table that points elsewhere finds zeros there and is refused by libblkid.
 *
 * Where a table can be: the primary GPT or MBR at the start, the backup GPT at the end (UEFI
 * specification, 5.3), and a chain of extended boot records, each somewhere in the extended
 * partition.  The chain is followed here only to copy its sectors; libblkid interprets them. */

#define HEAD (UINT64_C(1) << 20)
#define TAIL (UINT64_C(128) << 10)

/* Longer chains of extended boot records than any system reads. */
#define EBR_MAX 256

#define MBR_TABLE 446
#define MBR_ENTRY 16
#define MBR_ENTRIES 4
#define MBR_MAGIC 510

static void close_probe(blkid_probe *pr)
{
    if (*pr)
        blkid_free_probe(*pr);
}

static int copy_range(struct cg_image *base, int fd, uint64_t off, uint64_t len,
                      struct cg_error *err)
{
    uint8_t buf[65536];

    for (uint64_t end = off + len; off < end;) {
        size_t n = (size_t)cg_min(end - off, sizeof buf);
        int r = cg_image_pread(base, buf, n, off, err);
        if (r < 0)
            return r;
        r = cg_pwrite_full(fd, buf, n, off);
        if (r < 0)
            return cg_error_set(err, -r, "copy the partition table");
        off += n;
    }
    return 0;
}

/* The first sector that an extended entry of the boot record at sector points to, or 0. */
static uint32_t extended_entry(const uint8_t sector[static CG_SECTOR])
{
    if (cg_le16(sector + MBR_MAGIC) != 0xaa55)
        return 0;
    for (unsigned i = 0; i < MBR_ENTRIES; i++) {
        const uint8_t *entry = sector + MBR_TABLE + MBR_ENTRY * i;
        if (entry[4] == 0x05 || entry[4] == 0x0f || entry[4] == 0x85)
            return cg_le32(entry + 8);
    }
    return 0;
}

/* Copies the sectors of the chain of extended boot records. */
static int copy_chain(struct cg_image *base, int fd, struct cg_error *err)
{
    uint64_t size = cg_image_size(base);
    uint8_t sector[CG_SECTOR];
    int r = cg_image_pread(base, sector, sizeof sector, 0, err);
    uint64_t first = r < 0 ? 0 : extended_entry(sector);
    uint64_t next = first;

    for (unsigned i = 0; r == 0 && next != 0 && i < EBR_MAX; i++) {
        uint64_t off = next * CG_SECTOR;
        if (off > size - CG_SECTOR)
            break;
        r = copy_range(base, fd, off, CG_SECTOR, err);
        if (r == 0)
            r = cg_image_pread(base, sector, sizeof sector, off, err);
        uint32_t relative = r < 0 ? 0 : extended_entry(sector);
        next = relative ? first + relative : 0;
    }
    return r;
}

static int copy_tables(struct cg_image *base, int fd, struct cg_error *err)
{
    uint64_t size = cg_image_size(base);
    uint64_t head = cg_min(size, HEAD), tail = cg_min(size - head, TAIL);

    if (ftruncate(fd, (off_t)size) < 0)
        return cg_error_set(err, errno, "copy the partition table");
    int r = copy_range(base, fd, 0, head, err);
    if (r == 0)
        r = copy_range(base, fd, size - tail, tail, err);
    return r < 0 ? r : copy_chain(base, fd, err);
}

/* The table in fd as libblkid reads it with sectors of so many bytes; NULL if there is none. */
static blkid_partlist read_table(blkid_probe pr, int fd, uint64_t size, unsigned sector)
{
    if (blkid_probe_set_device(pr, fd, 0, (blkid_loff_t)size) < 0 ||
        blkid_probe_set_sectorsize(pr, sector) < 0)
        return NULL;
    blkid_partlist list = blkid_probe_get_partitions(pr);
    return list && blkid_partlist_get_table(list) ? list : NULL;
}

static const char *table_type(blkid_partlist list)
{
    return blkid_parttable_get_type(blkid_partlist_get_table(list));
}

/* -ENOENT if there is no table; -EINVAL for a damaged one and for one of other sectors. */
static int find_table(blkid_probe pr, int fd, uint64_t size, blkid_partlist *ret_list,
                      struct cg_error *err)
{
    blkid_partlist list = read_table(pr, fd, size, CG_SECTOR);
    uint8_t mbr[CG_SECTOR];

    if (list && (strcmp(table_type(list), "gpt") == 0 || strcmp(table_type(list), "dos") == 0)) {
        *ret_list = list;
        return 0;
    }
    if (list)
        return cg_error_say(err, EINVAL, "the partition table is of type %s, not GPT or MBR",
                            table_type(list));
    if (size % 4096 == 0 && (list = read_table(pr, fd, size, 4096)))
        return cg_error_say(err, EINVAL,
                            "the partition table is made for sectors of 4096 bytes, not 512");
    int r = cg_pread_full(fd, mbr, sizeof mbr, 0);
    if (r == 0 && cg_le16(mbr + MBR_MAGIC) == 0xaa55 && mbr[MBR_TABLE + 4] == 0xee)
        return cg_error_say(err, EINVAL,
                            "the GPT is damaged (neither it nor its backup can be read), or "
                            "made for a larger disk");
    return cg_error_say(err, ENOENT, "there is no partition table");
}

static bool overlap(blkid_partition a, blkid_partition b)
{
    uint64_t a0 = (uint64_t)blkid_partition_get_start(a),
             b0 = (uint64_t)blkid_partition_get_start(b);

    return a0 < b0 + (uint64_t)blkid_partition_get_size(b) &&
           b0 < a0 + (uint64_t)blkid_partition_get_size(a);
}

/* A neighbour that shares sectors with part, or NULL.  An extended partition holds others by its
 * nature, and so does one with a table of its own within. */
static blkid_partition overlapping(blkid_partlist list, blkid_partition part)
{
    int n = blkid_partlist_numof_partitions(list);

    for (int i = 0; i < n; i++) {
        blkid_partition other = blkid_partlist_get_partition(list, i);
        if (blkid_partition_get_partno(other) != blkid_partition_get_partno(part) &&
            !blkid_partition_is_extended(other) &&
            blkid_partition_get_table(other) == blkid_partition_get_table(part) &&
            overlap(part, other))
            return other;
    }
    return NULL;
}

static int find_partition(blkid_partlist list, unsigned number, uint64_t size, uint64_t *ret_off,
                          uint64_t *ret_len, struct cg_error *err)
{
    blkid_partition part = blkid_partlist_get_partition_by_partno(list, (int)number);

    if (!part)
        return cg_error_say(err, ENOENT, "the partition table has no partition %u", number);
    if (blkid_partition_is_extended(part))
        return cg_error_say(err, EINVAL,
                            "partition %u is an extended one: it only holds partitions from 5",
                            number);
    uint64_t start = (uint64_t)blkid_partition_get_start(part);
    uint64_t sectors = (uint64_t)blkid_partition_get_size(part);
    if (start > size / CG_SECTOR || sectors > size / CG_SECTOR - start || sectors == 0)
        return cg_error_say(
            err, EINVAL, "partition %u (sectors %llu to %llu) does not lie within the image",
            number, (unsigned long long)start, (unsigned long long)(start + sectors));
    blkid_partition other = overlapping(list, part);
    if (other)
        return cg_error_say(err, EINVAL, "partitions %u and %d overlap", number,
                            blkid_partition_get_partno(other));
    *ret_off = start * CG_SECTOR;
    *ret_len = sectors * CG_SECTOR;
    return 0;
}

int cg_window_find_partition(struct cg_image *base, unsigned number, uint64_t *ret_off,
                             uint64_t *ret_len, struct cg_error *err)
{
    uint64_t size = cg_image_size(base);
    blkid_partlist list;

    if (size < 2 * CG_SECTOR)
        return cg_error_say(err, ENOENT, "there is no partition table");
    CG_CLEANUP(cg_close) int fd = memfd_create("cowgate-partition-table", MFD_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "copy the partition table");
    int r = copy_tables(base, fd, err);
    if (r < 0)
        return cg_error_prefix(err, r, "read the partition table");
    CG_CLEANUP(close_probe) blkid_probe pr = blkid_new_probe();
    if (!pr)
        return cg_error_set(err, ENOMEM, "read the partition table");
    r = find_table(pr, fd, size, &list, err);
    if (r == 0)
        r = find_partition(list, number, size, ret_off, ret_len, err);
    return r;
}

int cg_window_open_partition(struct cg_image *base, unsigned number, struct cg_image **ret_image,
                             struct cg_error *err)
{
    uint64_t off = 0, len = 0;
    int r = cg_window_find_partition(base, number, &off, &len, err);

    return r < 0 ? r : cg_window_open(base, off, len, ret_image, err);
}
