#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/backups/refs.h"
#include "core/base/bytes.h"

/* Open addressing over indices into an array.  Ids are outputs of an HMAC, so their first bytes
 * are the hash. */
struct cg_refs {
    bool by_era;
    size_t count, allocated;
    struct cg_ref *v;
    size_t slots; /* a power of two, at least twice count */
    size_t *slot; /* index into v plus one; 0: empty */
};

struct cg_refs *cg_refs_new(bool by_era)
{
    struct cg_refs *refs = calloc(1, sizeof *refs);

    if (refs)
        refs->by_era = by_era;
    return refs;
}

void cg_refs_free(struct cg_refs *refs)
{
    if (!refs)
        return;
    free(refs->v);
    free(refs->slot);
    free(refs);
}

static bool same(const struct cg_refs *refs, const struct cg_ref *a, const struct cg_ref *b)
{
    return memcmp(a->id, b->id, sizeof a->id) == 0 && (!refs->by_era || a->era == b->era);
}

/* The slot where ref is or would go.  There is always an empty one. */
static size_t probe(const struct cg_refs *refs, const struct cg_ref *ref)
{
    size_t i = (size_t)cg_le64(ref->id) & (refs->slots - 1);

    while (refs->slot[i] && !same(refs, &refs->v[refs->slot[i] - 1], ref))
        i = (i + 1) & (refs->slots - 1);
    return i;
}

static bool grow(struct cg_refs *refs)
{
    size_t n = refs->allocated ? 2 * refs->allocated : 512;
    struct cg_ref *v = realloc(refs->v, n * sizeof *v);

    if (!v)
        return false;
    refs->v = v;
    size_t *slot = calloc(2 * n, sizeof *slot);
    if (!slot)
        return false;
    free(refs->slot);
    refs->allocated = n;
    refs->slot = slot;
    refs->slots = 2 * n;
    for (size_t i = 0; i < refs->count; i++)
        slot[probe(refs, &v[i])] = i + 1;
    return true;
}

int cg_refs_add(struct cg_refs *refs, const struct cg_ref *ref, struct cg_error *err)
{
    if (refs->count == refs->allocated && !grow(refs))
        return cg_error_set(err, ENOMEM, "remember %zu objects", refs->count);
    size_t i = probe(refs, ref);
    if (refs->slot[i])
        return 0;
    refs->v[refs->count++] = *ref;
    refs->slot[i] = refs->count;
    return 1;
}

const struct cg_ref *cg_refs_find(const struct cg_refs *refs, const struct cg_ref *ref)
{
    if (refs->count == 0)
        return NULL;
    size_t i = probe(refs, ref);
    return refs->slot[i] ? &refs->v[refs->slot[i] - 1] : NULL;
}

size_t cg_refs_count(const struct cg_refs *refs)
{
    return refs->count;
}

const struct cg_ref *cg_refs_at(const struct cg_refs *refs, size_t i)
{
    return &refs->v[i];
}
