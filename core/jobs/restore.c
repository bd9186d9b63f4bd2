#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/backups/repository.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"
#include "core/jobs/chunk_workers.h"
#include "core/jobs/restore_look.h"

/* Thread model: the point's chunks are the items of one parallel loop; each worker has its own
 * buffer and codec, the counters are atomic. */

#define ZERO_RUN 4096 /* shorter runs of zeros are written */

struct restore {
    struct cg_project *project;
    struct cg_point *point;
    struct cg_image *target;
    const struct cg_restore_options *options;
    uint8_t *look; /* enum cg_look of each chunk */
    struct cg_chunk_workers workers;
    _Atomic uint64_t read, skipped, trusted, fetched, written, chunks, done;
};

/* True if the target has what ref refers to. */
static int is_right(struct restore *x, const struct cg_ref *ref, uint64_t off, uint32_t len,
                    struct cg_chunk_worker *w, bool *ret, struct cg_error *err)
{
    uint8_t id[CG_OBJECT_ID];

    switch (x->look[off / CG_CHUNK_SIZE]) {
    case CG_LOOK_ZEROS:
        *ret = cg_ref_is_zero(ref);
        return 0;
    case CG_LOOK_RIGHT:
        atomic_fetch_add(&x->trusted, len);
        *ret = true;
        return 0;
    }
    int r = cg_image_pread(x->target, w->buf, len, off, err);
    if (r < 0)
        return cg_error_prefix(err, r, "read the target");
    atomic_fetch_add(&x->read, len);
    if (cg_ref_is_zero(ref)) {
        *ret = cg_is_zero(w->buf, len);
        return 0;
    }
    r = cg_keys_object_id(cg_project_keys(x->project), CG_OBJECT_CHUNK, w->buf, len, id, err);
    *ret = r == 0 && memcmp(id, ref->id, sizeof id) == 0;
    return r;
}

static int write_chunk(struct restore *x, const uint8_t *buf, size_t len, uint64_t off,
                       struct cg_error *err)
{
    for (size_t at = 0, n; at < len; at += n) {
        bool zeros;
        int r = 0;
        n = cg_zero_run(buf + at, len - at, ZERO_RUN, &zeros);
        if (zeros && x->options->fresh)
            continue;
        if (zeros)
            r = cg_image_zero(x->target, n, off + at, CG_MAY_TRIM, err);
        else
            r = cg_image_pwrite(x->target, buf + at, n, off + at, CG_BULK, err);
        if (r < 0)
            return cg_error_prefix(err, r, "write the target");
        atomic_fetch_add(&x->written, n);
    }
    return 0;
}

static int put_right(struct restore *x, const struct cg_ref *ref, uint64_t off, uint32_t len,
                     struct cg_chunk_worker *w, struct cg_error *err)
{
    int r;

    if (cg_ref_is_zero(ref)) {
        r = cg_image_zero(x->target, len, off, CG_MAY_TRIM, err);
        if (r < 0)
            return cg_error_prefix(err, r, "zero the target");
        atomic_fetch_add(&x->written, len);
        return 0;
    }
    r = cg_project_fetch(x->project, CG_OBJECT_CHUNK, ref, w->codec, w->buf, err);
    if (r < 0)
        return r;
    atomic_fetch_add(&x->fetched, len);
    atomic_fetch_add(&x->chunks, 1);
    return write_chunk(x, w->buf, len, off, err);
}

static int do_chunk(void *opaque, uint64_t chunk, unsigned worker, struct cg_error *err)
{
    struct restore *x = opaque;
    struct cg_chunk_worker *w = &x->workers.v[worker];
    uint32_t len = cg_chunk_len(x->point->size, chunk);
    uint64_t off = chunk * CG_CHUNK_SIZE;
    struct cg_ref ref;
    const struct cg_progress *progress = x->options->progress;
    bool right = false;

    int r = cg_project_chunk(x->project, x->point, chunk, &ref, err);
    if (r < 0)
        return r;
    if (x->options->fresh)
        right = cg_ref_is_zero(&ref);
    else
        r = is_right(x, &ref, off, len, w, &right, err);
    if (r < 0)
        return r;
    if (right)
        atomic_fetch_add(&x->skipped, len);
    else
        r = put_right(x, &ref, off, len, w, err);
    uint64_t done = atomic_fetch_add(&x->done, len) + len;
    if (r == 0 && progress && progress->report(progress->opaque, done, x->point->size) != 0)
        r = cg_error_say(err, ECANCELED, "the restore was cancelled");
    return r;
}

static void clear(struct restore *x)
{
    cg_chunk_workers_clear(&x->workers);
    free(x->look);
    cg_point_free(x->point);
}

static int open_point(struct restore *x, struct cg_repository *repository,
                      const struct cg_name *name, struct cg_error *err)
{
    struct cg_point *head;
    char text[CG_NAME_MAX];

    if (name->space != CG_NAME_BACKUPS || name->parts != CG_PARTS || name->qcow2 || name->partition)
        return cg_error_say(err, EINVAL, "%s names no point", cg_name_text(name, false, text));
    int r = cg_repository_project(repository, name->part[0], false, &x->project, err);
    if (r < 0)
        return r;
    if (strcmp(name->part[2], "latest") != 0)
        return cg_project_point(x->project, name->part[1], name->part[2], &x->point, err);
    r = cg_project_latest(x->project, name->part[1], &head, err);
    if (r < 0)
        return r;
    r = cg_project_point(x->project, name->part[1], head->name, &x->point, err);
    cg_point_free(head);
    return r;
}

int cg_restore(struct cg_repository *repository, const struct cg_name *point,
               struct cg_image *target, const struct cg_restore_options *options,
               struct cg_restore_result *ret, struct cg_error *err)
{
    struct restore x = { .target = target, .options = options };
    char distrust[CG_RESTORE_WHY];

    int r = open_point(&x, repository, point, err);
    if (r < 0)
        return r;
    uint64_t size = cg_image_size(target);
    if (size < x.point->size)
        r = cg_error_say(err, ENOSPC,
                         "the target has %" PRIu64 " bytes, the point %" PRIu64
                         ": restore into something at least as large",
                         size, x.point->size);
    if (r == 0) {
        x.look = calloc(cg_chunk_count(x.point->size) + 1, 1);
        r = x.look ? cg_restore_look(x.project, x.point, target, options, x.look, distrust, err)
                   : cg_error_set(err, ENOMEM, "start a restore");
    }
    if (r == 0)
        r = cg_chunk_workers_init(&x.workers, repository, 2 * cg_processors(), err);
    if (r == 0)
        r = cg_parallel(cg_chunk_count(x.point->size), x.workers.count, do_chunk, &x, err);
    if (r == 0)
        r = cg_image_flush(target, err);
    if (r == 0) {
        *ret = (struct cg_restore_result){
            .bytes_read = x.read,
            .bytes_skipped = x.skipped,
            .bytes_trusted = x.trusted,
            .bytes_fetched = x.fetched,
            .bytes_written = x.written,
            .chunks_fetched = x.chunks,
            .tail_kept = size > x.point->size,
        };
        memcpy(ret->distrust, distrust, sizeof distrust);
    }
    clear(&x);
    return r;
}
