/* Threads: everything is under one mutex, held for a few instructions. */
#include "config.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "fuse/nodes.h"

#define BUCKETS_AT_FIRST 64

struct entry {
    struct cg_node node; /* first: a node's address is its entry's */
    uint64_t number;     /* of its path */
    uint64_t lookups;
    bool named; /* in a bucket: what its name means now */
    struct entry *next_in_bucket;
    struct entry *prev, *next; /* all entries */
};

struct cg_nodes {
    pthread_mutex_t lock; /* guards all below, and the entries but for node */
    struct entry **bucket;
    uint64_t buckets; /* a power of two */
    uint64_t count;
    uint64_t generations;
    struct entry *all;
};

uint64_t cg_nodes_number(const char *path)
{
    /* FNV-1a (Fowler, Noll, Vo), 64 bits. */
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (; *path; path++)
        hash = (hash ^ (uint8_t)*path) * UINT64_C(0x100000001b3);
    return hash < 2 ? hash + 2 : hash; /* 0 is no number and 1 the root's */
}

struct cg_nodes *cg_nodes_new(void)
{
    struct cg_nodes *nodes = calloc(1, sizeof *nodes);

    if (!nodes)
        return NULL;
    nodes->bucket = calloc(BUCKETS_AT_FIRST, sizeof(struct entry *));
    if (!nodes->bucket) {
        free(nodes);
        return NULL;
    }
    nodes->buckets = BUCKETS_AT_FIRST;
    pthread_mutex_init(&nodes->lock, NULL);
    return nodes;
}

void cg_nodes_free(struct cg_nodes *nodes)
{
    if (!nodes)
        return;
    for (struct entry *e = nodes->all, *next; e; e = next) {
        next = e->next;
        free(e);
    }
    pthread_mutex_destroy(&nodes->lock);
    free(nodes->bucket);
    free(nodes);
}

static struct entry **bucket_of(struct cg_nodes *nodes, uint64_t number)
{
    return &nodes->bucket[number & (nodes->buckets - 1)];
}

static bool same_name(const struct cg_name *a, const struct cg_name *b)
{
    char text_a[CG_NAME_MAX], text_b[CG_NAME_MAX];

    return strcmp(cg_name_text(a, false, text_a), cg_name_text(b, false, text_b)) == 0;
}

static bool same_meaning(const struct entry *e, enum cg_node_kind kind,
                         const struct cg_identity *identity)
{
    return e->node.kind == kind && strcmp(e->node.identity.image, identity->image) == 0 &&
           strcmp(e->node.identity.snapshot, identity->snapshot) == 0;
}

static struct entry *find_locked(struct cg_nodes *nodes, uint64_t number,
                                 const struct cg_name *name)
{
    for (struct entry *e = *bucket_of(nodes, number); e; e = e->next_in_bucket) {
        if (e->number == number && same_name(&e->node.name, name))
            return e;
    }
    return NULL;
}

static void unname_locked(struct cg_nodes *nodes, struct entry *entry)
{
    struct entry **p = bucket_of(nodes, entry->number);

    while (*p != entry)
        p = &(*p)->next_in_bucket;
    *p = entry->next_in_bucket;
    entry->named = false;
}

/* Without memory the chains just get longer. */
static void grow_locked(struct cg_nodes *nodes)
{
    struct entry **bucket = calloc(2 * nodes->buckets, sizeof(struct entry *));

    if (!bucket)
        return;
    free(nodes->bucket);
    nodes->bucket = bucket;
    nodes->buckets *= 2;
    for (struct entry *e = nodes->all; e; e = e->next) {
        if (!e->named)
            continue;
        struct entry **p = bucket_of(nodes, e->number);
        e->next_in_bucket = *p;
        *p = e;
    }
}

static struct entry *add_locked(struct cg_nodes *nodes, uint64_t number, const struct cg_name *name,
                                enum cg_node_kind kind, const struct cg_identity *identity)
{
    struct entry *e = calloc(1, sizeof *e);

    if (!e)
        return NULL;
    if (nodes->count >= nodes->buckets)
        grow_locked(nodes);
    e->node = (struct cg_node){
        .name = *name, .kind = kind, .identity = *identity, .generation = ++nodes->generations
    };
    e->number = number;
    e->named = true;
    struct entry **p = bucket_of(nodes, number);
    e->next_in_bucket = *p;
    *p = e;
    e->next = nodes->all;
    if (e->next)
        e->next->prev = e;
    nodes->all = e;
    nodes->count++;
    return e;
}

struct cg_node *cg_nodes_look_up(struct cg_nodes *nodes, const struct cg_name *name,
                                 enum cg_node_kind kind, const struct cg_identity *identity)
{
    char path[CG_NAME_MAX];
    uint64_t number = cg_nodes_number(cg_name_text(name, false, path));

    CG_LOCK(&nodes->lock);
    struct entry *e = find_locked(nodes, number, name);
    if (e && !same_meaning(e, kind, identity)) {
        unname_locked(nodes, e);
        e = NULL;
    }
    if (!e)
        e = add_locked(nodes, number, name, kind, identity);
    if (!e)
        return NULL;
    e->lookups++;
    return &e->node;
}

void cg_nodes_forget(struct cg_nodes *nodes, struct cg_node *node, uint64_t count)
{
    struct entry *e = (struct entry *)node;

    CG_LOCK(&nodes->lock);
    assert(count <= e->lookups);
    e->lookups -= count;
    if (e->lookups > 0)
        return;
    if (e->named)
        unname_locked(nodes, e);
    if (e->prev)
        e->prev->next = e->next;
    else
        nodes->all = e->next;
    if (e->next)
        e->next->prev = e->prev;
    nodes->count--;
    free(e);
}

uint64_t cg_nodes_count(struct cg_nodes *nodes)
{
    CG_LOCK(&nodes->lock);
    return nodes->count;
}
