#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>

#include "core/base/bulk.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/image/image.h"
#include "core/volumes/map.h"
#include "core/volumes/merge_copy.h"

#define PIECE ((uint64_t)1 << 20)
#define SAVE ((uint64_t)64 << 20)    /* bytes between flushes: guests wait for none that is long */
#define REPORT UINT64_C(100000000)   /* ns between reports */
#define READS_END 10000              /* ms to wait for those who read */
#define RESERVE ((uint64_t)16 << 20) /* bytes that are left to guests in any case */

struct job {
    const struct cg_merge_copy *copy;
    uint64_t blocks; /* of both layers */
    uint64_t done, total;
    uint64_t needed;   /* bytes that the lower layer has no room for yet */
    uint64_t unsaved;  /* bytes written since the last flush */
    uint64_t reported; /* when, in ns of the monotonic clock */
    uint8_t *buf;      /* of a piece */
};

/* What is to be done with a run of blocks that the upper layer has. */
typedef int run_fn(struct job *j, uint64_t block, uint64_t count, enum cg_state state,
                   struct cg_error *err);

static int each_run(struct job *j, run_fn *fn, struct cg_error *err)
{
    uint64_t n;

    for (uint64_t block = 0; block < j->blocks; block += n) {
        enum cg_state state;
        int r = cg_layer_run(j->copy->upper, block, j->blocks - block, &state, &n, err);
        if (r == 0 && state != CG_STATE_ABSENT)
            r = fn(j, block, n, state, err);
        if (r != 0)
            return r;
    }
    return 0;
}

static int count_run(struct job *j, uint64_t block, uint64_t count, enum cg_state state,
                     struct cg_error *err)
{
    uint64_t end = block + count, n;

    if (state != CG_STATE_DATA)
        return 0;
    j->total += count * CG_BLOCK;
    for (; block < end; block += n) {
        enum cg_state below;
        int r = cg_layer_run(j->copy->lower, block, end - block, &below, &n, err);
        if (r < 0)
            return r;
        if (below != CG_STATE_DATA)
            j->needed += n * CG_BLOCK;
    }
    return 0;
}

static int report(struct job *j, struct cg_error *err)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    if (now - j->reported < REPORT)
        return 0;
    j->reported = now;
    return j->copy->report(j->copy->opaque, j->done, j->total, err);
}

static int check_room(struct job *j, uint64_t len, struct cg_error *err)
{
    struct statvfs st;

    if (!len || fstatvfs(j->copy->dirfd, &st) < 0 ||
        st.f_bavail * (uint64_t)st.f_frsize >= len + RESERVE)
        return 0;
    return cg_error_set(err, ENOSPC, "copy %llu bytes into the layer below",
                        (unsigned long long)len);
}

/* Guests may have taken meanwhile what room there was. */
static int save(struct job *j, uint64_t written, struct cg_error *err)
{
    j->unsaved += written;
    if (j->unsaved < SAVE)
        return 0;
    j->unsaved = 0;
    int r = cg_layer_flush(j->copy->lower, err);
    return r < 0 ? r : check_room(j, cg_min(j->needed, SAVE), err);
}

static int copy_run(struct job *j, uint64_t block, uint64_t count, enum cg_state state,
                    struct cg_error *err)
{
    uint64_t off = block * CG_BLOCK, end = off + count * CG_BLOCK, n;

    if (state == CG_STATE_ZERO) {
        int r = cg_layer_zero(j->copy->lower, block, count, err);
        return r < 0 ? r : report(j, err);
    }
    for (; off < end; off += n) {
        n = cg_min(PIECE - off % PIECE, end - off);
        int r = cg_layer_read(j->copy->upper, j->buf, n, off, err);
        if (r == 0)
            r = cg_layer_write(j->copy->lower, j->buf, n, off, CG_BULK, NULL, NULL, err);
        if (r == 0)
            r = save(j, n, err);
        j->done += n;
        if (r == 0)
            r = report(j, err);
        if (r != 0)
            return r;
    }
    return 0;
}

/* What the upper layer overrides is of use to nobody. */
static int clear_run(struct job *j, uint64_t block, uint64_t count, enum cg_state state,
                     struct cg_error *err)
{
    (void)state;
    return cg_layer_zero(j->copy->lower, block, count, err);
}

/* Who began to read before the upper layer had a block may have found it in the lower one, and not
 * have read it yet. */
static bool reads_end(const struct cg_merge_copy *copy)
{
    const struct timespec pause = { .tv_nsec = 1000000 };

    for (unsigned i = 0; copy->reading && atomic_load(copy->reading) > 0; i++) {
        if (i == READS_END)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static bool is_full(int r)
{
    return r == -ENOSPC || r == -EDQUOT;
}

static int copy_all(struct job *j, struct cg_error *err)
{
    int r = check_room(j, j->needed, err);

    if (r < 0)
        return r;
    j->buf = cg_bulk_buffer(PIECE);
    if (!j->buf)
        return cg_error_set(err, ENOMEM, "merge layers");
    r = each_run(j, copy_run, err);
    free(j->buf);
    return r;
}

/* The lower layer's states are those on disk, like for all who read it as a sealed one.  All are
 * written again: who did a part of it before may have died, or failed, before they were there. */
static int begin(const struct cg_merge_copy *copy, struct cg_error *err)
{
    char run[PATH_MAX];
    int r = cg_run_dir(run, sizeof run, err);

    if (r < 0)
        return r;
    cg_map_forget(copy->dirfd, cg_layer_uuid(copy->lower), run);
    r = cg_layer_begin(copy->lower, run, err);
    return r < 0 ? r : cg_layer_mark_all(copy->lower, err);
}

int cg_merge_copy(const struct cg_merge_copy *copy, struct cg_error *err)
{
    struct job j = { .copy = copy,
                     .blocks = (cg_layer_size(copy->upper) + CG_BLOCK - 1) / CG_BLOCK };
    struct cg_error ignored;
    int r = begin(copy, err);

    if (r < 0)
        return r;
    r = each_run(&j, count_run, err);
    if (r == 0)
        r = copy_all(&j, err);
    int full = is_full(r) ? r : 0;
    if (full)
        r = !reads_end(copy) ? 0 : each_run(&j, clear_run, &ignored);
    int end = cg_layer_end(copy->lower, r == 0 && !full ? err : &ignored);
    if (r == 0)
        r = end;
    return full ? full : r;
}
