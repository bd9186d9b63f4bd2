#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "core/volumes/change.h"
#include "core/volumes/flatten.h"
#include "core/volumes/tidy.h"

/* The chain without what is dropped. */
struct kept {
    struct cg_layers layers;
    struct cg_layer **open; /* as many; references of the head's chain */
};

static bool is_needless(struct cg_volume *v, struct cg_layer *layer)
{
    bool empty;

    return !cg_volume_json_in_snapshot(&v->json, cg_layer_uuid(layer)) && !cg_layer_shared(layer) &&
           cg_layer_is_empty(layer, &empty, NULL) == 0 && empty && cg_layer_claim(layer);
}

static int choose(struct cg_volume *v, struct kept *k)
{
    size_t count = cg_chain_count(v->head);
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++) {
        struct cg_layer *layer = cg_chain_layer(v->head, i);
        bool filled = strcmp(cg_layer_uuid(layer), v->json.filling) == 0;
        bool stays = filled || cg_volume_json_gathered(&v->json, cg_layer_uuid(layer));
        if (i + 1 < count && !stays && is_needless(v, layer))
            continue;
        k->open[k->layers.count] = layer;
        r = cg_layers_add(&k->layers, cg_layer_uuid(layer), NULL);
    }
    return r;
}

/* Makes volume.json and the head what is kept. */
static int commit(struct cg_volume *v, struct kept *k)
{
    struct cg_volume_json json;
    struct cg_chain *chain =
        cg_chain_new(k->layers.size, k->open, k->layers.count, cg_chain_parent(v->head));

    if (!chain)
        return -ENOMEM;
    int r = cg_volume_json_copy(&v->json, &json, NULL);
    if (r < 0) {
        cg_chain_unref(chain);
        return r;
    }
    cg_layers_clear(&json.head);
    json.head = k->layers;
    k->layers = (struct cg_layers){ .size = 0 };
    return cg_change_commit_locked(v, &json, chain, NULL);
}

static void drop_empty(struct cg_volume *v)
{
    struct cg_chain *old = cg_chain_ref(v->head);
    size_t count = cg_chain_count(old);
    struct kept k = { .layers.size = cg_chain_size(old), .open = calloc(count, sizeof *k.open) };
    int r = k.open ? choose(v, &k) : -ENOMEM;

    if (r == 0 && k.layers.count < count)
        r = commit(v, &k);
    for (size_t i = 0; i + 1 < count; i++) {
        struct cg_layer *layer = cg_chain_layer(old, i);
        struct cg_error ignored;
        if (!cg_volume_json_names(&v->json, cg_layer_uuid(layer)))
            cg_layer_remove(v->dirfd, cg_layer_uuid(layer), v->run);
        else if (r < 0)
            cg_layer_lock(layer, LOCK_SH, &ignored);
    }
    cg_layers_clear(&k.layers);
    free(k.open);
    cg_chain_unref(old);
}

void cg_tidy_locked(struct cg_volume *v)
{
    cg_flatten_finish_locked(v, NULL);
    if (!v->brief && atomic_load(&v->failed) == 0 && cg_chain_count(v->head) > 1)
        drop_empty(v);
}
