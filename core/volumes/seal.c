#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/change.h"
#include "core/volumes/seal.h"

int cg_seal_make_top(struct cg_volume *v, uint64_t size, struct cg_layer **ret_layer,
                     struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];
    struct cg_layer *layer = NULL;

    cg_uuid(uuid);
    int r = cg_layer_create(v->dirfd, uuid, size, err);
    if (r < 0)
        return r;
    r = cg_dir_sync(v->dirfd, ".", err);
    if (r == 0)
        r = cg_layer_open(v->dirfd, uuid, &layer, err);
    if (r == 0)
        r = cg_layer_lock(layer, v->brief ? LOCK_SH : LOCK_EX, err);
    if (r == 0 && !v->brief)
        r = cg_layer_begin(layer, v->run, err);
    if (r < 0) {
        cg_layer_unref(layer);
        cg_layer_remove(v->dirfd, uuid, v->run);
        return r;
    }
    *ret_layer = layer;
    return 0;
}

int cg_seal_prepare(struct cg_seal *s, struct cg_volume *v, uint64_t size, struct cg_error *err)
{
    struct cg_error ignored;

    *s = (struct cg_seal){ .v = v };
    int r = cg_seal_make_top(v, size, &s->top, err);

    if (r < 0)
        return r;
    s->old = cg_layer_ref(cg_chain_top(v->head));
    /* Looked at when it's on disk.  If that can't be, the old one goes on to be read. */
    if (!v->brief && cg_layer_open(v->dirfd, cg_layer_uuid(s->old), &s->sealed, &ignored) < 0)
        s->sealed = NULL;
    r = v->writing ? cg_layer_flush(s->old, err) : 0;
    if (r < 0)
        cg_seal_end(s);
    return r;
}

int cg_seal_hold(struct cg_seal *s, struct cg_error *err)
{
    pthread_rwlock_wrlock(&s->v->gate);
    s->held = true;
    return cg_layer_flush(s->old, err);
}

int cg_seal_take(struct cg_seal *s, cg_seal_edit *edit, const struct cg_change *change,
                 struct cg_layers *ret_sealed, struct cg_error *err)
{
    struct cg_volume *v = s->v;
    struct cg_layers sealed = { .size = 0 };
    struct cg_volume_json json;
    int r = cg_volume_json_copy(&v->json, &json, err);

    if (r < 0)
        return r;
    if ((r = cg_layers_copy(&json.head, &sealed, err)) < 0 ||
        (r = cg_layers_add(&json.head, cg_layer_uuid(s->top), err)) < 0)
        goto fail;
    json.head.size = cg_layer_size(s->top);
    r = edit ? edit(&json, &sealed, change, err) : 0;
    if (r < 0)
        goto fail;
    struct cg_chain *chain = cg_chain_push(v->head, s->sealed, s->top);
    if (!chain) {
        r = cg_error_set(err, ENOMEM, "extend a chain");
        goto fail;
    }
    r = cg_change_commit_gated(v, &json, chain, err);
    s->taken = r == 0;
    if (r == 0 && ret_sealed) {
        *ret_sealed = sealed;
        return 0;
    }
    cg_layers_clear(&sealed);
    return r;

fail:
    cg_volume_json_clear(&json);
    cg_layers_clear(&sealed);
    return r;
}

void cg_seal_end(struct cg_seal *s)
{
    struct cg_volume *v = s->v;
    struct cg_error ignored;

    if (s->held)
        pthread_rwlock_unlock(&v->gate);
    if (s->taken) {
        /* It's sealed: others may read it from here on, and its map file is the truth. */
        cg_layer_end(s->old, &ignored);
        cg_layer_lock(s->old, LOCK_SH, &ignored);
        if (s->sealed)
            cg_layer_lock(s->sealed, LOCK_SH, &ignored);
    } else if (atomic_load(&v->failed) == 0) {
        cg_layer_remove(v->dirfd, cg_layer_uuid(s->top), v->run);
    }
    cg_layer_unref(s->top);
    cg_layer_unref(s->sealed);
    cg_layer_unref(s->old);
}

int cg_seal_renew(struct cg_volume *v, uint64_t size, cg_seal_edit *edit,
                  const struct cg_change *change, struct cg_layers *ret_sealed,
                  struct cg_error *err)
{
    struct cg_seal s;
    int r = cg_seal_prepare(&s, v, size, err);

    if (r < 0)
        return r;
    r = cg_seal_hold(&s, err);
    if (r == 0)
        r = cg_seal_take(&s, edit, change, ret_sealed, err);
    cg_seal_end(&s);
    return r;
}

/* The top has nothing, and the layer below shows the same: that one can stand for the moment.
 * With the gate held exclusively. */
static int sealed_already(struct cg_volume *v, struct cg_layers *ret, struct cg_error *err)
{
    size_t count = cg_chain_count(v->head);
    bool empty;

    if (count < 2 || cg_layer_size(cg_chain_layer(v->head, count - 2)) != cg_chain_size(v->head))
        return 0;
    /* One that may be given up is no chain by itself, nor one that has some of what is above. */
    const char *below = cg_layer_uuid(cg_chain_layer(v->head, count - 2));
    if (strcmp(below, v->json.filling) == 0 || cg_volume_json_mixed(&v->json, below))
        return 0;
    int r = cg_layer_is_empty(cg_chain_top(v->head), &empty, err);
    if (r < 0 || !empty)
        return r;
    r = cg_layers_copy(&v->json.head, ret, err);
    if (r < 0)
        return r;
    ret->count--;
    return 1;
}

/* With the gate held exclusively.  0: there is something new. */
static int take_unchanged(struct cg_volume *v, cg_seal_edit *edit, const struct cg_change *change,
                          struct cg_layers *ret_sealed, struct cg_error *err)
{
    struct cg_layers sealed;
    struct cg_volume_json json;
    int r = sealed_already(v, &sealed, err);

    if (r <= 0)
        return r;
    if (edit) {
        r = cg_volume_json_copy(&v->json, &json, err);
        if (r == 0) {
            r = edit(&json, &sealed, change, err);
            if (r == 0)
                r = cg_change_commit_gated(v, &json, NULL, err);
            else
                cg_volume_json_clear(&json);
        }
    }
    if (r >= 0 && ret_sealed)
        *ret_sealed = sealed;
    else
        cg_layers_clear(&sealed);
    return r < 0 ? r : 1;
}

int cg_seal_take_changed(struct cg_seal *s, cg_seal_edit *edit, const struct cg_change *change,
                         struct cg_layers *ret_sealed, struct cg_error *err)
{
    int r = take_unchanged(s->v, edit, change, ret_sealed, err);

    if (r != 0)
        return r < 0 ? r : 0;
    return cg_seal_take(s, edit, change, ret_sealed, err);
}

static int take_unchanged_gating(struct cg_volume *v, cg_seal_edit *edit,
                                 const struct cg_change *change, struct cg_layers *ret_sealed,
                                 struct cg_error *err)
{
    CG_LOCK_EXCLUSIVE(&v->gate);
    return take_unchanged(v, edit, change, ret_sealed, err);
}

int cg_seal(struct cg_volume *v, cg_seal_edit *edit, const struct cg_change *change,
            struct cg_layers *ret_sealed, struct cg_error *err)
{
    int r = take_unchanged_gating(v, edit, change, ret_sealed, err);

    if (r != 0)
        return r < 0 ? r : 0;
    return cg_seal_renew(v, cg_chain_size(v->head), edit, change, ret_sealed, err);
}
