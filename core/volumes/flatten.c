#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/bulk.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/change.h"
#include "core/volumes/flatten.h"

#define PIECE ((size_t)1 << 20)

struct fill {
    struct cg_image *parent;
    struct cg_layer *layer;
    uint64_t size; /* of the parent */
    uint64_t next; /* what lies before is done; a multiple of CG_BLOCK */
    uint8_t *buf;  /* PIECE bytes */
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

/* Writes what isn't zero of len bytes, whole blocks. */
static int put(struct fill *f, size_t len, struct cg_error *err)
{
    for (size_t at = 0, n; at < len; at += n) {
        bool zero;
        n = cg_zero_run(f->buf + at, len - at, CG_BLOCK, &zero);
        int r =
            zero ? 0
                 : cg_layer_write(f->layer, f->buf + at, n, f->next + at, CG_BULK, NULL, NULL, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int fill_extent(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct fill *f = opaque;
    uint64_t end = cg_round_up(e->off + e->len, CG_BLOCK);

    if (e->type != CG_DATA)
        return 0;
    f->next = cg_max(f->next, cg_round_down(e->off, CG_BLOCK));
    while (f->next < end) {
        size_t len = (size_t)cg_min(PIECE, end - f->next);
        size_t n = (size_t)cg_min(len, f->size - f->next);
        if (f->progress && f->progress(f->opaque, f->next, f->size))
            return cg_error_set(err, ECANCELED, "flatten");
        memset(f->buf + n, 0, len - n);
        int r = cg_image_pread(f->parent, f->buf, n, f->next, err);
        if (r == 0)
            r = put(f, len, err);
        if (r < 0)
            return r;
        f->next += len;
    }
    return 0;
}

static int fill(struct fill *f, struct cg_error *err)
{
    f->buf = cg_bulk_buffer(PIECE);
    if (!f->buf)
        return cg_error_set(err, ENOMEM, "flatten");
    int r = cg_image_walk(f->parent, 0, f->size, fill_extent, f, err);
    free(f->buf);
    if (r == 0 && f->progress && f->progress(f->opaque, f->size, f->size))
        r = cg_error_set(err, ECANCELED, "flatten");
    return r;
}

/* volume.json with uuid below everything and the parent to be released. */
static int flat_json(struct cg_volume *v, const char *uuid, struct cg_volume_json *ret,
                     struct cg_error *err)
{
    struct cg_volume_json json;
    int r = cg_volume_json_copy(&v->json, &json, err);

    if (r < 0)
        return r;
    strcpy(json.release, json.parent);
    strcpy(json.release_uuid, json.uuid);
    json.parent[0] = json.parent_identity[0] = '\0';
    json.parent_size = 0;
    r = cg_layers_insert(&json.head, uuid, err);
    for (size_t i = 0; r == 0 && i < json.snapshots; i++)
        r = cg_layers_insert(&json.snapshot[i].layers, uuid, err);
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    *ret = json;
    return 0;
}

static struct cg_chain *flat_chain(struct cg_chain *head, struct cg_layer *lowest)
{
    size_t count = cg_chain_count(head);
    struct cg_layer **layers = calloc(count + 1, sizeof *layers);

    if (!layers)
        return NULL;
    layers[0] = lowest;
    for (size_t i = 0; i < count; i++)
        layers[i + 1] = cg_chain_layer(head, i);
    struct cg_chain *chain = cg_chain_new(cg_chain_size(head), layers, count + 1, NULL);
    free(layers);
    return chain;
}

/* The layer is whole: it takes the parent's place. */
static int swap(struct cg_volume *v, struct cg_layer *layer, struct cg_error *err)
{
    struct cg_volume_json json;
    CG_LOCK(&v->change);

    if (atomic_load(&v->failed) < 0)
        return cg_error_say(err, EIO, "%s takes no writes until it's opened again", v->label);
    int r = flat_json(v, cg_layer_uuid(layer), &json, err);
    if (r < 0)
        return r;
    struct cg_chain *chain = flat_chain(v->head, layer);
    if (!chain) {
        cg_volume_json_clear(&json);
        return cg_error_set(err, ENOMEM, "flatten %s", v->label);
    }
    return cg_change_commit_locked(v, &json, chain, err);
}

static int fill_layer(struct cg_volume *v, struct fill *f, const char *uuid, struct cg_error *err)
{
    struct cg_error ignored;
    int r = cg_layer_open(v->dirfd, uuid, &f->layer, err);

    if (r < 0)
        return r;
    r = cg_layer_lock(f->layer, LOCK_SH, err);
    if (r == 0)
        r = cg_layer_begin(f->layer, v->run, err);
    if (r == 0)
        r = fill(f, err);
    if (r == 0)
        r = cg_layer_end(f->layer, err);
    else
        cg_layer_end(f->layer, &ignored);
    if (r == 0)
        r = swap(v, f->layer, err);
    cg_layer_unref(f->layer);
    return r;
}

static int flatten(struct cg_volume *v, struct fill *f, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];

    cg_uuid(uuid);
    f->size = cg_image_size(f->parent);
    int r = cg_layer_create(v->dirfd, uuid, cg_round_up(f->size, CG_SECTOR), err);
    if (r < 0)
        return r;
    r = cg_dir_sync(v->dirfd, ".", err);
    if (r == 0)
        r = fill_layer(v, f, uuid, err);
    if (r < 0 && atomic_load(&v->failed) == 0)
        cg_layer_remove(v->dirfd, uuid, v->run);
    return r;
}

/* 1, and the parent, if there is one. */
static int enter(struct cg_volume *v, struct cg_parent **ret_parent, struct cg_error *err)
{
    CG_LOCK(&v->change);
    if (v->lock_fd < 0)
        return cg_error_set(err, EAGAIN, "%s", v->label);
    if (!*v->json.parent)
        return 0;
    if (v->flattening)
        return cg_error_say(err, EBUSY, "%s is being flattened already", v->label);
    v->flattening = true;
    *ret_parent = cg_parent_ref(cg_chain_parent(v->head));
    return 1;
}

int cg_flatten_finish_locked(struct cg_volume *v, struct cg_error *err)
{
    struct cg_volume_json json;

    if (!*v->json.release)
        return 0;
    if (atomic_load(&v->failed) < 0)
        return cg_error_say(err, EIO, "%s takes no writes until it's opened again", v->label);
    if (!cg_parent_unused(v->dirfd))
        return 1;
    int r = cg_parent_release(v->space, &v->json, err);
    if (r == 0)
        r = cg_volume_json_copy(&v->json, &json, err);
    if (r < 0)
        return r;
    json.release[0] = json.release_uuid[0] = '\0';
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
            return 0;
    }
}

static int flatten_volume(struct cg_volume *v, struct fill *f, struct cg_error *err)
{
    struct cg_parent *parent = NULL;
    int r = enter(v, &parent, err);

    if (r < 0)
        return r;
    if (r > 0) {
        f->parent = cg_parent_image(parent);
        r = flatten(v, f, err);
        cg_parent_unref(parent);
        pthread_mutex_lock(&v->change);
        v->flattening = false;
        pthread_mutex_unlock(&v->change);
        if (r < 0)
            return cg_error_prefix(err, r, "flatten %s", v->label);
    }
    return finish(v, err);
}

static int tell(void *opaque, uint64_t done, uint64_t total)
{
    return cg_control_progress(opaque, done, total);
}

int cg_flatten_answer(struct cg_volume *v, struct cg_control_call *call, struct cg_error *err)
{
    struct fill f = { .progress = tell, .opaque = call };

    return flatten_volume(v, &f, err);
}

static int ask(int dirfd, int (*progress)(void *opaque, uint64_t done, uint64_t total),
               void *opaque, struct cg_error *err)
{
    struct cg_writer writer;
    json_t *request = json_pack("{s:s}", "op", "flatten"), *answer = NULL;

    if (cg_writer_read(dirfd, &writer, NULL) < 0)
        writer.socket[0] = '\0';
    int r = *writer.socket ? cg_control_ask(writer.socket, request, CG_CONTROL_SILENCE, progress,
                                            opaque, &answer, err)
                           : cg_error_say(err, ECONNRESET, "the writer has no socket");
    json_decref(request);
    json_decref(answer);
    return r == -EAGAIN ? -ECONNRESET : r;
}

static int attempt(struct cg_volumes *space, const struct cg_name *name, struct fill *f,
                   struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dirfd = -1;
    struct cg_volume *v;
    int r = cg_volume_open_dir(space, name, &dirfd, err);

    if (r < 0)
        return r;
    r = cg_volume_open(space, name, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &v, err);
    if (r == -EBUSY)
        return ask(dirfd, f->progress, f->opaque, err);
    if (r < 0)
        return r;
    r = flatten_volume(v, f, err);
    cg_volume_unref(v);
    return r == -EAGAIN ? -ECONNRESET : r;
}

int cg_flatten(struct cg_volumes *space, const struct cg_name *name,
               int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
               struct cg_error *err)
{
    for (unsigned i = 0;; i++) {
        struct fill f = { .progress = progress, .opaque = opaque };
        int r = attempt(space, name, &f, err);
        if (r != -ECONNRESET)
            return r;
        if (!cg_writer_wait(i))
            return cg_error_say(err, EBUSY, "the writer does not answer");
    }
}
