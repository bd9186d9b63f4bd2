#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/change.h"
#include "core/volumes/fill.h"
#include "core/volumes/flatten.h"

/* For about two seconds: the process that filled for somebody who was killed takes a moment to
 * notice. */
#define BUSY_ATTEMPTS 45

/* A flatten as it was asked for. */
struct order {
    uint64_t rate;
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
    char whole[CG_UUID_LEN + 1]; /* the layer that this process has filled */
};

/* Attempts that lead to another. */
enum {
    DONE = 0,
    HELD = 1, /* done, but somebody still reads through the parent */
    AGAIN = 2,
};

/* The chain of `head` without the layer `without`, with `lowest` (may be NULL) below it. */
static struct cg_chain *rebuild(struct cg_chain *head, struct cg_layer *lowest, const char *without,
                                struct cg_parent *parent)
{
    size_t count = cg_chain_count(head), n = 0;
    struct cg_layer **layers = calloc(count + 1, sizeof *layers);

    if (!layers)
        return NULL;
    if (lowest)
        layers[n++] = lowest;
    for (size_t i = 0; i < count; i++)
        if (strcmp(cg_layer_uuid(cg_chain_layer(head, i)), without) != 0)
            layers[n++] = cg_chain_layer(head, i);
    struct cg_chain *chain = cg_chain_new(cg_chain_size(head), layers, n, parent);
    free(layers);
    return chain;
}

/* The head of now with the filled layer as it is on disk now, or without it.  NULL in *ret_chain
 * if nobody reads v. */
static int chain_of(struct cg_volume *v, const char *uuid, bool with, bool parent,
                    struct cg_chain **ret_chain, struct cg_error *err)
{
    struct cg_layer *layer = NULL;

    *ret_chain = NULL;
    if (v->brief)
        return 0;
    int r = with ? cg_layer_open(v->dirfd, uuid, &layer, err) : 0;
    if (r == 0 && layer)
        r = cg_layer_lock(layer, LOCK_SH, err);
    if (r == 0) {
        *ret_chain = rebuild(v->head, layer, uuid, parent ? cg_chain_parent(v->head) : NULL);
        r = *ret_chain ? 0 : cg_error_set(err, ENOMEM, "flatten %s", v->label);
    }
    cg_layer_unref(layer);
    return r;
}

/* Says in json that uuid is below everything. */
static int edit_begin(struct cg_volume_json *json, const char *uuid, struct cg_error *err)
{
    int r = cg_layers_insert(&json->head, uuid, err);

    for (size_t i = 0; r == 0 && i < json->snapshots; i++)
        r = cg_layers_insert(&json->snapshot[i].layers, uuid, err);
    strcpy(json->filling, uuid);
    return r;
}

static int edit_drop(struct cg_volume_json *json, const char *uuid, struct cg_error *err)
{
    cg_layers_remove(&json->head, uuid);
    for (size_t i = 0; i < json->snapshots; i++) {
        cg_layers_remove(&json->snapshot[i].layers, uuid);
        if (json->snapshot[i].layers.count == 0)
            return cg_error_say(err, EBUSY, "snapshot %s has no other layer",
                                json->snapshot[i].name);
    }
    json->filling[0] = '\0';
    return 0;
}

/* The layer is whole: it takes the parent's place, which is to be released. */
static int edit_end(struct cg_volume_json *json, const char *uuid, struct cg_error *err)
{
    (void)uuid;
    (void)err;
    strcpy(json->release, json->parent);
    strcpy(json->release_identity, json->parent_identity);
    strcpy(json->release_uuid, json->uuid);
    json->parent[0] = json->parent_identity[0] = json->filling[0] = '\0';
    json->parent_size = 0;
    return 0;
}

typedef int edit_fn(struct cg_volume_json *json, const char *uuid, struct cg_error *err);

static int commit_locked(struct cg_volume *v, edit_fn *edit, const char *uuid, struct cg_error *err)
{
    struct cg_volume_json json;
    struct cg_chain *chain;
    int r = cg_volume_json_copy(&v->json, &json, err);

    if (r < 0)
        return r;
    r = edit(&json, uuid, err);
    if (r == 0)
        r = chain_of(v, uuid, edit != edit_drop, edit != edit_end, &chain, err);
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    return cg_change_commit_locked(v, &json, chain, err);
}

/* Makes the layer that is to be filled, if there is none. */
static int begin_locked(struct cg_volume *v, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];

    if (*v->json.filling)
        return 0;
    cg_uuid(uuid);
    int r = cg_layer_create(v->dirfd, uuid, cg_round_up(v->json.parent_size, CG_SECTOR), err);
    if (r < 0)
        return r;
    r = cg_dir_sync(v->dirfd, ".", err);
    if (r == 0)
        r = commit_locked(v, edit_begin, uuid, err);
    if (r < 0 && atomic_load(&v->failed) == 0)
        cg_layer_remove(v->dirfd, uuid, v->run);
    return r;
}

static int end(struct cg_volume *v, const char *uuid, struct cg_error *err)
{
    CG_LOCK(&v->change);
    int r = cg_volume_check(v, err);

    if (r == 0 && strcmp(v->json.filling, uuid) == 0)
        r = commit_locked(v, edit_end, uuid, err);
    return r;
}

/* Without room for the layer the guest needs what is left more. */
static void give_up(struct cg_volume *v, const char *uuid)
{
    CG_LOCK(&v->change);

    if (cg_volume_check(v, NULL) == 0 && strcmp(v->json.filling, uuid) == 0 &&
        commit_locked(v, edit_drop, uuid, NULL) == 0)
        cg_layer_remove(v->dirfd, uuid, v->run);
}

static bool is_full(int r)
{
    return r == -ENOSPC || r == -EDQUOT;
}

int cg_flatten_finish_locked(struct cg_volume *v, struct cg_error *err)
{
    struct cg_volume_json json;

    if (!*v->json.release)
        return 0;
    int r = cg_volume_check(v, err);
    if (r < 0)
        return r;
    if (!cg_parent_unused(v->dirfd))
        return 1;
    r = cg_parent_release(v->space, &v->json, err);
    if (r == 0)
        r = cg_volume_json_copy(&v->json, &json, err);
    if (r < 0)
        return r;
    json.release[0] = json.release_identity[0] = json.release_uuid[0] = '\0';
    r = cg_change_commit_locked(v, &json, NULL, err);
    if (r == 0)
        unlinkat(v->dirfd, "parent", 0);
    return r;
}

/* What this process still reads through the parent is done in a moment; who else does lets go in
 * his own time: then the next change or end of writing finishes it. */
static int finish(struct cg_volume *v, struct cg_error *err)
{
    for (unsigned attempt = 0;; attempt++) {
        pthread_mutex_lock(&v->change);
        int r = cg_flatten_finish_locked(v, err);
        pthread_mutex_unlock(&v->change);
        if (r < 0)
            return cg_error_prefix(err, r, "%s is flat, but still holds its parent", v->label);
        if (r == 0 || attempt >= 8 || !cg_writer_wait(attempt))
            return r == 0 ? DONE : HELD;
    }
}

/* The writer fills. */

struct writing {
    struct cg_volume *v;
    const char *uuid;
    struct order *order;
};

static int tell(const struct order *order, uint64_t done, uint64_t total, struct cg_error *err)
{
    if (order->progress && order->progress(order->opaque, done, total))
        return cg_error_set(err, ECANCELED, "flatten");
    return 0;
}

/* What is durable is read from the layer from here on. */
static int show(struct cg_volume *v, const char *uuid, struct cg_error *err)
{
    struct cg_chain *chain;
    CG_LOCK(&v->change);
    int r = chain_of(v, uuid, true, true, &chain, err);

    if (r == 0)
        cg_change_show_locked(v, chain);
    return r;
}

static int report_writing(void *opaque, uint64_t done, uint64_t total, bool saved,
                          struct cg_error *err)
{
    struct writing *w = opaque;
    int r = saved ? show(w->v, w->uuid, err) : 0;

    return r < 0 ? r : tell(w->order, done, total, err);
}

/* 1, with the parent and the layer to fill, if there is a parent. */
static int enter(struct cg_volume *v, struct cg_parent **ret_parent,
                 char ret_uuid[static CG_UUID_LEN + 1], struct cg_error *err)
{
    CG_LOCK(&v->change);
    if (v->lock_fd < 0)
        return cg_error_set(err, EAGAIN, "%s", v->label);
    if (!*v->json.parent)
        return 0;
    if (v->flattening)
        return cg_error_say(err, EBUSY, "it is being flattened already");
    int r = cg_volume_check(v, err);
    if (r == 0)
        r = begin_locked(v, err);
    if (r < 0)
        return r;
    v->flattening = true;
    *ret_parent = cg_parent_ref(cg_chain_parent(v->head));
    strcpy(ret_uuid, v->json.filling);
    return 1;
}

static int fill_writing(struct cg_volume *v, struct order *order, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];
    struct writing w = { v, uuid, order };
    struct cg_fill f = {
        .dirfd = v->dirfd, .uuid = uuid, .rate = order->rate, .report = report_writing, .opaque = &w
    };
    int r = enter(v, &f.parent, uuid, err);

    if (r <= 0)
        return r;
    r = cg_fill(&f, err);
    if (r == 0)
        r = end(v, uuid, err);
    else if (is_full(r))
        give_up(v, uuid);
    else
        show(v, uuid, NULL);
    cg_parent_unref(f.parent);
    CG_LOCK(&v->change);
    v->flattening = false;
    return r;
}

static int flatten_writing(struct cg_volume *v, struct order *order, struct cg_error *err)
{
    int r = fill_writing(v, order, err);

    if (r < 0)
        return r == -EAGAIN ? r : cg_error_prefix(err, r, "flatten %s", v->label);
    return finish(v, err);
}

static int tell_caller(void *opaque, uint64_t done, uint64_t total)
{
    return cg_control_progress(opaque, done, total);
}

int cg_flatten_answer(struct cg_volume *v, struct cg_control_call *call, const json_t *request,
                      json_t *answer, struct cg_error *err)
{
    json_int_t rate = json_integer_value(json_object_get(request, "rate"));
    struct order order = { .rate = rate > 0 ? (uint64_t)rate : 0,
                           .progress = tell_caller,
                           .opaque = call };
    int r = flatten_writing(v, &order, err);

    if (r == HELD)
        json_object_set_new(answer, "held", json_true());
    return r < 0 ? r : 0;
}

static int ask(int dirfd, struct order *order, struct cg_error *err)
{
    struct cg_writer writer;
    json_t *request = json_pack("{s:s, s:I}", "op", "flatten", "rate", (json_int_t)order->rate);
    json_t *answer = NULL;

    if (cg_writer_read(dirfd, &writer, NULL) < 0)
        writer.socket[0] = '\0';
    int r = *writer.socket ? cg_control_ask(writer.socket, request, CG_CONTROL_SILENCE,
                                            order->progress, order->opaque, &answer, err)
                           : cg_error_say(err, ECONNRESET, "the writer has no socket");
    if (r == 0 && json_is_true(json_object_get(answer, "held")))
        r = HELD;
    json_decref(request);
    json_decref(answer);
    return r == -EAGAIN ? -ECONNRESET : r;
}

/* Nobody writes: this process fills. */

struct alone {
    int dirfd;
    struct order *order;
};

static int report_alone(void *opaque, uint64_t done, uint64_t total, bool saved,
                        struct cg_error *err)
{
    struct alone *a = opaque;

    (void)saved;
    int r = tell(a->order, done, total, err);
    return r < 0 ? r : cg_writer_alive(a->dirfd) ? AGAIN : 0;
}

/* With a parent that can't be released meanwhile, if there still is one. */
static int open_parent(struct cg_volumes *space, int dirfd, struct cg_parent **ret_parent,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    struct cg_volume_json json;
    int r = cg_parent_lock(dirfd, &fd, err);

    if (r == 0)
        r = cg_volume_json_read(dirfd, &json, NULL, err);
    if (r < 0)
        return r;
    r = *json.parent ? cg_parent_open(space, &json, fd, ret_parent, err) : AGAIN;
    cg_volume_json_clear(&json);
    if (r == 0)
        fd = -1;
    return r;
}

static int fill_alone(struct cg_volumes *space, int dirfd, const char *uuid, struct order *order,
                      struct cg_error *err)
{
    struct alone a = { dirfd, order };
    struct cg_fill f = {
        .dirfd = dirfd, .uuid = uuid, .rate = order->rate, .report = report_alone, .opaque = &a
    };
    int r = open_parent(space, dirfd, &f.parent, err);

    if (r != 0)
        return r;
    r = cg_fill(&f, err);
    cg_parent_unref(f.parent);
    if (r == 0)
        strcpy(order->whole, uuid);
    return r;
}

/* The structure's share, in the moments in which this process has the lock.  AGAIN: *ret_uuid is to
 * be filled. */
static int step_brief(struct cg_volume *v, struct order *order,
                      char ret_uuid[static CG_UUID_LEN + 1], struct cg_error *err)
{
    int r = *order->whole ? end(v, order->whole, err) : 0;

    if (r < 0)
        return r;
    if (!*v->json.parent)
        return finish(v, err);
    CG_LOCK(&v->change);
    r = begin_locked(v, err);
    if (r < 0)
        return r;
    strcpy(ret_uuid, v->json.filling);
    return AGAIN;
}

/* If a writer has come it finds out by itself. */
static void give_up_alone(struct cg_volumes *space, const struct cg_name *name, const char *uuid)
{
    struct cg_volume *v;

    if (cg_volume_open_brief(space, name, &v, NULL) < 0)
        return;
    give_up(v, uuid);
    cg_volume_unref(v);
}

static int attempt_alone(struct cg_volumes *space, const struct cg_name *name, int dirfd,
                         struct cg_volume *v, struct order *order, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];
    int r = step_brief(v, order, uuid, err);

    cg_volume_unref(v);
    if (r != AGAIN)
        return r;
    r = fill_alone(space, dirfd, uuid, order, err);
    if (is_full(r))
        give_up_alone(space, name, uuid);
    return r == 0 ? AGAIN : r;
}

/* -ECONNRESET: the writer is gone. */
static int attempt(struct cg_volumes *space, const struct cg_name *name, struct order *order,
                   struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dirfd = -1;
    char text[CG_NAME_MAX];
    struct cg_volume *v;
    int r = cg_volume_open_dir(space, name, &dirfd, err);

    if (r < 0)
        return r;
    v = cg_volume_find(space, dirfd, false);
    bool writing = v; /* else this process would go on reading through the parent */
    cg_volume_unref(v);
    r = writing ? cg_volume_open(space, name, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &v, err)
                : cg_volume_open_brief(space, name, &v, err);
    if (r == -EBUSY)
        return ask(dirfd, order, err);
    if (r < 0)
        return r;
    if (writing) {
        r = flatten_writing(v, order, err);
        cg_volume_unref(v);
        return r == -EAGAIN ? -ECONNRESET : r;
    }
    r = attempt_alone(space, name, dirfd, v, order, err);
    return r < 0 ? cg_error_prefix(err, r, "flatten %s", cg_name_text(name, true, text)) : r;
}

int cg_flatten(struct cg_volumes *space, const struct cg_name *name, uint64_t rate,
               int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
               struct cg_error *err)
{
    struct order order = { .rate = rate, .progress = progress, .opaque = opaque };
    unsigned lost = 0, busy = 0;

    for (;;) {
        int r = attempt(space, name, &order, err);
        if (r == AGAIN)
            lost = 0;
        else if (r == -EBUSY && busy < BUSY_ATTEMPTS)
            cg_writer_wait(busy++);
        else if (r != -ECONNRESET)
            return r;
        else if (!cg_writer_wait(lost++))
            return cg_error_say(err, EBUSY, "the writer does not answer");
    }
}
