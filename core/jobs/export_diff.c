#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/page.h"
#include "core/backups/repository.h"
#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/base/workers.h"
#include "core/jobs/chunk_workers.h"
#include "core/jobs/export_diff.h"
#include "core/jobs/output.h"

/* Thread model: the chunks that differ are the items of one parallel loop; each worker fetches its
 * chunk into its own buffer and writes its records when it's their turn.  The counters are atomic.
 */

#define ZERO_RUN 4096 /* shorter runs of zeros are data */
#define HEADER "rbd diff v1\n"

struct changed {
    uint64_t chunk;
    struct cg_ref ref; /* what is there now */
};

struct export_diff {
    struct cg_project *project;
    struct cg_point *from, *to;
    struct cg_output output;
    size_t count, allocated;
    struct changed *v;
    uint64_t total; /* bytes of these chunks */
    struct cg_chunk_workers workers;
    _Atomic uint64_t data, zeroed;
};

static int add(struct export_diff *x, uint64_t chunk, const struct cg_ref *ref,
               struct cg_error *err)
{
    struct changed *v = cg_array_room(x->v, x->count, &x->allocated, sizeof *v);

    if (!v)
        return cg_error_set(err, ENOMEM, "compare two points");
    x->v = v;
    x->v[x->count++] = (struct changed){ chunk, *ref };
    x->total += cg_chunk_len(x->to->size, chunk);
    return 0;
}

static int compare_page(struct export_diff *x, uint64_t number, struct cg_error *err)
{
    struct cg_ref before[CG_PAGE_CHUNKS], now[CG_PAGE_CHUNKS];
    uint64_t first = number * CG_PAGE_CHUNKS;

    if (number < x->from->page_count && cg_ref_same(&x->from->pages[number], &x->to->pages[number]))
        return 0;
    int r = cg_project_page(x->project, x->from, number, before, err);
    if (r == 0)
        r = cg_project_page(x->project, x->to, number, now, err);
    for (uint64_t i = 0; r == 0 && i < CG_PAGE_CHUNKS; i++) {
        if (first + i < cg_chunk_count(x->to->size) && !cg_ref_same(&before[i], &now[i]))
            r = add(x, first + i, &now[i], err);
    }
    return r;
}

static int compare(struct export_diff *x, struct cg_error *err)
{
    int r = 0;

    for (uint64_t page = 0; r == 0 && page < x->to->page_count; page++)
        r = compare_page(x, page, err);
    return r;
}

/* 'f' and 't': the name of a snapshot. */
static int write_name(struct export_diff *x, char tag, const char *name, struct cg_error *err)
{
    uint8_t head[5] = { (uint8_t)tag };

    cg_put_le32(head + 1, (uint32_t)strlen(name));
    int r = cg_output_write(&x->output, head, sizeof head, err);
    return r < 0 ? r : cg_output_write(&x->output, name, strlen(name), err);
}

static int write_head(struct export_diff *x, struct cg_error *err)
{
    uint8_t size[9] = { 's' };

    cg_put_le64(size + 1, x->to->size);
    int r = cg_output_write(&x->output, HEADER, strlen(HEADER), err);
    if (r == 0)
        r = write_name(x, 'f', x->from->name, err);
    if (r == 0)
        r = write_name(x, 't', x->to->name, err);
    return r < 0 ? r : cg_output_write(&x->output, size, sizeof size, err);
}

/* 'w', with buf, or 'z': a range. */
static int write_range(struct export_diff *x, uint64_t off, const uint8_t *buf, size_t len,
                       struct cg_error *err)
{
    uint8_t head[17] = { buf ? 'w' : 'z' };

    cg_put_le64(head + 1, off);
    cg_put_le64(head + 9, len);
    int r = cg_output_write(&x->output, head, sizeof head, err);
    if (r == 0 && buf)
        r = cg_output_write(&x->output, buf, len, err);
    atomic_fetch_add(buf ? &x->data : &x->zeroed, len);
    return r;
}

static int write_chunk(struct export_diff *x, const struct changed *c, const uint8_t *buf,
                       size_t len, struct cg_error *err)
{
    uint64_t off = c->chunk * CG_CHUNK_SIZE;
    int r = 0;

    if (cg_ref_is_zero(&c->ref))
        return write_range(x, off, NULL, len, err);
    for (size_t at = 0, n; r == 0 && at < len; at += n) {
        bool zeros;
        n = cg_zero_run(buf + at, len - at, ZERO_RUN, &zeros);
        r = write_range(x, off + at, zeros ? NULL : buf + at, n, err);
    }
    return r;
}

static int do_chunk(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct export_diff *x = opaque;
    const struct changed *c = &x->v[item];
    struct cg_chunk_worker *w = &x->workers.v[worker];
    uint32_t len = cg_chunk_len(x->to->size, c->chunk);
    int r = 0;

    if (!cg_ref_is_zero(&c->ref))
        r = cg_project_fetch(x->project, CG_OBJECT_CHUNK, &c->ref, w->codec, w->buf, err);
    if (r == 0) {
        if (!cg_output_wait(&x->output, item))
            return 0;
        r = write_chunk(x, c, w->buf, len, err);
    }
    if (r == 0)
        r = cg_output_report(&x->output, len, err);
    return cg_output_end(&x->output, r);
}

static int open_points(struct export_diff *x, struct cg_repository *repository,
                       const struct cg_name *from, const struct cg_name *to, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    if (strcmp(from->part[0], to->part[0]) != 0)
        return cg_error_say(err, EINVAL, "%s is in another project: the two can't be compared",
                            cg_name_text(from, true, text));
    int r = cg_repository_project(repository, to->part[0], false, &x->project, err);
    if (r == 0)
        r = cg_project_point(x->project, from->part[1], from->part[2], &x->from, err);
    if (r == 0)
        r = cg_project_point(x->project, to->part[1], to->part[2], &x->to, err);
    if (r == 0 && strcmp(x->from->name, x->to->name) == 0)
        return cg_error_say(err, EINVAL,
                            "both points are named %s, but an image has a snapshot of "
                            "a name only once",
                            x->to->name);
    return r;
}

static void clear(struct export_diff *x)
{
    cg_chunk_workers_clear(&x->workers);
    free(x->v);
    cg_point_free(x->from);
    cg_point_free(x->to);
    cg_output_clear(&x->output);
}

int cg_export_diff(struct cg_repository *repository, const struct cg_name *from,
                   const struct cg_name *to, int fd, const struct cg_progress *progress,
                   struct cg_export_diff_result *ret, struct cg_error *err)
{
    struct export_diff x = { .total = 0 };

    int r = open_points(&x, repository, from, to, err);
    if (r == 0)
        r = compare(&x, err);
    cg_output_init(&x.output, fd, progress, x.total);
    if (r == 0)
        r = cg_chunk_workers_init(&x.workers, repository, cg_min(2 * cg_processors(), x.count),
                                  err);
    if (r == 0)
        r = write_head(&x, err);
    if (r == 0)
        r = cg_parallel(x.count, x.workers.count, do_chunk, &x, err);
    if (r == 0)
        r = cg_output_write(&x.output, "e", 1, err);
    if (r == 0)
        *ret = (struct cg_export_diff_result){ .chunks = x.count,
                                               .bytes_data = x.data,
                                               .bytes_zeroed = x.zeroed };
    clear(&x);
    return r;
}
