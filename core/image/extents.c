#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/image/image.h"

void cg_extents_init(struct cg_extents *e, uint64_t start, uint64_t end, size_t max)
{
    *e = (struct cg_extents){ .start = start, .end = end, .next = start, .max = max };
}

void cg_extents_clear(struct cg_extents *e)
{
    free(e->v);
    e->v = NULL;
    e->count = e->allocated = 0;
}

bool cg_extents_full(const struct cg_extents *e)
{
    return e->next >= e->end;
}

int cg_extents_to(struct cg_extents *e, uint64_t end, enum cg_extent_type type,
                  struct cg_error *err)
{
    end = cg_min(end, e->end);
    if (end <= e->next || cg_extents_full(e))
        return 0;
    struct cg_extent *last = e->count ? &e->v[e->count - 1] : NULL;
    if (last && last->type == type) {
        last->len = end - last->off;
        e->next = end;
        return 0;
    }
    if (e->max && e->count == e->max) {
        e->end = e->next; /* full: the last extent is complete, the rest isn't described */
        return 0;
    }
    struct cg_extent *v = cg_array_room(e->v, e->count, &e->allocated, sizeof *v);
    if (!v)
        return cg_error_set(err, ENOMEM, "list extents");
    e->v = v;
    e->v[e->count++] = (struct cg_extent){ .off = e->next, .len = end - e->next, .type = type };
    e->next = end;
    return 0;
}
