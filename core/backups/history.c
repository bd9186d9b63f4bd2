#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/history.h"
#include "core/backups/history_points.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"

#define TABLES (CG_PAGE_CHUNKS / CG_HISTORY_L2_CHUNKS) /* L2 tables of a page */
#define WORDS (CG_PAGE_CHUNKS / 64)
#define NONE UINT32_MAX

/* A page as it is from one point on, until it changes. */
struct version {
    uint32_t page;
    uint32_t since, until;   /* points: [since, until) */
    uint32_t before, next;   /* versions of the same page, without a gap; NONE for none */
    uint64_t slot;           /* of its first data chunk; the others follow */
    uint64_t l2;             /* of its first changed table; the others follow */
    uint64_t changed[WORDS]; /* chunks that aren't what they were before */
    uint64_t data[WORDS];    /* of those, the ones that aren't zeros */
};

/* The versions of one page while they are made, in order of their points. */
struct column {
    struct version *v;
    uint32_t count;
};

struct cg_history {
    struct cg_project *project;
    unsigned count;
    struct cg_point **points; /* owned */
    struct version *versions; /* ordered by point, then page; so are slots and tables */
    uint32_t version_count;
    uint32_t **at; /* for each point the version of each page; NONE: all zeros, always */
    uint64_t slots, tables;
};

unsigned cg_history_count(const struct cg_history *h)
{
    return h->count;
}

const struct cg_point *cg_history_point(const struct cg_history *h, unsigned i)
{
    return h->points[i];
}

uint64_t cg_history_slots(const struct cg_history *h)
{
    return h->slots;
}

uint64_t cg_history_l2_tables(const struct cg_history *h)
{
    return h->tables;
}

static bool has(const uint64_t map[static WORDS], unsigned i)
{
    return map[i / 64] >> (i % 64) & 1;
}

static void set(uint64_t map[static WORDS], unsigned i)
{
    map[i / 64] |= UINT64_C(1) << (i % 64);
}

/* Bits set below i. */
static unsigned rank(const uint64_t map[static WORDS], unsigned i)
{
    unsigned n = 0;

    for (unsigned w = 0; w < i / 64; w++)
        n += (unsigned)__builtin_popcountll(map[w]);
    if (i % 64)
        n += (unsigned)__builtin_popcountll(map[i / 64] & ((UINT64_C(1) << (i % 64)) - 1));
    return n;
}

/* The n-th bit set, from 0. */
static unsigned nth(const uint64_t map[static WORDS], unsigned n)
{
    unsigned i = 0;

    while (!has(map, i) || n-- > 0)
        i++;
    return i;
}

static bool table_changed(const struct version *v, unsigned table)
{
    const uint64_t *w = &v->changed[table * (WORDS / TABLES)];

    return w[0] | w[1];
}

/* Changed tables below table. */
static unsigned table_rank(const struct version *v, unsigned table)
{
    unsigned n = 0;

    for (unsigned t = 0; t < table; t++)
        n += table_changed(v, t);
    return n;
}

static const struct version *version_at(const struct cg_history *h, unsigned point, uint64_t page)
{
    uint32_t i = h->at[point][page];

    return i == NONE ? NULL : &h->versions[i];
}

static const struct version *before(const struct cg_history *h, const struct version *v)
{
    return v->before == NONE ? NULL : &h->versions[v->before];
}

enum cg_history_kind cg_history_chunk(const struct cg_history *h, unsigned point, uint64_t chunk,
                                      uint64_t *ret_slot)
{
    unsigned i = chunk % CG_PAGE_CHUNKS;

    for (const struct version *v = version_at(h, point, chunk / CG_PAGE_CHUNKS); v;
         v = before(h, v)) {
        if (!has(v->changed, i))
            continue;
        if (!has(v->data, i))
            return CG_HISTORY_ZERO;
        *ret_slot = v->slot + rank(v->data, i);
        return CG_HISTORY_DATA;
    }
    return CG_HISTORY_NEVER;
}

bool cg_history_l2(const struct cg_history *h, unsigned point, uint64_t number, uint64_t *ret_l2)
{
    unsigned table = number % TABLES;

    for (const struct version *v = version_at(h, point, number / TABLES); v; v = before(h, v)) {
        if (table_changed(v, table)) {
            *ret_l2 = v->l2 + table_rank(v, table);
            return true;
        }
    }
    return false;
}

/* The last version whose slots or tables begin at or below number. */
static const struct version *find(const struct cg_history *h, uint64_t number, bool table)
{
    uint32_t low = 0, high = h->version_count;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        const struct version *v = &h->versions[middle];
        if ((table ? v->l2 : v->slot) <= number)
            low = middle;
        else
            high = middle;
    }
    return &h->versions[low];
}

/* How many points, from v's first on, have what v changed, and the active image if the last has;
 * table: an L2 table's number in the page, else i is a chunk's. */
static unsigned count_refs(const struct cg_history *h, const struct version *v, unsigned i,
                           bool table)
{
    const struct version *last = v;

    while (last->next != NONE) {
        const struct version *next = &h->versions[last->next];
        if (table ? table_changed(next, i) : has(next->changed, i))
            break;
        last = next;
    }
    return last->until - v->since + (last->until == h->count);
}

void cg_history_slot(const struct cg_history *h, uint64_t slot, struct cg_history_use *ret)
{
    const struct version *v = find(h, slot, false);
    unsigned i = nth(v->data, (unsigned)(slot - v->slot));

    *ret = (struct cg_history_use){
        .point = v->since,
        .chunk = (uint64_t)v->page * CG_PAGE_CHUNKS + i,
        .refs = count_refs(h, v, i, false),
    };
}

void cg_history_table(const struct cg_history *h, uint64_t l2, struct cg_history_use *ret)
{
    const struct version *v = find(h, l2, true);
    unsigned table = 0;

    while (!table_changed(v, table) || table_rank(v, table) != l2 - v->l2)
        table++;
    *ret = (struct cg_history_use){
        .point = v->since,
        .chunk = (uint64_t)v->page * CG_PAGE_CHUNKS + table * CG_HISTORY_L2_CHUNKS,
        .refs = count_refs(h, v, table, true),
    };
}

int cg_history_ref(const struct cg_history *h, uint64_t slot, struct cg_ref *ret,
                   struct cg_error *err)
{
    struct cg_history_use use;

    cg_history_slot(h, slot, &use);
    return cg_project_chunk(h->project, h->points[use.point], use.chunk, ret, err);
}

/* How it's made: each page's versions by itself, in parallel; then all are put in order. */

struct build {
    struct cg_history *h;
    uint64_t pages; /* of the largest point */
    struct column *columns;
};

static void compare(const struct cg_ref *was, const struct cg_ref *now, struct version *v)
{
    for (unsigned i = 0; i < CG_PAGE_CHUNKS; i++) {
        if (cg_ref_same(&was[i], &now[i]))
            continue;
        set(v->changed, i);
        if (!cg_ref_is_zero(&now[i]))
            set(v->data, i);
    }
}

static struct version *add_version(struct column *c, uint64_t page, unsigned point,
                                   struct cg_error *err)
{
    struct version *v = realloc(c->v, (c->count + 1) * sizeof *v);

    if (!v) {
        cg_error_set(err, ENOMEM, "read a history");
        return NULL;
    }
    c->v = v;
    v = &c->v[c->count++];
    *v = (struct version){ .page = (uint32_t)page, .since = point, .until = point };
    v->before = v->next = NONE;
    return v;
}

static const struct cg_ref *page_ref(const struct cg_history *h, unsigned point, uint64_t page)
{
    static const struct cg_ref none;
    const struct cg_point *p = h->points[point];

    return page < p->page_count ? &p->pages[page] : &none;
}

/* A page's versions; refs has room for two pages. */
static int build_page(struct build *b, uint64_t page, struct cg_ref *refs, struct cg_error *err)
{
    struct cg_history *h = b->h;
    struct column *c = &b->columns[page];
    struct cg_ref *was = refs, *now = refs + CG_PAGE_CHUNKS;

    memset(was, 0, CG_PAGE_CHUNKS * sizeof *was);
    for (unsigned i = 0; i < h->count; i++) {
        const struct cg_ref *ref = page_ref(h, i, page);
        struct version *v = c->count ? &c->v[c->count - 1] : NULL;
        if (v && cg_ref_same(ref, page_ref(h, i - 1, page))) {
            v->until = i + 1;
            continue;
        }
        if (!v && cg_ref_is_zero(ref))
            continue;
        int r = cg_project_page(h->project, h->points[i], page, now, err);
        if (r < 0)
            return r;
        v = add_version(c, page, i, err);
        if (!v)
            return -ENOMEM;
        v->until = i + 1;
        compare(was, now, v);
        struct cg_ref *swap = was;
        was = now;
        now = swap;
    }
    return 0;
}

static int build_one(void *opaque, uint64_t page, unsigned worker, struct cg_error *err)
{
    struct cg_ref *refs = calloc(2 * CG_PAGE_CHUNKS, sizeof *refs);

    (void)worker;
    if (!refs)
        return cg_error_set(err, ENOMEM, "read a history");
    int r = build_page(opaque, page, refs, err);
    free(refs);
    return r;
}

/* Takes the columns' versions over in order of points, and numbers slots and tables. */
static int number(struct build *b, struct cg_error *err)
{
    struct cg_history *h = b->h;
    uint64_t total = 0;

    for (uint64_t page = 0; page < b->pages; page++)
        total += b->columns[page].count;
    h->versions = calloc(total + 1, sizeof *h->versions);
    h->at = calloc(h->count, sizeof *h->at);
    if (!h->versions || !h->at || total >= NONE)
        return cg_error_set(err, ENOMEM, "read a history");
    uint32_t *taken = calloc(b->pages + 1, sizeof *taken); /* of each column */
    for (unsigned i = 0; taken && i < h->count; i++) {
        h->at[i] = malloc((b->pages + 1) * sizeof **h->at);
        if (!h->at[i])
            break;
        for (uint64_t page = 0; page < b->pages; page++) {
            struct column *c = &b->columns[page];
            uint32_t last = i > 0 ? h->at[i - 1][page] : NONE;
            h->at[i][page] = last;
            if (taken[page] == c->count || c->v[taken[page]].since != i)
                continue;
            struct version *v = &h->versions[h->version_count];
            *v = c->v[taken[page]++];
            v->before = last;
            if (last != NONE)
                h->versions[last].next = h->version_count;
            h->at[i][page] = h->version_count++;
            v->slot = h->slots;
            v->l2 = h->tables;
            h->slots += rank(v->data, CG_PAGE_CHUNKS);
            h->tables += table_rank(v, TABLES);
        }
    }
    free(taken);
    return h->version_count == total && h->at[h->count - 1]
               ? 0
               : cg_error_set(err, ENOMEM, "read a history");
}

static int build(struct cg_history *h, struct cg_error *err)
{
    struct build b = { .h = h };

    for (unsigned i = 0; i < h->count; i++)
        b.pages = cg_max(b.pages, h->points[i]->page_count);
    b.columns = calloc(b.pages + 1, sizeof *b.columns);
    if (!b.columns)
        return cg_error_set(err, ENOMEM, "read a history");
    int r = cg_parallel(b.pages, 0, build_one, &b, err);
    if (r == 0)
        r = number(&b, err);
    for (uint64_t page = 0; page < b.pages; page++)
        free(b.columns[page].v);
    free(b.columns);
    return r;
}

static int load_points(struct cg_history *h, const char *volume, const struct cg_history_points *p,
                       struct cg_error *err)
{
    if (p->count > UINT16_MAX - 1) /* a cluster's references have 16 bits */
        return cg_error_say(err, EFBIG, "%zu points are too many for one history", p->count);
    h->points = calloc(p->count, sizeof *h->points);
    if (!h->points)
        return cg_error_set(err, ENOMEM, "read a history");
    for (; h->count < p->count; h->count++) {
        int r =
            cg_project_point(h->project, volume, p->v[h->count].name, &h->points[h->count], err);
        if (r < 0)
            return r;
        if (h->points[h->count]->sequence != p->v[h->count].sequence)
            return cg_error_say(err, EIO, "point %s isn't what its head says", p->v[h->count].name);
    }
    return 0;
}

int cg_history_new(struct cg_project *project, const char *volume, const char *point,
                   struct cg_history **ret_history, struct cg_error *err)
{
    CG_CLEANUP(cg_history_points_clear) struct cg_history_points p;

    int r = cg_history_points(project, volume, point, &p, err);
    if (r < 0)
        return r;
    struct cg_history *h = calloc(1, sizeof *h);
    if (!h)
        return cg_error_set(err, ENOMEM, "read a history");
    h->project = project;
    r = load_points(h, volume, &p, err);
    if (r == 0)
        r = build(h, err);
    if (r < 0) {
        cg_history_free(h);
        return r;
    }
    *ret_history = h;
    return 0;
}

void cg_history_free(struct cg_history *h)
{
    if (!h)
        return;
    for (unsigned i = 0; i < h->count; i++) {
        cg_point_free(h->points[i]);
        if (h->at)
            free(h->at[i]);
    }
    free(h->points);
    free(h->at);
    free(h->versions);
    free(h);
}
