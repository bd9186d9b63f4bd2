#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/volumes/chain.h"
#include "core/volumes/index.h"

struct cg_chain {
    atomic_uint refs;
    uint64_t size;
    struct cg_parent *parent; /* owned reference, or NULL */
    uint64_t parent_size;     /* 0 without a parent */
    size_t count;
    struct cg_index *index; /* of the `indexed` lowest layers, all sealed; NULL and 0: none */
    size_t indexed;
    atomic_uint *retired;     /* counts it, or NULL; set before the owner lets go of it */
    struct cg_layer *layer[]; /* owned references */
};

/* One sealed layer is looked at as fast as an index. */
#define INDEX_MIN 2u
/* As many may be sealed above what an index has before there is a new one: each snapshot would
 * throw away what it knows. */
#define INDEX_LAG 4u

/* Where blocks come from. */
struct source {
    enum { FROM_NOTHING, FROM_LAYER, FROM_PARENT } kind; /* nothing reads as zeros */
    struct cg_layer *layer;
};

struct place {
    size_t number; /* of the layer */
    enum cg_state state;
    uint64_t count; /* blocks */
};

static struct cg_chain *new_chain(uint64_t size, size_t count)
{
    struct cg_chain *chain = calloc(1, sizeof *chain + count * sizeof *chain->layer);

    if (!chain)
        return NULL;
    atomic_init(&chain->refs, 1);
    chain->size = size;
    chain->count = count;
    return chain;
}

/* The top layer isn't in it: that may be written. */
static void set_index(struct cg_chain *chain)
{
    if (chain->count - 1 < INDEX_MIN)
        return;
    chain->index = cg_index_new(chain->layer, chain->count - 1);
    chain->indexed = chain->index ? chain->count - 1 : 0;
}

struct cg_chain *cg_chain_new(uint64_t size, struct cg_layer **layers, size_t count,
                              struct cg_parent *parent)
{
    struct cg_chain *chain = new_chain(size, count);

    if (!chain)
        return NULL;
    for (size_t i = 0; i < count; i++)
        chain->layer[i] = cg_layer_ref(layers[i]);
    if (parent) {
        chain->parent = cg_parent_ref(parent);
        chain->parent_size = cg_image_size(cg_parent_image(parent));
    }
    set_index(chain);
    return chain;
}

struct cg_chain *cg_chain_push(struct cg_chain *old, struct cg_layer *sealed,
                               struct cg_layer *layer)
{
    struct cg_chain *chain = new_chain(cg_layer_size(layer), old->count + 1);

    if (!chain)
        return NULL;
    for (size_t i = 0; i < old->count; i++)
        chain->layer[i] = cg_layer_ref(sealed && i + 1 == old->count ? sealed : old->layer[i]);
    chain->layer[old->count] = cg_layer_ref(layer);
    chain->parent = old->parent ? cg_parent_ref(old->parent) : NULL;
    chain->parent_size = old->parent_size;
    if (old->index && old->count - old->indexed <= INDEX_LAG) {
        chain->index = cg_index_ref(old->index);
        chain->indexed = old->indexed;
    } else {
        set_index(chain);
    }
    return chain;
}

struct cg_chain *cg_chain_ref(struct cg_chain *chain)
{
    atomic_fetch_add(&chain->refs, 1);
    return chain;
}

void cg_chain_unref(struct cg_chain *chain)
{
    if (!chain || atomic_fetch_sub(&chain->refs, 1) != 1)
        return;
    for (size_t i = 0; i < chain->count; i++)
        cg_layer_unref(chain->layer[i]);
    cg_parent_unref(chain->parent);
    cg_index_unref(chain->index);
    if (chain->retired)
        atomic_fetch_sub(chain->retired, 1);
    free(chain);
}

void cg_chain_retire(struct cg_chain *chain, atomic_uint *count)
{
    atomic_fetch_add(count, 1);
    chain->retired = count;
    cg_chain_unref(chain);
}

void cg_chain_cleanup(struct cg_chain **chain)
{
    cg_chain_unref(*chain);
}

uint64_t cg_chain_size(struct cg_chain *chain)
{
    return chain->size;
}

size_t cg_chain_count(struct cg_chain *chain)
{
    return chain->count;
}

struct cg_layer *cg_chain_layer(struct cg_chain *chain, size_t i)
{
    return chain->layer[i];
}

struct cg_layer *cg_chain_find(struct cg_chain *chain, const char *uuid)
{
    for (size_t i = 0; i < chain->count; i++)
        if (strcmp(cg_layer_uuid(chain->layer[i]), uuid) == 0)
            return chain->layer[i];
    return NULL;
}

struct cg_layer *cg_chain_top(struct cg_chain *chain)
{
    return chain->layer[chain->count - 1];
}

struct cg_parent *cg_chain_parent(struct cg_chain *chain)
{
    return chain->parent;
}

/* Finds the topmost of the layers from number low up to number high (without) that has something at
 * block, and for how many blocks that holds; false in *ret_found if none has. */
static int topmost(struct cg_chain *chain, size_t low, size_t high, uint64_t block, uint64_t max,
                   bool *ret_found, struct place *ret, struct cg_error *err)
{
    size_t indexed = low < chain->indexed ? chain->indexed : low, number;
    int r;

    assert(high >= chain->indexed);
    *ret = (struct place){ .count = max };
    for (size_t i = high; i-- > indexed && ret->state == CG_STATE_ABSENT;) {
        ret->number = i;
        r = cg_layer_run(chain->layer[i], block, ret->count, &ret->state, &ret->count, err);
        if (r < 0)
            return r;
    }
    if (ret->state == CG_STATE_ABSENT && low < chain->indexed) {
        r = cg_index_run(chain->index, block, ret->count, &number, &ret->state, &ret->count, err);
        if (r == 0 && ret->state == CG_STATE_DAMAGED) /* says so */
            r = cg_layer_run(chain->layer[number], block, ret->count, &ret->state, &ret->count,
                             err);
        if (r < 0)
            return r;
        ret->number = number;
    }
    *ret_found = ret->state != CG_STATE_ABSENT && ret->number >= low;
    return 0;
}

/* Where block and the ones after it, at most max, come from, looking at the lowest depth layers
 * only. */
static int find(struct cg_chain *chain, size_t depth, uint64_t block, uint64_t max,
                struct source *ret, uint64_t *ret_count, struct cg_error *err)
{
    struct place at;
    bool found;
    int r = topmost(chain, 0, depth, block, max, &found, &at, err);

    if (r < 0)
        return r;
    *ret_count = at.count;
    if (found) {
        ret->kind = at.state == CG_STATE_DATA ? FROM_LAYER : FROM_NOTHING;
        ret->layer = chain->layer[at.number];
        return 0;
    }
    uint64_t in_parent = (chain->parent_size + CG_BLOCK - 1) / CG_BLOCK;
    ret->kind = block < in_parent ? FROM_PARENT : FROM_NOTHING;
    if (block < in_parent)
        *ret_count = cg_min(at.count, in_parent - block);
    return 0;
}

/* The parent may end within its last block. */
static int read_parent(struct cg_chain *chain, uint8_t *buf, size_t len, uint64_t off,
                       struct cg_error *err)
{
    size_t n = off < chain->parent_size ? (size_t)cg_min(len, chain->parent_size - off) : 0;

    memset(buf + n, 0, len - n);
    return n ? cg_parent_read(chain->parent, buf, n, off, err) : 0;
}

static int read_from(struct cg_chain *chain, size_t depth, uint8_t *buf, size_t len, uint64_t off,
                     struct cg_error *err)
{
    while (len > 0) {
        uint64_t block = off / CG_BLOCK, count;
        uint64_t end = (off + len - 1) / CG_BLOCK + 1;
        struct source from;
        int r = find(chain, depth, block, end - block, &from, &count, err);
        if (r < 0)
            return r;
        size_t n = (size_t)cg_min(len, (block + count) * CG_BLOCK - off);
        if (from.kind == FROM_LAYER)
            r = cg_layer_read(from.layer, buf, n, off, err);
        else if (from.kind == FROM_PARENT)
            r = read_parent(chain, buf, n, off, err);
        else
            memset(buf, 0, n);
        if (r < 0)
            return r;
        buf += n;
        off += n;
        len -= n;
    }
    return 0;
}

int cg_chain_read(struct cg_chain *chain, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    return read_from(chain, chain->count, buf, len, off, err);
}

int cg_chain_overwrite(struct cg_chain *chain, const void *buf, size_t len, uint64_t off,
                       unsigned flags, struct cg_error *err)
{
    uint64_t first = off / CG_BLOCK, want = (off + len - 1) / CG_BLOCK + 1 - first, count;
    struct cg_layer *top = cg_chain_top(chain);
    enum cg_state state;
    int r = cg_layer_run(top, first, want, &state, &count, err);

    if (r < 0)
        return r;
    if (state != CG_STATE_DATA || count < want)
        return 0;
    r = cg_layer_overwrite(top, buf, len, off, flags, err);
    return r < 0 ? r : 1;
}

/* A partly written block as the layers below the top have it, if the top has nothing. */
static int read_edge(struct cg_chain *chain, uint64_t block, uint8_t *buf, const uint8_t **ret,
                     struct cg_error *err)
{
    enum cg_state state;
    uint64_t n;
    int r = cg_layer_run(cg_chain_top(chain), block, 1, &state, &n, err);

    if (r < 0 || state != CG_STATE_ABSENT)
        return r;
    *ret = buf;
    return read_from(chain, chain->count - 1, buf, CG_BLOCK, block * CG_BLOCK, err);
}

int cg_chain_edges(struct cg_chain *chain, size_t len, uint64_t off, struct cg_chain_edges *ret,
                   struct cg_error *err)
{
    uint64_t end = off + len, first = off / CG_BLOCK, last = (end - 1) / CG_BLOCK;
    int r = 0;

    ret->head = ret->tail = NULL;
    if (off % CG_BLOCK)
        r = read_edge(chain, first, ret->block[0], &ret->head, err);
    if (r < 0 || end % CG_BLOCK == 0)
        return r;
    if (off % CG_BLOCK && first == last) {
        ret->tail = ret->head;
        return 0;
    }
    if (end == chain->size) { /* behind the end there is nothing to keep */
        memset(ret->block[1], 0, CG_BLOCK);
        ret->tail = ret->block[1];
        return 0;
    }
    return read_edge(chain, last, ret->block[1], &ret->tail, err);
}

int cg_chain_write(struct cg_chain *chain, const void *buf, size_t len, uint64_t off,
                   unsigned flags, const struct cg_chain_edges *edges, struct cg_error *err)
{
    return cg_layer_write(cg_chain_top(chain), buf, len, off, flags, edges->head, edges->tail, err);
}

int cg_chain_zero(struct cg_chain *chain, uint64_t block, uint64_t count, struct cg_error *err)
{
    struct cg_layer *top = cg_chain_top(chain);
    uint64_t n;

    for (; count > 0; block += n, count -= n) {
        struct source from;
        int r = find(chain, chain->count, block, count, &from, &n, err);
        if (r < 0)
            return r;
        if (from.kind == FROM_NOTHING)
            continue;
        r = cg_layer_zero(top, block, n, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parent_extents(struct cg_chain *chain, uint64_t end, struct cg_extents *e,
                          struct cg_error *err)
{
    struct cg_extents below;

    if (e->next >= chain->parent_size)
        return cg_extents_to(e, end, CG_HOLE, err);
    cg_extents_init(&below, e->next, cg_min(end, chain->parent_size), e->max);
    int r = cg_image_extents(cg_parent_image(chain->parent), &below, err);
    for (size_t i = 0; r == 0 && i < below.count; i++)
        r = cg_extents_to(e, below.v[i].off + below.v[i].len, below.v[i].type, err);
    if (r == 0 && below.next == chain->parent_size) /* to the end of its last block */
        r = cg_extents_to(e, end, e->count ? e->v[e->count - 1].type : CG_DATA, err);
    cg_extents_clear(&below);
    return r;
}

int cg_chain_extents(struct cg_chain *chain, struct cg_extents *e, struct cg_error *err)
{
    while (!cg_extents_full(e)) {
        uint64_t block = e->next / CG_BLOCK, last = (e->end - 1) / CG_BLOCK, count, at = e->next;
        struct source from;
        int r = find(chain, chain->count, block, last - block + 1, &from, &count, err);
        if (r < 0)
            return r;
        uint64_t end = cg_min((block + count) * CG_BLOCK, e->end);
        if (from.kind == FROM_PARENT)
            r = parent_extents(chain, end, e, err);
        else
            r = cg_extents_to(e, end, from.kind == FROM_LAYER ? CG_DATA : CG_HOLE, err);
        if (r < 0)
            return r;
        if (e->next == at && !cg_extents_full(e))
            return cg_error_say(err, EIO, "the parent described no extent at %llu",
                                (unsigned long long)at);
    }
    return 0;
}

static int report(struct cg_chain *chain, uint64_t off, uint64_t end, cg_extent_fn *fn,
                  void *opaque, struct cg_error *err)
{
    int r = 0;

    while (r == 0 && off < end) {
        struct cg_extents e;
        cg_extents_init(&e, off, end, 1024);
        r = cg_chain_extents(chain, &e, err);
        for (size_t i = 0; r == 0 && i < e.count; i++)
            r = fn(opaque, &e.v[i], err);
        off = e.next;
        cg_extents_clear(&e);
    }
    return r;
}

int cg_chain_diff(struct cg_chain *chain, size_t first, uint64_t grown, cg_extent_fn *fn,
                  void *opaque, struct cg_error *err)
{
    uint64_t blocks = (cg_min(grown, chain->size) + CG_BLOCK - 1) / CG_BLOCK, off = 0;
    struct place at = { .count = 0 };
    int r = 0;

    for (uint64_t block = 0; r == 0 && block < blocks; block += at.count) {
        bool differs;
        r = topmost(chain, first, chain->count, block, blocks - block, &differs, &at, err);
        uint64_t end = cg_min((block + at.count) * CG_BLOCK, chain->size);
        if (r == 0 && differs)
            r = report(chain, block * CG_BLOCK, end, fn, opaque, err);
        off = end;
    }
    return r != 0 ? r : report(chain, off, chain->size, fn, opaque, err);
}

void cg_chain_prefetch(struct cg_chain *chain, uint64_t len, uint64_t off)
{
    uint64_t end = off + len, count;

    if (!chain->parent)
        return;
    for (; off < end; off = (off / CG_BLOCK + count) * CG_BLOCK) {
        struct source from;
        if (find(chain, chain->count, off / CG_BLOCK, (end - 1) / CG_BLOCK + 1 - off / CG_BLOCK,
                 &from, &count, NULL) < 0)
            return;
        if (from.kind == FROM_PARENT)
            cg_image_prefetch(cg_parent_image(chain->parent), cg_min(count * CG_BLOCK, end - off),
                              off);
    }
}
