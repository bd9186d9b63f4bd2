#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/backups/page.h"
#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/jobs/backup_plan.h"

void cg_plan_clear(struct cg_plan *plan)
{
    free(plan->v);
    plan->v = NULL;
    plan->count = plan->allocated = 0;
}

static int add(struct cg_plan *plan, uint64_t chunk, bool zero, struct cg_error *err)
{
    if (plan->count > 0 && cg_plan_chunk(plan, plan->count - 1) == chunk) {
        if (!zero)
            plan->v[plan->count - 1] = chunk << 1;
        return 0;
    }
    uint64_t *v = cg_array_room(plan->v, plan->count, &plan->allocated, sizeof *v);
    if (!v)
        return cg_error_set(err, ENOMEM, "plan a backup");
    plan->v = v;
    plan->v[plan->count++] = chunk << 1 | zero;
    return 0;
}

/* Chunks that the extent touches are read; one that it covers with zeros needs no reading. */
static int add_extent(struct cg_plan *plan, const struct cg_extent *e, struct cg_error *err)
{
    uint64_t end = cg_min(e->off + e->len, plan->size);
    int r = 0;

    for (uint64_t c = e->off / CG_CHUNK_SIZE; r == 0 && c * CG_CHUNK_SIZE < end; c++) {
        bool whole =
            c * CG_CHUNK_SIZE >= e->off && c * CG_CHUNK_SIZE + cg_chunk_len(plan->size, c) <= end;
        r = add(plan, c, whole && e->type != CG_DATA, err);
    }
    return r;
}

static int full_extent(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    return e->type == CG_DATA ? add_extent(opaque, e, err) : 0;
}

/* Spaces describe changes in pieces of their own; zeros that follow each other are one extent. */
struct diff {
    struct cg_plan *plan;
    struct cg_extent pending; /* len 0: none */
};

static int diff_extent(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct diff *d = opaque;
    struct cg_extent *p = &d->pending;
    bool zeros = p->type != CG_DATA && e->type != CG_DATA;

    if (p->len && zeros && p->off + p->len == e->off) {
        p->len += e->len;
        return 0;
    }
    int r = p->len ? add_extent(d->plan, p, err) : 0;
    *p = *e;
    return r;
}

int cg_plan_full(struct cg_plan *plan, struct cg_image *image, struct cg_error *err)
{
    plan->size = cg_image_size(image);
    return cg_image_walk(image, 0, plan->size, full_extent, plan, err);
}

static int by_chunk(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Sorts; of a chunk that is there as zeros and to be read, the latter counts. */
static void sort(struct cg_plan *plan)
{
    size_t n = 0;

    if (plan->count == 0)
        return;
    qsort(plan->v, plan->count, sizeof *plan->v, by_chunk);
    for (size_t i = 1; i < plan->count; i++) {
        if (plan->v[i] >> 1 != plan->v[n] >> 1)
            plan->v[++n] = plan->v[i];
    }
    plan->count = n + 1;
}

/* Chunks of the base that can't be taken over: damaged ones, and all of a page that can't be
 * read. */
static int add_damaged(struct cg_plan *plan, struct cg_session *session,
                       const struct cg_point *base, struct cg_error *err)
{
    struct cg_ref refs[CG_PAGE_CHUNKS];
    bool damaged[CG_PAGE_CHUNKS];

    for (uint64_t page = 0; page < base->page_count; page++) {
        if (cg_ref_is_zero(&base->pages[page]))
            continue;
        int r = cg_session_base_page(session, page, refs, damaged, err);
        if (r == -ENOMEM)
            return r;
        for (unsigned i = 0; i < CG_PAGE_CHUNKS; i++) {
            uint64_t chunk = page * CG_PAGE_CHUNKS + i;
            if ((r < 0 || damaged[i]) && chunk * CG_CHUNK_SIZE < plan->size) {
                int r2 = add(plan, chunk, false, err);
                if (r2 < 0)
                    return r2;
            }
        }
    }
    return 0;
}

int cg_plan_diff(struct cg_plan *plan, struct cg_session *session, struct cg_space *space,
                 const struct cg_name *from, const struct cg_name *to, struct cg_error *err)
{
    const char *why;
    const struct cg_point *base = cg_session_base(session, &why);

    struct diff diff = { .plan = plan };

    int r = cg_space_diff(space, from, to, diff_extent, &diff, err);
    if (r == 0 && diff.pending.len)
        r = add_extent(plan, &diff.pending, err);
    if (r < 0)
        return r;
    /* The last chunk of the base was shorter than the same chunk is now. */
    if (base->size < plan->size && base->size % CG_CHUNK_SIZE)
        r = add(plan, base->size / CG_CHUNK_SIZE, false, err);
    if (r == 0)
        r = add_damaged(plan, session, base, err);
    sort(plan);
    return r;
}
