#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/pace.h"
#include "core/base/size.h"
#include "core/volumes/fill.h"
#include "core/volumes/layer.h"
#include "core/volumes/map.h"

#define PIECE ((uint64_t)4 << 20)      /* a chunk of a point */
#define PIECE_MIN ((uint64_t)64 << 10) /* with a low rate */
#define REPORT UINT64_C(100000000)     /* ns between reports */
#define SAVE UINT64_C(2000000000)      /* ns between flushes */

struct job {
    const struct cg_fill *fill;
    struct cg_layer *layer;
    struct cg_pace pace;
    uint64_t size; /* of what it's filled from */
    uint64_t piece;
    uint64_t next;            /* what lies before is done; a multiple of CG_BLOCK */
    uint8_t *buf;             /* of a piece */
    bool unsaved;             /* something was written since the last flush */
    uint64_t reported, saved; /* when, in ns of the monotonic clock */
};

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int report(struct job *j, struct cg_error *err)
{
    uint64_t t = now();
    bool save = j->unsaved && t - j->saved >= SAVE;

    if (t - j->reported < REPORT)
        return 0;
    if (save) {
        int r = cg_layer_flush(j->layer, err);
        if (r < 0)
            return r;
        j->unsaved = false;
        j->saved = now();
    }
    j->reported = t;
    return j->fill->report(j->fill->opaque, cg_min(j->next, j->size), j->size, save, err);
}

/* Where the first run of absent blocks is within len bytes at off; *ret_len is 0 if there is
 * none. */
static int next_absent(struct job *j, uint64_t off, uint64_t len, uint64_t *ret_off,
                       uint64_t *ret_len, struct cg_error *err)
{
    uint64_t block = off / CG_BLOCK, end = (off + len) / CG_BLOCK, n;

    *ret_len = 0;
    for (; block < end; block += n) {
        enum cg_state state;
        int r = cg_layer_run(j->layer, block, end - block, &state, &n, err);
        if (r < 0)
            return r;
        if (state != CG_STATE_ABSENT)
            continue;
        *ret_off = block * CG_BLOCK;
        *ret_len = n * CG_BLOCK;
        return 0;
    }
    return 0;
}

/* Writes len bytes of absent blocks at off. */
static int put(struct job *j, const uint8_t *from, size_t len, uint64_t off, struct cg_error *err)
{
    for (size_t at = 0, n; at < len; at += n) {
        bool zero;
        n = cg_zero_run(from + at, len - at, CG_BLOCK, &zero);
        int r = zero ? cg_layer_zero(j->layer, (off + at) / CG_BLOCK, n / CG_BLOCK, err)
                     : cg_layer_write(j->layer, from + at, n, off + at, CG_BULK, NULL, NULL, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Fills in what is absent of len bytes at start, whole blocks; ahead: bytes that come after it. */
static int fill_piece(struct job *j, uint64_t start, uint64_t len, uint64_t ahead,
                      struct cg_error *err)
{
    uint64_t off, n, in_parent = cg_min(len, j->size - start), end = start + len;
    int r = next_absent(j, start, len, &off, &n, err);

    if (r < 0 || n == 0)
        return r;
    cg_pace_wait(&j->pace, len);
    bool quiet = !j->fill->parent || cg_parent_give_way(j->fill->parent);
    if (quiet && ahead && j->fill->rate == 0)
        cg_image_prefetch(j->fill->from, cg_min(ahead, PIECE), end);
    memset(j->buf + in_parent, 0, len - in_parent);
    r = cg_image_pread(j->fill->from, j->buf, in_parent, start, err);
    j->unsaved = true;
    while (r == 0 && n > 0) {
        r = put(j, j->buf + (off - start), n, off, err);
        off += n;
        if (r == 0)
            r = next_absent(j, off, end - off, &off, &n, err);
    }
    return r;
}

/* What a client has just read is in memory, and likely to be read again. */
static int fill_recent(struct job *j, struct cg_error *err)
{
    uint64_t off;

    if (!j->fill->parent || !cg_parent_recent(j->fill->parent, &off))
        return 0;
    off -= off % j->piece;
    return fill_piece(j, off, cg_min(j->piece, cg_round_up(j->size, CG_BLOCK) - off), 0, err);
}

static int fill_extent(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct job *j = opaque;
    uint64_t end = cg_round_up(e->off + e->len, CG_BLOCK);

    if (e->type != CG_DATA)
        return 0;
    j->next = cg_max(j->next, cg_round_down(e->off, CG_BLOCK));
    while (j->next < end) {
        uint64_t len = cg_min(j->piece - j->next % j->piece, end - j->next);
        int r = report(j, err);
        if (r == 0)
            r = fill_recent(j, err);
        if (r == 0)
            r = fill_piece(j, j->next, len, end - (j->next + len), err);
        if (r != 0)
            return r;
        j->next += len;
    }
    return 0;
}

static int fill_all(struct job *j, struct cg_error *err)
{
    uint64_t rate = j->fill->rate;

    j->size = cg_image_size(j->fill->from);
    /* Someone who waits for the next piece can't be told to stop. */
    j->piece = rate ? cg_min(cg_max(cg_round_down(rate / 8, PIECE_MIN), PIECE_MIN), PIECE) : PIECE;
    j->buf = cg_bulk_buffer(j->piece);
    if (!j->buf)
        return cg_error_set(err, ENOMEM, "fill a layer");
    j->saved = now();
    cg_pace_init(&j->pace, rate);
    int r = cg_image_walk(j->fill->from, 0, j->size, fill_extent, j, err);
    cg_pace_clear(&j->pace);
    free(j->buf);
    return r;
}

/* With its locks: from here on nobody else writes into it, merging included. */
static int check_filling(const struct cg_fill *f, struct cg_error *err)
{
    struct cg_volume_json json;
    int r = cg_volume_json_read(f->dirfd, &json, NULL, err);

    if (r < 0)
        return r;
    r = strcmp(json.filling, f->uuid) != 0;
    cg_volume_json_clear(&json);
    return r;
}

/* Whoever reads the layer goes by its map on disk: to them it's sealed. */
static int begin(struct job *j, struct cg_error *err)
{
    const struct cg_fill *f = j->fill;
    char run[PATH_MAX];
    int r = cg_run_dir(run, sizeof run, err);

    if (r == 0)
        r = cg_layer_lock(j->layer, LOCK_SH, err);
    if (r == 0)
        r = cg_layer_lock_data(j->layer, err);
    if (r == -EWOULDBLOCK)
        return cg_error_say(err, EBUSY, "it is being filled by another process");
    if (r == 0)
        r = check_filling(f, err);
    if (r != 0)
        return r;
    cg_map_forget(f->dirfd, f->uuid, run);
    r = cg_layer_begin(j->layer, run, err);
    return r < 0 ? r : cg_layer_mark_all(j->layer, err);
}

int cg_fill(const struct cg_fill *f, struct cg_error *err)
{
    struct job j = { .fill = f };
    struct cg_error ignored;
    int r = cg_layer_open(f->dirfd, f->uuid, &j.layer, err);

    if (r < 0)
        return r;
    r = begin(&j, err);
    if (r == 0) {
        r = fill_all(&j, err);
        int end = cg_layer_end(j.layer, r == 0 ? err : &ignored);
        if (r == 0)
            r = end;
    }
    if (r == 0)
        r = f->report(f->opaque, j.size, j.size, false, err);
    cg_layer_unref(j.layer);
    return r;
}
