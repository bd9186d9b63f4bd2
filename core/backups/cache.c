#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/backups/cache.h"
#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"

/* Thread model: one lock guards the table, the list and every entry's fields except data, which
 * only the loading thread writes before state says READY and which nobody writes after.  The lock
 * isn't held while loading. */

#define SPARES 4

enum state {
    LOADING,
    READY,
    FAILED,
};

struct cg_cached {
    struct cg_ref ref;
    enum state state;
    unsigned users; /* the loader and those who wait count */
    int result;     /* of a failed load */
    char *message;  /* of a failed load; may be NULL */
    uint8_t *data;
    struct cg_cached *next;          /* in the slot */
    struct cg_cached *newer, *older; /* by use; only READY ones without users are linked */
};

struct cg_cache {
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    uint64_t bytes, max;
    uint64_t loads;
    size_t slots; /* a power of two */
    struct cg_cached **slot;
    struct cg_cached *newest, *oldest;
    uint8_t *spare[SPARES]; /* chunks' buffers: a new one costs the kernel 4 MiB of zeroing */
    unsigned spares;
};

struct cg_cache *cg_cache_new(uint64_t bytes)
{
    struct cg_cache *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    c->max = bytes;
    c->slots = 4096;
    c->slot = calloc(c->slots, sizeof(struct cg_cached *));
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    if (!c->slot) {
        cg_cache_free(c);
        return NULL;
    }
    return c;
}

static void free_entry(struct cg_cached *e)
{
    free(e->message);
    free(e->data);
    free(e);
}

void cg_cache_free(struct cg_cache *c)
{
    if (!c)
        return;
    while (c->oldest) {
        struct cg_cached *e = c->oldest;
        c->oldest = e->newer;
        free_entry(e);
    }
    pthread_cond_destroy(&c->loaded);
    pthread_mutex_destroy(&c->lock);
    while (c->spares > 0)
        free(c->spare[--c->spares]);
    free(c->slot);
    free(c);
}

static struct cg_cached **find_locked(struct cg_cache *c, const struct cg_ref *ref)
{
    struct cg_cached **p = &c->slot[cg_le64(ref->id) & (c->slots - 1)];

    while (*p && !cg_ref_equal(&(*p)->ref, ref))
        p = &(*p)->next;
    return p;
}

static void unlink_locked(struct cg_cache *c, struct cg_cached *e)
{
    *(e->newer ? &e->newer->older : &c->newest) = e->older;
    *(e->older ? &e->older->newer : &c->oldest) = e->newer;
    e->newer = e->older = NULL;
}

static void link_locked(struct cg_cache *c, struct cg_cached *e)
{
    e->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void evict_locked(struct cg_cache *c)
{
    while (c->bytes > c->max && c->oldest) {
        struct cg_cached *e = c->oldest;
        unlink_locked(c, e);
        *find_locked(c, &e->ref) = e->next;
        c->bytes -= e->ref.len;
        if (e->ref.len == CG_CHUNK_SIZE && c->spares < SPARES) {
            c->spare[c->spares++] = e->data;
            e->data = NULL;
        }
        free_entry(e);
    }
}

/* A new entry that the caller loads. */
static struct cg_cached *add_locked(struct cg_cache *c, const struct cg_ref *ref)
{
    struct cg_cached *e = calloc(1, sizeof *e);

    if (!e)
        return NULL;
    c->bytes += ref->len;
    evict_locked(c);
    if (ref->len == CG_CHUNK_SIZE && c->spares > 0)
        e->data = c->spare[--c->spares];
    else
        e->data = cg_bulk_buffer(ref->len);
    if (!e->data) {
        c->bytes -= ref->len;
        free(e);
        return NULL;
    }
    e->ref = *ref;
    e->state = LOADING;
    e->users = 1;
    *find_locked(c, ref) = e;
    c->loads++;
    return e;
}

static void release_locked(struct cg_cache *c, struct cg_cached *e)
{
    if (--e->users > 0)
        return;
    if (e->state == FAILED) {
        free_entry(e); /* left the table when it failed */
        return;
    }
    link_locked(c, e);
    evict_locked(c);
}

static void loaded_locked(struct cg_cache *c, struct cg_cached *e, int result,
                          const struct cg_error *why)
{
    if (result == 0) {
        e->state = READY;
    } else {
        e->state = FAILED;
        e->result = result;
        e->message = strdup(why->message);
        c->bytes -= e->ref.len;
        *find_locked(c, &e->ref) = e->next;
    }
    pthread_cond_broadcast(&c->loaded);
}

int cg_cache_get(struct cg_cache *c, const struct cg_ref *ref, cg_cache_load_fn *load, void *opaque,
                 struct cg_cached **ret_entry, struct cg_error *err)
{
    CG_LOCK(&c->lock);
    struct cg_cached *e = *find_locked(c, ref);

    if (!e) {
        struct cg_error why;
        e = add_locked(c, ref);
        if (!e)
            return cg_error_set(err, ENOMEM, "cache %u bytes", ref->len);
        pthread_mutex_unlock(&c->lock);
        int r = load(opaque, ref, e->data, &why);
        pthread_mutex_lock(&c->lock);
        loaded_locked(c, e, r, &why);
    } else {
        if (e->users++ == 0)
            unlink_locked(c, e);
        while (e->state == LOADING)
            pthread_cond_wait(&c->loaded, &c->lock);
    }
    if (e->state == FAILED) {
        int r = cg_error_say(err, -e->result, "%s", e->message ? e->message : "load an object");
        release_locked(c, e);
        return r;
    }
    *ret_entry = e;
    return 0;
}

const uint8_t *cg_cached_data(const struct cg_cached *entry)
{
    return entry->data;
}

void cg_cache_release(struct cg_cache *c, struct cg_cached *entry)
{
    CG_LOCK(&c->lock);
    release_locked(c, entry);
}

bool cg_cache_has(struct cg_cache *c, const struct cg_ref *ref)
{
    CG_LOCK(&c->lock);
    return *find_locked(c, ref) != NULL;
}

uint64_t cg_cache_loads(struct cg_cache *c)
{
    CG_LOCK(&c->lock);
    return c->loads;
}
