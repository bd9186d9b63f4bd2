/* A layer is merged into the one below in three steps.  With the volume's lock it's made sure that
 * nobody has the lower one without the upper, and volume.json says that the lower one is `mixed`:
 * no chain ends at it from here on.  Then, without a lock that is in anybody's way, the upper one's
 * blocks are copied.  With the volume's lock again, and nobody else reading the two, volume.json
 * and the head lose the upper one. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "core/base/cleanup.h"
#include "core/volumes/change.h"
#include "core/volumes/merge.h"
#include "core/volumes/merge_copy.h"

/* Two layers, one right above the other. */
struct pair {
    struct cg_layer *lower, *upper; /* owned references; NULL for none */
};

/* A merge as it was asked for, and how far it is. */
struct order {
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
    struct pair work; /* what is being copied, or has been: nobody writes into them meanwhile */
    bool sealed;      /* the layer that was being written has got another above it */
    bool held;        /* somebody reads what could be merged */
    bool stopped;     /* what is left is left to another time */
};

/* Attempts that lead to another. */
enum { DONE = 0, AGAIN = 1 };

static void close_pair(struct pair *p)
{
    cg_layer_unref(p->lower);
    cg_layer_unref(p->upper);
    *p = (struct pair){ NULL, NULL };
}

static void unlock(struct cg_layer *layer)
{
    struct cg_error ignored;

    cg_layer_lock(layer, LOCK_SH, &ignored);
}

/* By a descriptor of its own, and locked: it stays as it is when those of the head's chain go. */
static int open_locked(struct cg_volume *v, const char *uuid, struct cg_layer **ret,
                       struct cg_error *err)
{
    struct cg_layer *layer;
    int r = cg_layer_open(v->dirfd, uuid, &layer, err);

    if (r < 0)
        return r;
    r = cg_layer_lock(layer, LOCK_SH, err);
    if (r < 0)
        cg_layer_unref(layer);
    else
        *ret = layer;
    return r;
}

/* The head's chain's own, whose lock would be in the way of another. */
static int get(struct cg_volume *v, const char *uuid, struct cg_layer **ret, struct cg_error *err)
{
    struct cg_layer *layer = cg_chain_find(v->head, uuid);

    if (!layer)
        return open_locked(v, uuid, ret, err);
    *ret = cg_layer_ref(layer);
    return 0;
}

static int get_pair(struct cg_volume *v, const char *lower, const char *upper, struct pair *ret,
                    struct cg_error *err)
{
    struct pair p = { NULL, NULL };
    int r = get(v, lower, &p.lower, err);

    if (r == 0)
        r = get(v, upper, &p.upper, err);
    if (r < 0)
        close_pair(&p);
    else
        *ret = p;
    return r;
}

static bool is_written(struct cg_volume *v, struct cg_layer *layer)
{
    return !v->brief && layer == cg_chain_top(v->head);
}

/* 1: the lower one is locked exclusively, nobody has it without the upper one. */
static int claim(struct cg_volume *v, struct order *o, struct pair *p, struct cg_error *err)
{
    bool empty;

    if (cg_layer_shared(p->lower) || cg_layer_shared(p->upper) ||
        cg_layer_size(p->lower) != cg_layer_size(p->upper))
        return 0;
    if (is_written(v, p->upper)) {
        int r = cg_layer_is_empty(p->upper, &empty, err);
        if (r < 0 || empty || o->sealed)
            return r;
    } else if (!cg_layer_claim(p->upper)) {
        o->held = true;
        return 0;
    } else {
        unlock(p->upper);
    }
    if (!cg_layer_claim(p->lower)) {
        o->held = true;
        return 0;
    }
    /* A clone that was being made had it locked until it was linked. */
    if (cg_layer_shared(p->lower)) {
        unlock(p->lower);
        return 0;
    }
    return 1;
}

/* Says that the lower one doesn't show a moment of its own any more. */
static int mark(struct cg_volume *v, const char *uuid, struct cg_error *err)
{
    struct cg_volume_json json;

    if (cg_volume_json_mixed(&v->json, uuid))
        return 0;
    int r = cg_volume_json_copy(&v->json, &json, err);
    if (r < 0)
        return r;
    r = cg_layers_add(&json.mixed, uuid, err);
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    return cg_change_commit_locked(v, &json, NULL, err);
}

/* With the lower one locked exclusively, which ends here. */
static int begin_claimed(struct cg_volume *v, struct order *o, struct pair *p, struct cg_error *err)
{
    struct pair work = { NULL, NULL };
    int r = 0;

    if (is_written(v, p->upper)) {
        r = cg_change_push_locked(v, err);
        o->sealed = true;
    }
    if (r == 0)
        r = mark(v, cg_layer_uuid(p->lower), err);
    unlock(p->lower);
    if (r == 0)
        r = open_locked(v, cg_layer_uuid(p->lower), &work.lower, err);
    if (r == 0)
        r = open_locked(v, cg_layer_uuid(p->upper), &work.upper, err);
    if (r < 0) {
        close_pair(&work);
        return r;
    }
    o->work = work;
    return 1;
}

static bool may_merge(struct cg_volume *v, const char *lower, const char *upper)
{
    return strcmp(lower, v->json.filling) != 0 && !cg_volume_json_gathered(&v->json, lower) &&
           !cg_volume_json_gathered(&v->json, upper) &&
           cg_volume_json_adjacent(&v->json, lower, upper);
}

/* 1: the pair is to be copied. */
static int begin_pair(struct cg_volume *v, struct order *o, const char *lower, const char *upper,
                      struct cg_error *err)
{
    struct pair p;

    if (!may_merge(v, lower, upper))
        return 0;
    int r = get_pair(v, lower, upper, &p, err);
    if (r < 0)
        return r;
    r = claim(v, o, &p, err);
    if (r == 1)
        r = begin_claimed(v, o, &p, err);
    close_pair(&p);
    return r;
}

static bool ends_a_snapshot(const struct cg_volume_json *json, const char *uuid)
{
    for (size_t i = 0; i < json->snapshots; i++) {
        const struct cg_layers *layers = &json->snapshot[i].layers;
        if (strcmp(layers->uuid[layers->count - 1], uuid) == 0)
            return true;
    }
    return false;
}

/* The pairs of a chain from its layer `from` on. */
static int begin_in(struct cg_volume *v, struct order *o, const struct cg_layers *layers,
                    size_t from, struct cg_error *err)
{
    int r = 0;

    for (size_t i = from; r == 0 && i + 1 < layers->count; i++)
        if (!ends_a_snapshot(&v->json, layers->uuid[i]))
            r = begin_pair(v, o, layers->uuid[i], layers->uuid[i + 1], err);
    return r;
}

static size_t in_common(const struct cg_layers *a, const struct cg_layers *b)
{
    size_t i = 0;

    while (i < a->count && i < b->count && strcmp(a->uuid[i], b->uuid[i]) == 0)
        i++;
    return i;
}

/* Finds layers to merge.  1: o->work is to be copied; 0: there is nothing that can be done now. */
static int begin_locked(struct cg_volume *v, struct order *o, struct cg_error *err)
{
    const struct cg_layers *head = &v->json.head;
    int r = cg_volume_check(v, err);

    if (r < 0 || o->stopped)
        return r;
    r = begin_in(v, o, head, 0, err);
    for (size_t i = 0; r == 0 && i < v->json.snapshots; i++) {
        const struct cg_layers *layers = &v->json.snapshot[i].layers;
        size_t common = in_common(layers, head);
        r = begin_in(v, o, layers, common ? common - 1 : 0, err);
    }
    return r;
}

/* The head without the upper layer, with the lower one as it is now; NULL if it has neither. */
static int chain_of(struct cg_volume *v, const struct pair *p, struct cg_chain **ret,
                    struct cg_error *err)
{
    size_t count = cg_chain_count(v->head), kept = 0;
    CG_CLEANUP(cg_free) struct cg_layer **layers = calloc(count, sizeof *layers);
    struct cg_layer *lower;

    *ret = NULL;
    if (!layers)
        return cg_error_set(err, ENOMEM, "merge layers of %s", v->label);
    int r = open_locked(v, cg_layer_uuid(p->lower), &lower, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        struct cg_layer *layer = cg_chain_layer(v->head, i);
        if (layer != p->upper)
            layers[kept++] = layer == p->lower ? lower : layer;
    }
    if (kept < count) {
        *ret = cg_chain_new(cg_chain_size(v->head), layers, kept, cg_chain_parent(v->head));
        r = *ret ? 0 : cg_error_set(err, ENOMEM, "merge layers of %s", v->label);
    }
    cg_layer_unref(lower);
    return r;
}

static int drop(struct cg_volume *v, const struct pair *p, struct cg_error *err)
{
    const char *lower = cg_layer_uuid(p->lower), *upper = cg_layer_uuid(p->upper);
    struct cg_volume_json json;
    struct cg_chain *chain;
    int r = cg_volume_json_copy(&v->json, &json, err);

    if (r < 0)
        return r;
    r = chain_of(v, p, &chain, err);
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    cg_volume_json_drop(&json, upper);
    if (!cg_volume_json_mixed(&json, upper)) /* else so is what has its content now */
        cg_layers_remove(&json.mixed, lower);
    return cg_change_commit_locked(v, &json, chain, err);
}

/* With nobody else having one of the two, nobody can come who reads the upper one: who waits for it
 * finds that volume.json doesn't name it. */
static int end_pair(struct cg_volume *v, struct order *o, struct pair *p, struct cg_error *err)
{
    if (is_written(v, p->upper) || cg_layer_shared(p->lower) || cg_layer_shared(p->upper))
        return 0;
    bool alone = cg_layer_claim(p->lower);
    if (alone) {
        unlock(p->lower);
        alone = cg_layer_claim(p->upper);
    }
    if (!alone) {
        o->held = o->stopped = true;
        return 0;
    }
    int r = drop(v, p, err);
    if (r == 0)
        cg_layer_remove(v->dirfd, cg_layer_uuid(p->upper), v->run);
    else
        unlock(p->upper);
    return r;
}

/* o->work has been copied, and was kept from being written until now. */
static int end_locked(struct cg_volume *v, struct order *o, struct cg_error *err)
{
    char lower[CG_UUID_LEN + 1], upper[CG_UUID_LEN + 1];
    struct pair p;

    strcpy(lower, cg_layer_uuid(o->work.lower));
    strcpy(upper, cg_layer_uuid(o->work.upper));
    close_pair(&o->work);
    int r = cg_volume_check(v, err);
    if (r < 0 || !may_merge(v, lower, upper) || !cg_volume_json_mixed(&v->json, lower))
        return r;
    r = get_pair(v, lower, upper, &p, err);
    if (r == 0) {
        r = end_pair(v, o, &p, err);
        close_pair(&p);
    }
    return r;
}

static int tell(const struct order *o, uint64_t done, uint64_t total, struct cg_error *err)
{
    if (o->progress && o->progress(o->opaque, done, total))
        return cg_error_set(err, ECANCELED, "merge layers");
    return 0;
}

static int copy(struct order *o, int dirfd, const atomic_uint *reading,
                int (*report)(void *opaque, uint64_t done, uint64_t total, struct cg_error *err),
                void *opaque, struct cg_error *err)
{
    struct cg_merge_copy c = { dirfd, o->work.lower, o->work.upper, reading, report, opaque };
    int r = cg_merge_copy(&c, err);

    if (r != 0)
        close_pair(&o->work);
    if (r == -ENOSPC || r == -EDQUOT) {
        o->stopped = true;
        return 0;
    }
    return r;
}

/* The writer merges. */

static int report_writing(void *opaque, uint64_t done, uint64_t total, struct cg_error *err)
{
    return tell(opaque, done, total, err);
}

/* What has been copied, and what comes next, if anything. */
static int step_writing(struct cg_volume *v, struct order *o, struct cg_error *err)
{
    CG_LOCK(&v->change);
    int r = o->work.lower ? end_locked(v, o, err) : 0;

    if (r == 0)
        r = begin_locked(v, o, err);
    v->merging = r == 1;
    return r;
}

/* 1: to be done.  Who is at it already looks again after each pair. */
static int enter(struct cg_volume *v, struct cg_error *err)
{
    CG_LOCK(&v->change);
    if (v->lock_fd < 0)
        return cg_error_set(err, EAGAIN, "%s", v->label);
    if (v->merging)
        return 0;
    v->merging = true;
    return 1;
}

static int merge_writing(struct cg_volume *v, struct order *o, struct cg_error *err)
{
    int r = enter(v, err);

    while (r == 1) {
        r = step_writing(v, o, err);
        if (r != 1)
            break;
        r = copy(o, v->dirfd, &v->retired, report_writing, o, err);
        if (r == 0) {
            r = 1;
            continue;
        }
        CG_LOCK(&v->change);
        v->merging = false;
    }
    return r < 0 && r != -EAGAIN ? cg_error_prefix(err, r, "merge layers of %s", v->label) : r;
}

static int tell_caller(void *opaque, uint64_t done, uint64_t total)
{
    return cg_control_progress(opaque, done, total);
}

int cg_merge_answer(struct cg_volume *v, struct cg_control_call *call, json_t *answer,
                    struct cg_error *err)
{
    struct order o = { .progress = tell_caller, .opaque = call };
    int r = merge_writing(v, &o, err);

    if (r == 0 && o.held)
        json_object_set_new(answer, "held", json_true());
    return r;
}

static int ask(int dirfd, struct order *o, struct cg_error *err)
{
    struct cg_writer writer;
    json_t *request = json_pack("{s:s}", "op", "reclaim");
    json_t *answer = NULL;

    if (cg_writer_read(dirfd, &writer, NULL) < 0)
        writer.socket[0] = '\0';
    int r = *writer.socket ? cg_control_ask(writer.socket, request, CG_CONTROL_SILENCE, o->progress,
                                            o->opaque, &answer, err)
                           : cg_error_say(err, ECONNRESET, "the writer has no socket");
    if (r == 0)
        o->held = json_is_true(json_object_get(answer, "held"));
    json_decref(request);
    json_decref(answer);
    return r == -EAGAIN ? -ECONNRESET : r;
}

/* Nobody writes: this process merges. */

struct alone {
    struct order *order;
    int dirfd;
    bool overtaken; /* somebody has begun to write */
};

static int report_alone(void *opaque, uint64_t done, uint64_t total, struct cg_error *err)
{
    struct alone *a = opaque;
    int r = tell(a->order, done, total, err);

    if (r == 0 && cg_writer_alive(a->dirfd)) {
        a->overtaken = true;
        r = AGAIN;
    }
    return r;
}

/* The structure's share, in the moments in which this process has the lock. */
static int step_brief(struct cg_volume *v, struct order *o, struct cg_error *err)
{
    CG_LOCK(&v->change);
    int r = o->work.lower ? end_locked(v, o, err) : 0;

    return r < 0 ? r : begin_locked(v, o, err);
}

static int attempt_alone(struct cg_volume *v, int dirfd, struct order *o, struct cg_error *err)
{
    struct alone a = { o, dirfd, false };
    int r = step_brief(v, o, err);

    cg_volume_unref(v);
    if (r != 1)
        return r;
    r = copy(o, dirfd, NULL, report_alone, &a, err);
    return r < 0 ? r : AGAIN;
}

static int attempt(struct cg_volumes *space, const struct cg_name *name, struct order *o,
                   struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dirfd = -1;
    char text[CG_NAME_MAX];
    struct cg_volume *v;
    int r = cg_volume_open_dir(space, name, &dirfd, err);

    if (r < 0)
        return r;
    v = cg_volume_find(space, dirfd, true);
    if (v) {
        close_pair(&o->work);
        r = merge_writing(v, o, err);
        cg_volume_unref(v);
        return r == -EAGAIN ? -ECONNRESET : r;
    }
    r = cg_volume_open_brief(space, name, &v, err);
    if (r == -EBUSY) {
        close_pair(&o->work);
        return ask(dirfd, o, err);
    }
    if (r == 0)
        r = attempt_alone(v, dirfd, o, err);
    return r < 0 ? cg_error_prefix(err, r, "merge layers of %s", cg_name_text(name, true, text))
                 : r;
}

int cg_merge(struct cg_volumes *space, const struct cg_name *name,
             int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
             struct cg_error *err)
{
    struct order o = { .progress = progress, .opaque = opaque };
    unsigned lost = 0;
    int r;

    for (;;) {
        r = attempt(space, name, &o, err);
        if (r == AGAIN)
            lost = 0;
        else if (r != -ECONNRESET)
            break;
        else if (!cg_writer_wait(lost++)) {
            r = cg_error_say(err, EBUSY, "the writer does not answer");
            break;
        }
    }
    close_pair(&o.work);
    return r < 0 ? r : o.held;
}
