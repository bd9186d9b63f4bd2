#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/change.h"
#include "core/volumes/flatten.h"
#include "core/volumes/merge.h"
#include "core/volumes/moment.h"
#include "core/volumes/seal.h"

/* Layers that old names and the new volume.json doesn't. */
static void remove_dropped(struct cg_volume *v, const struct cg_layers *old)
{
    for (size_t i = 0; i < old->count; i++)
        if (!cg_volume_json_names(&v->json, old->uuid[i]))
            cg_layer_remove(v->dirfd, old->uuid[i], v->run);
}

/* volume.json couldn't be replaced: did it change all the same? */
static int after_failure(struct cg_volume *v, int r, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *want = cg_volume_json_text(&v->json);
    CG_CLEANUP(cg_free) char *have = NULL;
    struct cg_volume_json json;

    /* Not the file's own bytes: another version may have written it. */
    if (cg_volume_json_read(v->dirfd, &json, NULL, NULL) == 0) {
        have = cg_volume_json_text(&json);
        cg_volume_json_clear(&json);
    }
    if (want && have && strcmp(want, have) == 0)
        return r;
    atomic_store(&v->failed, -EIO);
    return cg_error_prefix(err, r, "%s takes no writes until it's opened again", v->label);
}

static void replace_head(struct cg_volume *v, struct cg_chain *chain)
{
    struct cg_chain *old = v->head;

    v->head = chain;
    atomic_store(&v->size, cg_chain_size(chain));
    cg_chain_retire(old, &v->retired);
}

int cg_change_commit_gated(struct cg_volume *v, struct cg_volume_json *json, struct cg_chain *chain,
                           struct cg_error *err)
{
    cg_volume_json_forget(json);
    int r = cg_volume_json_write(v->dirfd, json, err);

    if (r < 0) {
        cg_volume_json_clear(json);
        cg_chain_unref(chain);
        return after_failure(v, r, err);
    }
    cg_volume_json_clear(&v->json);
    v->json = *json;
    if (chain)
        replace_head(v, chain);
    return 0;
}

int cg_change_commit_locked(struct cg_volume *v, struct cg_volume_json *json,
                            struct cg_chain *chain, struct cg_error *err)
{
    CG_LOCK_EXCLUSIVE(&v->gate);
    return cg_change_commit_gated(v, json, chain, err);
}

void cg_change_show_locked(struct cg_volume *v, struct cg_chain *chain)
{
    CG_LOCK_EXCLUSIVE(&v->gate);
    replace_head(v, chain);
}

int cg_change_push_locked(struct cg_volume *v, struct cg_error *err)
{
    return cg_seal_renew(v, cg_chain_size(v->head), NULL, NULL, NULL, err);
}

static int add_snapshot(struct cg_volume_json *json, const struct cg_layers *sealed,
                        const struct cg_change *change, struct cg_error *err)
{
    int r = cg_volume_json_add_snapshot(json, change->snapshot, time(NULL), sealed, err);

    if (r == 0) {
        strcpy(json->snapshot[json->snapshots - 1].uuid, change->id);
        cg_volume_json_remember(json, change->id);
    }
    return r;
}

static int check_snapshot_free(struct cg_volume *v, const struct cg_change *change,
                               struct cg_error *err)
{
    if (cg_volume_json_snapshot(&v->json, change->snapshot))
        return cg_error_say(err, EEXIST, "%s has a snapshot %s already", v->label,
                            change->snapshot);
    return 0;
}

static int snapshot(struct cg_volume *v, const struct cg_change *change,
                    struct cg_layers *ret_sealed, struct cg_error *err)
{
    int r = check_snapshot_free(v, change, err);

    return r < 0 ? r : cg_seal(v, add_snapshot, change, ret_sealed, err);
}

static int no_snapshot(struct cg_volume *v, const char *name, struct cg_error *err)
{
    return cg_error_say(err, ENOENT, "there is no snapshot %s@%s", v->label, name);
}

static struct cg_volume_snapshot *snapshot_to_remove(struct cg_volume *v,
                                                     const struct cg_change *change)
{
    if (!*change->uuid)
        return cg_volume_json_snapshot(&v->json, change->snapshot);
    for (size_t i = 0; i < v->json.snapshots; i++)
        if (strcmp(v->json.snapshot[i].uuid, change->uuid) == 0)
            return &v->json.snapshot[i];
    return NULL;
}

/* Its layers stay, unless only this snapshot has them (after a rollback): then they may be merged.
 */
static int remove_snapshot(struct cg_volume *v, const struct cg_change *change,
                           struct cg_error *err)
{
    struct cg_volume_snapshot *s = snapshot_to_remove(v, change);
    struct cg_volume_json json;
    struct cg_layers old;

    if (!s)
        return *change->uuid ? 0 : no_snapshot(v, change->snapshot, err);
    int r = cg_layers_copy(&s->layers, &old, err);
    if (r < 0)
        return r;
    r = cg_volume_json_copy(&v->json, &json, err);
    if (r == 0) {
        cg_volume_json_remove_snapshot(&json, s->name);
        cg_volume_json_remember(&json, change->id);
        r = cg_change_commit_locked(v, &json, NULL, err);
    }
    if (r == 0)
        remove_dropped(v, &old);
    cg_layers_clear(&old);
    return r;
}

static int set_size(struct cg_volume_json *json, const struct cg_layers *sealed,
                    const struct cg_change *change, struct cg_error *err)
{
    (void)sealed;
    (void)err;
    json->original_size = change->size;
    cg_volume_json_remember(json, change->id);
    return 0;
}

static int resize(struct cg_volume *v, const struct cg_change *change, struct cg_error *err)
{
    uint64_t size = cg_chain_size(v->head);

    if (change->size == 0 || change->size % CG_SECTOR || change->size > CG_IMAGE_MAX)
        return cg_error_say(err, EINVAL, "resize %s: %llu is not a size of a volume", v->label,
                            (unsigned long long)change->size);
    if (change->size < size)
        return cg_error_say(err, EINVAL, "resize %s: it has %llu bytes, and volumes only grow",
                            v->label, (unsigned long long)size);
    return change->size == size ? 0 : cg_seal_renew(v, change->size, set_size, change, NULL, err);
}

/* The snapshot's layers, those that the volume has open shared with it. */
static int chain_of(struct cg_volume *v, const struct cg_layers *layers, struct cg_layer *top,
                    struct cg_chain **ret_chain, struct cg_error *err)
{
    struct cg_layer **open;
    int r = cg_volume_open_layers(v->dirfd, layers, true, &open, err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_chain_cleanup)
    struct cg_chain *below =
        cg_chain_new(layers->size, open, layers->count, cg_chain_parent(v->head));
    cg_volume_close_layers(open, layers->count);
    *ret_chain = below ? cg_chain_push(below, NULL, top) : NULL;
    return *ret_chain ? 0 : cg_error_set(err, ENOMEM, "open a chain");
}

static int rollback_json(struct cg_volume *v, const struct cg_volume_snapshot *s,
                         struct cg_layer *top, struct cg_volume_json *ret, struct cg_error *err)
{
    struct cg_volume_json json;
    struct cg_layers head;
    int r = cg_volume_json_copy(&v->json, &json, err);

    if (r < 0)
        return r;
    r = cg_layers_copy(&s->layers, &head, err);
    if (r == 0) {
        cg_layers_clear(&json.head);
        json.head = head;
        json.original_size = cg_volume_json_original_size(&json, head.size);
        r = cg_layers_add(&json.head, cg_layer_uuid(top), err);
    }
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    *ret = json;
    return 0;
}

static int rollback_to(struct cg_volume *v, const struct cg_volume_snapshot *s,
                       struct cg_layer *top, struct cg_error *err)
{
    struct cg_volume_json json;
    struct cg_chain *chain;
    int r = chain_of(v, &s->layers, top, &chain, err);

    if (r < 0)
        return r;
    r = rollback_json(v, s, top, &json, err);
    if (r < 0) {
        cg_chain_unref(chain);
        return r;
    }
    return cg_change_commit_locked(v, &json, chain, err);
}

static int rollback(struct cg_volume *v, const struct cg_change *change, struct cg_error *err)
{
    struct cg_volume_snapshot *s = cg_volume_json_snapshot(&v->json, change->snapshot);
    struct cg_layers old;
    struct cg_layer *top;

    if (!s)
        return no_snapshot(v, change->snapshot, err);
    int r = cg_layers_copy(&v->json.head, &old, err);
    if (r < 0)
        return r;
    r = cg_seal_make_top(v, s->layers.size, &top, err);
    if (r == 0) {
        r = rollback_to(v, s, top, err);
        if (r < 0 && atomic_load(&v->failed) == 0)
            cg_layer_remove(v->dirfd, cg_layer_uuid(top), v->run);
        cg_layer_unref(top);
    }
    if (r == 0)
        remove_dropped(v, &old);
    cg_layers_clear(&old);
    return r;
}

/* Done before, for this request? */
static int repeated(struct cg_volume *v, const struct cg_change *change,
                    struct cg_layers *ret_sealed, struct cg_error *err)
{
    const struct cg_volume_snapshot *s = cg_volume_json_snapshot(&v->json, change->snapshot);

    if (!cg_volume_json_requested(&v->json, change->id))
        return 0;
    int r = ret_sealed && s ? cg_layers_copy(&s->layers, ret_sealed, err) : 0;
    return r < 0 ? r : 1;
}

/* -EAGAIN: this isn't who changes the volume any more. */
static int check_ready_locked(struct cg_volume *v, struct cg_error *err)
{
    if (v->lock_fd < 0)
        return cg_error_set(err, EAGAIN, "%s", v->label);
    cg_flatten_finish_locked(v, NULL);
    return cg_volume_check(v, err);
}

int cg_change_prepare_snapshot_locked(struct cg_volume *v, const struct cg_change *change,
                                      struct cg_seal *ret_seal, struct cg_error *err)
{
    int r = check_ready_locked(v, err);

    if (r == 0)
        r = check_snapshot_free(v, change, err);
    return r < 0 ? r : cg_seal_prepare(ret_seal, v, cg_chain_size(v->head), err);
}

int cg_change_take_snapshot_locked(struct cg_seal *seal, const struct cg_change *change,
                                   struct cg_error *err)
{
    return cg_seal_take_changed(seal, add_snapshot, change, NULL, err);
}

static int perform(struct cg_volume *v, const struct cg_change *change,
                   struct cg_layers *ret_sealed, struct cg_error *err)
{
    CG_LOCK(&v->change);
    int r = check_ready_locked(v, err);
    if (r < 0)
        return r;
    r = repeated(v, change, ret_sealed, err);
    if (r != 0)
        return r < 0 ? r : 0;
    switch (change->op) {
    case CG_CHANGE_SNAPSHOT:
        return snapshot(v, change, ret_sealed, err);
    case CG_CHANGE_REMOVE_SNAPSHOT:
        return remove_snapshot(v, change, err);
    case CG_CHANGE_RESIZE:
        return resize(v, change, err);
    case CG_CHANGE_ROLLBACK:
        return rollback(v, change, err);
    case CG_CHANGE_SEAL:
        return cg_seal(v, NULL, change, ret_sealed, err);
    case CG_CHANGE_MOMENT: /* not by one request */
        break;
    }
    return cg_error_set(err, EINVAL, "change %s", v->label);
}

int cg_change_answer(void *opaque, struct cg_control_call *call, const json_t *request,
                     json_t *answer, struct cg_error *err)
{
    struct cg_volume *v = opaque;
    struct cg_layers sealed = { .size = 0 };
    struct cg_change change;
    const char *op = json_string_value(json_object_get(request, "op"));

    if (op && strcmp(op, "flatten") == 0)
        return cg_flatten_answer(v, call, request, answer, err);
    if (op && strcmp(op, "reclaim") == 0)
        return cg_merge_answer(v, call, answer, err);
    int r = cg_change_request_decode(request, &change, err);
    if (r == 0 && change.op == CG_CHANGE_ROLLBACK)
        return cg_error_say(err, EBUSY, "%s is being written by process %ld", v->label,
                            (long)getpid());
    if (r == 0 && change.op == CG_CHANGE_MOMENT)
        return cg_moment_answer(v, call, &change, err);
    if (r == 0)
        r = perform(v, &change, &sealed, err);
    if (r == 0 && sealed.count)
        r = cg_layers_to_json(&sealed, answer, err);
    cg_layers_clear(&sealed);
    return r;
}

static int ask(int dirfd, const struct cg_change *change, struct cg_layers *ret_sealed,
               struct cg_error *err)
{
    struct cg_writer writer;
    json_t *answer = NULL;

    if (cg_writer_read(dirfd, &writer, NULL) < 0)
        writer.socket[0] = '\0';
    if (!*writer.socket)
        return cg_error_say(err, ECONNRESET, "the writer has no socket");
    json_t *request = cg_change_request_encode(change);
    if (!request)
        return cg_error_set(err, ENOMEM, "ask the writer");
    int r = cg_control_ask(writer.socket, request, CG_CONTROL_SILENCE, NULL, NULL, &answer, err);
    json_decref(request);
    if (r == 0 && ret_sealed)
        r = cg_layers_from_json(answer, ret_sealed, err);
    json_decref(answer);
    return r == -EAGAIN ? -ECONNRESET : r;
}

int cg_change_ask_seal(int dirfd, struct cg_layers *ret_layers, struct cg_error *err)
{
    struct cg_change change = { .op = CG_CHANGE_SEAL };

    cg_uuid(change.id);
    return ask(dirfd, &change, ret_layers, err);
}

/* One attempt: by the open volume, by taking the lock, by asking.  -ECONNRESET: again. */
static int attempt(struct cg_volumes *space, const struct cg_name *name, struct cg_change *change,
                   struct cg_layers *ret_sealed, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dirfd = -1;
    struct cg_volume *v;
    int r = cg_volume_open_dir(space, name, &dirfd, err);

    if (r < 0)
        return r;
    v = cg_volume_find(space, dirfd, true);
    r = v ? 0 : cg_volume_open_brief(space, name, &v, err);
    if (r == 0) {
        r = perform(v, change, ret_sealed, err);
        cg_volume_unref(v);
        return r == -EAGAIN ? -ECONNRESET : r;
    }
    if (r != -EBUSY || change->op == CG_CHANGE_ROLLBACK)
        return r;
    return ask(dirfd, change, ret_sealed, err);
}

int cg_change(struct cg_volumes *space, const struct cg_name *name, struct cg_change *change,
              struct cg_layers *ret_sealed, struct cg_error *err)
{
    cg_uuid(change->id);
    for (unsigned i = 0;; i++) {
        int r = attempt(space, name, change, ret_sealed, err);
        if (r != -ECONNRESET)
            return r;
        if (!cg_writer_wait(i))
            return cg_error_say(err, EBUSY, "the writer does not answer");
    }
}
