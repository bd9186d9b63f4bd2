#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/change.h"
#include "core/volumes/filling.h"
#include "core/volumes/gather.h"

/* The head as json has it, with the layer `lowest`, opened anew, if it isn't NULL. */
static struct cg_chain *rebuild(struct cg_chain *head, const struct cg_volume_json *json,
                                struct cg_layer *lowest)
{
    struct cg_parent *parent = *json->parent ? cg_chain_parent(head) : NULL;
    size_t count = cg_chain_count(head), n = 0;
    struct cg_layer **layers = calloc(count + 1, sizeof *layers);

    if (!layers)
        return NULL;
    if (lowest)
        layers[n++] = lowest;
    for (size_t i = 0; i < count; i++) {
        const char *uuid = cg_layer_uuid(cg_chain_layer(head, i));
        bool again = lowest && strcmp(uuid, cg_layer_uuid(lowest)) == 0;
        if (!again && cg_layers_has(&json->head, uuid))
            layers[n++] = cg_chain_layer(head, i);
    }
    struct cg_chain *chain = cg_chain_new(cg_chain_size(head), layers, n, parent);
    free(layers);
    return chain;
}

/* The head as json has it, with the layer uuid, if it's in it, as it is on disk now.  NULL in
 * *ret_chain if nobody reads v. */
static int chain_of(struct cg_volume *v, const struct cg_volume_json *json, const char *uuid,
                    struct cg_chain **ret_chain, struct cg_error *err)
{
    struct cg_layer *layer = NULL;
    int r = 0;

    *ret_chain = NULL;
    if (v->brief)
        return 0;
    if (cg_layers_has(&json->head, uuid))
        r = cg_layer_open(v->dirfd, uuid, &layer, err);
    if (r == 0 && layer)
        r = cg_layer_lock(layer, LOCK_SH, err);
    if (r == 0) {
        *ret_chain = rebuild(v->head, json, layer);
        r = *ret_chain ? 0 : cg_error_set(err, ENOMEM, "flatten %s", v->label);
    }
    cg_layer_unref(layer);
    return r;
}

/* A layer to be filled. */
struct filling {
    char uuid[CG_UUID_LEN + 1];
    size_t gathers; /* so many lowest layers; 0: the parent's content is all it's for */
    uint64_t size;
};

/* Says in json that it's below everything. */
static int edit_begin(struct cg_volume_json *json, const struct filling *f, struct cg_error *err)
{
    int r = f->gathers ? cg_gather_begin(json, f->gathers, f->size, f->uuid, err) : 0;

    if (r == 0)
        r = cg_layers_insert(&json->head, f->uuid, err);
    for (size_t i = 0; r == 0 && i < json->snapshots; i++)
        r = cg_layers_insert(&json->snapshot[i].layers, f->uuid, err);
    strcpy(json->filling, f->uuid);
    return r;
}

static int edit_drop(struct cg_volume_json *json, const struct filling *f, struct cg_error *err)
{
    if (cg_volume_json_gathers(json))
        cg_gather_drop(json);
    cg_layers_remove(&json->head, f->uuid);
    for (size_t i = 0; i < json->snapshots; i++) {
        cg_layers_remove(&json->snapshot[i].layers, f->uuid);
        if (json->snapshot[i].layers.count == 0)
            return cg_error_say(err, EBUSY, "snapshot %s has no other layer",
                                json->snapshot[i].name);
    }
    json->filling[0] = '\0';
    return 0;
}

/* The layer is whole: it takes the place of what it gathers, and the parent's, which is to be
 * released. */
static int edit_end(struct cg_volume_json *json, const struct filling *f, struct cg_error *err)
{
    bool gathers = cg_volume_json_gathers(json);

    (void)f;
    (void)err;
    if (gathers)
        cg_gather_end(json);
    if (gathers || json->inherited.count == 0)
        json->depth = 0;
    if (*json->parent) {
        strcpy(json->release, json->parent);
        strcpy(json->release_identity, json->parent_identity);
        strcpy(json->release_uuid, json->uuid);
    }
    json->parent[0] = json->parent_identity[0] = json->filling[0] = '\0';
    json->parent_size = 0;
    return 0;
}

typedef int edit_fn(struct cg_volume_json *json, const struct filling *f, struct cg_error *err);

static int commit_locked(struct cg_volume *v, edit_fn *edit, const struct filling *f,
                         struct cg_error *err)
{
    struct cg_volume_json json;
    struct cg_chain *chain;
    int r = cg_volume_json_copy(&v->json, &json, err);

    if (r < 0)
        return r;
    r = edit(&json, f, err);
    if (r == 0)
        r = chain_of(v, &json, f->uuid, &chain, err);
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    return cg_change_commit_locked(v, &json, chain, err);
}

static struct filling filling_of(const char *uuid)
{
    struct filling f = { .gathers = 0 };

    strcpy(f.uuid, uuid);
    return f;
}

bool cg_filling_needed(struct cg_volume *v)
{
    uint64_t size;

    return *v->json.parent || *v->json.filling || cg_gather_count(v, &size) > 0;
}

/* One for the parent's content that was begun is of no use if more is to go: it's gathered like the
 * others. */
int cg_filling_begin(struct cg_volume *v, struct cg_error *err)
{
    struct filling f = { .size = cg_round_up(v->json.parent_size, CG_SECTOR) };

    if (cg_volume_json_gathers(&v->json))
        return 0;
    f.gathers = cg_gather_count(v, &f.size);
    if (!f.gathers && *v->json.filling)
        return 0;
    cg_uuid(f.uuid);
    int r = cg_layer_create(v->dirfd, f.uuid, f.size, err);
    if (r < 0)
        return r;
    r = cg_dir_sync(v->dirfd, ".", err);
    if (r == 0)
        r = commit_locked(v, edit_begin, &f, err);
    if (r < 0 && atomic_load(&v->failed) == 0)
        cg_layer_remove(v->dirfd, f.uuid, v->run);
    return r;
}

int cg_filling_end(struct cg_volume *v, const char *uuid, struct cg_error *err)
{
    struct filling f = filling_of(uuid);
    CG_LOCK(&v->change);
    int r = cg_volume_check(v, err);

    if (r < 0 || strcmp(v->json.filling, uuid) != 0)
        return r;
    r = commit_locked(v, edit_end, &f, err);
    if (r == 0 && strcmp(v->json.instead, uuid) == 0)
        cg_gather_unlink(v);
    return r;
}

void cg_filling_drop(struct cg_volume *v, const char *uuid)
{
    struct filling f = filling_of(uuid);
    CG_LOCK(&v->change);

    if (cg_volume_check(v, NULL) == 0 && strcmp(v->json.filling, uuid) == 0 &&
        commit_locked(v, edit_drop, &f, NULL) == 0)
        cg_layer_remove(v->dirfd, uuid, v->run);
}

int cg_filling_show(struct cg_volume *v, const char *uuid, struct cg_error *err)
{
    struct cg_chain *chain;
    CG_LOCK(&v->change);
    if (!*v->json.parent) /* the layers above it are as near */
        return 0;
    int r = chain_of(v, &v->json, uuid, &chain, err);

    if (r == 0)
        cg_change_show_locked(v, chain);
    return r;
}
