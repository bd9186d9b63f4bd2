#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/jobs/backup_audit.h"

#define LEAST 4 /* chunks of each kind */

/* Chunks that chance passed over, a fair sample of them (Vitter's algorithm R), to make up the
 * least number with. */
struct reserve {
    uint64_t passed; /* over, so far */
    size_t chosen, count;
    struct cg_audit_chunk v[LEAST];
};

struct choice {
    struct cg_audit *audit;
    const struct cg_plan *plan;
    size_t next; /* item of the plan: all before are of earlier chunks */
    double share;
    uint64_t random;
    struct reserve reserve[2]; /* data, zeros */
};

/* xorshift64* (Vigna), seeded by the kernel. */
static uint64_t draw(struct choice *c)
{
    c->random ^= c->random >> 12;
    c->random ^= c->random << 25;
    c->random ^= c->random >> 27;
    return c->random * UINT64_C(2685821657736338717);
}

static int add(struct cg_audit *a, const struct cg_audit_chunk *chunk, struct cg_error *err)
{
    struct cg_audit_chunk *v = cg_array_room(a->v, a->count, &a->allocated, sizeof *v);

    if (!v)
        return cg_error_set(err, ENOMEM, "plan an audit");
    a->v = v;
    a->v[a->count++] = *chunk;
    return 0;
}

static int consider(struct choice *c, const struct cg_audit_chunk *chunk, struct cg_error *err)
{
    struct reserve *r = &c->reserve[cg_ref_is_zero(&chunk->ref)];

    if ((double)(draw(c) >> 11) * 0x1p-53 < c->share) {
        r->chosen++;
        return add(c->audit, chunk, err);
    }
    uint64_t place = r->count < LEAST ? r->count++ : draw(c) % (r->passed + 1);
    r->passed++;
    if (place < LEAST)
        r->v[place] = *chunk;
    return 0;
}

static bool planned(struct choice *c, uint64_t chunk)
{
    while (c->next < c->plan->count && cg_plan_chunk(c->plan, c->next) < chunk)
        c->next++;
    return c->next < c->plan->count && cg_plan_chunk(c->plan, c->next) == chunk;
}

static int choose_in_page(struct choice *c, struct cg_session *session, const struct cg_point *base,
                          uint64_t page, struct cg_error *err)
{
    uint64_t first = page * CG_PAGE_CHUNKS;
    uint64_t count = cg_min(CG_PAGE_CHUNKS, cg_chunk_count(c->plan->size) - first);
    struct cg_ref refs[CG_PAGE_CHUNKS] = { { .len = 0 } };
    bool damaged[CG_PAGE_CHUNKS];

    if (page < base->page_count && !cg_ref_is_zero(&base->pages[page])) {
        int r = cg_session_base_page(session, page, refs, damaged, err);
        if (r < 0) /* all of it is planned */
            return r == -ENOMEM ? r : 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        const struct cg_audit_chunk chunk = { first + i, refs[i] };
        int r = planned(c, first + i) ? 0 : consider(c, &chunk, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int cg_audit_choose(struct cg_audit *audit, struct cg_session *session, const struct cg_plan *plan,
                    double share, struct cg_error *err)
{
    struct choice c = { .audit = audit, .plan = plan, .share = share };
    const char *why;
    const struct cg_point *base = cg_session_base(session, &why);
    int r = 0;

    if (!(share > 0))
        return 0;
    do
        cg_random(&c.random, sizeof c.random);
    while (c.random == 0);
    for (uint64_t page = 0; r == 0 && page < cg_page_count(plan->size); page++)
        r = choose_in_page(&c, session, base, page, err);
    for (unsigned kind = 0; kind < 2; kind++) {
        struct reserve *s = &c.reserve[kind];
        for (size_t i = 0; r == 0 && i < s->count && s->chosen < LEAST; i++, s->chosen++)
            r = add(audit, &s->v[i], err);
    }
    return r;
}

int cg_audit_compare(const struct cg_audit_chunk *chunk, struct cg_project *project,
                     const void *buf, uint32_t len, struct cg_error *err)
{
    uint8_t id[CG_OBJECT_ID];

    if (cg_ref_is_zero(&chunk->ref))
        return cg_is_zero(buf, len);
    int r = cg_keys_object_id(cg_project_keys(project), CG_OBJECT_CHUNK, buf, len, id, err);
    return r < 0 ? r : memcmp(id, chunk->ref.id, sizeof id) == 0;
}

void cg_audit_clear(struct cg_audit *audit)
{
    free(audit->v);
    *audit = (struct cg_audit){ .count = 0 };
}
