#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/change.h"
#include "core/volumes/fill.h"
#include "core/volumes/filling.h"
#include "core/volumes/flatten.h"
#include "core/volumes/gather.h"

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
        return cg_error_say(err, ECANCELED, "interrupted");
    return 0;
}

static int report_writing(void *opaque, uint64_t done, uint64_t total, bool saved,
                          struct cg_error *err)
{
    struct writing *w = opaque;
    int r = saved ? cg_filling_show(w->v, w->uuid, err) : 0;

    return r < 0 ? r : tell(w->order, done, total, err);
}

/* What a layer is filled from. */
struct source {
    struct cg_image *image;
    struct cg_parent *parent; /* may be NULL */
};

static void source_clear(struct source *s)
{
    cg_image_unref(s->image);
    cg_parent_unref(s->parent);
}

/* What count layers show, or if there are none what the parent does, which is taken over. */
static int source_new(struct cg_layer **layers, size_t count, struct cg_parent *parent,
                      struct source *ret, struct cg_error *err)
{
    struct source s = { .parent = parent };

    s.image =
        count ? cg_gather_image(layers, count, parent) : cg_image_ref(cg_parent_image(parent));
    if (!s.image) {
        cg_parent_unref(parent);
        return cg_error_set(err, ENOMEM, "flatten");
    }
    *ret = s;
    return 0;
}

static int source_of_head(struct cg_volume *v, struct source *ret, struct cg_error *err)
{
    size_t count = cg_chain_count(v->head), n = 0;
    CG_CLEANUP(cg_free) struct cg_layer **layers = calloc(count, sizeof *layers);
    struct cg_parent *parent = cg_chain_parent(v->head);
    bool gathers = cg_volume_json_gathers(&v->json);

    if (!layers)
        return cg_error_set(err, ENOMEM, "flatten");
    for (size_t i = 0; gathers && i < count; i++)
        if (cg_layers_has(&v->json.inherited, cg_layer_uuid(cg_chain_layer(v->head, i))))
            layers[n++] = cg_chain_layer(v->head, i);
    return source_new(layers, n, parent ? cg_parent_ref(parent) : NULL, ret, err);
}

/* 1, with the layer to fill and what from, if it isn't flat. */
static int enter(struct cg_volume *v, struct source *ret, char ret_uuid[static CG_UUID_LEN + 1],
                 struct cg_error *err)
{
    CG_LOCK(&v->change);
    if (v->lock_fd < 0)
        return cg_error_set(err, EAGAIN, "%s", v->label);
    if (!cg_filling_needed(v))
        return 0;
    if (v->flattening)
        return cg_error_say(err, EBUSY, "it is being flattened already");
    int r = cg_volume_check(v, err);
    if (r == 0)
        r = cg_filling_begin(v, err);
    if (r == 0)
        r = source_of_head(v, ret, err);
    if (r < 0)
        return r;
    v->flattening = true;
    strcpy(ret_uuid, v->json.filling);
    return 1;
}

/* 1: there may be more to do. */
static int fill_writing(struct cg_volume *v, struct order *order, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];
    struct writing w = { v, uuid, order };
    struct source source;
    int r = enter(v, &source, uuid, err);

    if (r <= 0)
        return r;
    struct cg_fill f = { .dirfd = v->dirfd,
                         .uuid = uuid,
                         .from = source.image,
                         .parent = source.parent,
                         .rate = order->rate,
                         .report = report_writing,
                         .opaque = &w };
    r = cg_fill(&f, err);
    if (r == 0)
        r = cg_filling_end(v, uuid, err);
    else if (is_full(r))
        cg_filling_drop(v, uuid);
    else
        cg_filling_show(v, uuid, NULL);
    source_clear(&source);
    CG_LOCK(&v->change);
    v->flattening = false;
    return r < 0 ? r : 1;
}

static int flatten_writing(struct cg_volume *v, struct order *order, struct cg_error *err)
{
    int r;

    do
        r = fill_writing(v, order, err);
    while (r == 1);
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

static int read_json(int dirfd, const char *uuid, struct cg_volume_json *ret, struct cg_error *err)
{
    int r = cg_volume_json_read(dirfd, ret, NULL, err);

    if (r < 0 || strcmp(ret->filling, uuid) == 0)
        return r;
    cg_volume_json_clear(ret);
    return AGAIN;
}

/* With a parent that can't be released meanwhile, if there is one. */
static int open_parent(struct cg_volumes *space, int dirfd, const char *uuid,
                       struct cg_volume_json *json, struct cg_parent **ret_parent,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;

    *ret_parent = NULL;
    if (!*json->parent)
        return 0;
    int r = cg_parent_lock(dirfd, &fd, err);
    cg_volume_json_clear(json);
    if (r == 0)
        r = read_json(dirfd, uuid, json, err);
    if (r == 0 && *json->parent)
        r = cg_parent_open(space, json, fd, ret_parent, err);
    if (*ret_parent)
        fd = -1;
    return r;
}

static int open_source(struct cg_volumes *space, int dirfd, const char *uuid, struct source *ret,
                       struct cg_error *err)
{
    struct cg_layer **layers = NULL;
    struct cg_volume_json json;
    struct cg_parent *parent;
    int r = read_json(dirfd, uuid, &json, err);

    if (r != 0)
        return r;
    r = open_parent(space, dirfd, uuid, &json, &parent, err);
    size_t count = r == 0 && cg_volume_json_gathers(&json) ? json.inherited.count : 0;
    if (count)
        r = cg_volume_open_layers(dirfd, &json.inherited, true, &layers, err);
    if (r == -ENOENT) /* somebody else has done it */
        r = AGAIN;
    if (r == 0)
        r = source_new(layers, count, parent, ret, err);
    else
        cg_parent_unref(parent);
    cg_volume_close_layers(layers, count);
    cg_volume_json_clear(&json);
    return r;
}

static int fill_alone(struct cg_volumes *space, int dirfd, const char *uuid, struct order *order,
                      struct cg_error *err)
{
    struct alone a = { dirfd, order };
    struct source source;
    int r = open_source(space, dirfd, uuid, &source, err);

    if (r != 0)
        return r;
    struct cg_fill f = { .dirfd = dirfd,
                         .uuid = uuid,
                         .from = source.image,
                         .parent = source.parent,
                         .rate = order->rate,
                         .report = report_alone,
                         .opaque = &a };
    r = cg_fill(&f, err);
    source_clear(&source);
    if (r == 0)
        strcpy(order->whole, uuid);
    return r > 0 ? AGAIN : r;
}

/* The structure's share, in the moments in which this process has the lock.  AGAIN: *ret_uuid is to
 * be filled. */
static int step_brief(struct cg_volume *v, struct order *order,
                      char ret_uuid[static CG_UUID_LEN + 1], struct cg_error *err)
{
    int r = *order->whole ? cg_filling_end(v, order->whole, err) : 0;

    if (r < 0)
        return r;
    if (!cg_filling_needed(v))
        return finish(v, err);
    CG_LOCK(&v->change);
    r = cg_filling_begin(v, err);
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
    cg_filling_drop(v, uuid);
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
