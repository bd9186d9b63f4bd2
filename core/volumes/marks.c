#include "config.h"

#include "core/volumes/map_file.h"
#include "core/volumes/marks.h"
#include "core/volumes/work_map.h"

#define MARK_BLOCKS 256u /* the blocks of a bit: a MiB */
_Static_assert(MARK_BLOCKS * 64 == CG_MAP_WINDOW_BLOCKS, "a word of marks is a window's");

void cg_marks_written(struct cg_work_map *work, uint64_t block, uint64_t count)
{
    for (uint64_t m = block / MARK_BLOCKS; m <= (block + count - 1) / MARK_BLOCKS; m++) {
        uint64_t bit = UINT64_C(1) << (m % 64);
        struct cg_work_marks *marks = cg_work_map_marks(work, m / 64);
        if (!(atomic_load(&marks->written) & bit))
            atomic_fetch_or(&marks->written, bit);
    }
}

void cg_marks_sync_begin(struct cg_work_map *work)
{
    atomic_store(cg_work_map_unsure(work), 1);
    for (uint64_t w = 0; w < cg_work_map_windows(work); w++) {
        if (!cg_work_map_has(work, w))
            continue;
        struct cg_work_marks *marks = cg_work_map_marks(work, w);
        uint64_t written = atomic_load(&marks->written);
        if (!written)
            continue;
        /* In one of the two at any moment: the process may be killed at any. */
        atomic_fetch_or(&marks->syncing, written);
        atomic_fetch_and(&marks->written, ~written);
    }
}

void cg_marks_sync_end(struct cg_work_map *work)
{
    for (uint64_t w = 0; w < cg_work_map_windows(work); w++)
        if (cg_work_map_has(work, w))
            atomic_store(&cg_work_map_marks(work, w)->syncing, 0);
    atomic_store(cg_work_map_unsure(work), 0);
}

bool cg_marks_unsure(struct cg_work_map *work)
{
    return atomic_load(cg_work_map_unsure(work)) != 0;
}

bool cg_marks_next_unsure(struct cg_work_map *work, uint64_t *block, uint64_t *ret_count)
{
    uint64_t m = (*block + MARK_BLOCKS - 1) / MARK_BLOCKS;

    for (; m / 64 < cg_work_map_windows(work); m++) {
        if (!cg_work_map_has(work, m / 64))
            continue;
        struct cg_work_marks *marks = cg_work_map_marks(work, m / 64);
        uint64_t bits = atomic_load(&marks->written) | atomic_load(&marks->syncing);
        if (bits >> (m % 64) & 1) {
            *block = m * MARK_BLOCKS;
            *ret_count = MARK_BLOCKS;
            return true;
        }
    }
    return false;
}
