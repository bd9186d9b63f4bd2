#include "config.h"

#include <errno.h>
#include <fcntl.h>
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
#include "core/volumes/layer.h"
#include "core/volumes/make.h"
#include "core/volumes/pool_dir.h"
#include "core/volumes/volume.h"
#include "core/volumes/writer.h"

/* A volume that is being made. */
struct making {
    struct cg_volumes *space;
    char path[CG_NAME_MAX]; /* relative to the pool */
    int fd;
    struct cg_volume_json json;
};

/* With the result so far, which it returns: after a failure nothing of the volume stays. */
static int making_end(struct making *m, int r)
{
    cg_close(&m->fd);
    cg_volume_json_clear(&m->json);
    if (r < 0)
        cg_pool_dir_clean(m->space);
    return r;
}

static void making_begin(struct making *m, struct cg_volumes *space)
{
    *m = (struct making){ .space = space, .fd = -1 };
    cg_uuid(m->json.uuid);
    m->json.created = time(NULL);
}

/* Gives the volume an empty top layer, and itself. */
static int write_volume(struct making *m, uint64_t size, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];

    cg_uuid(uuid);
    m->json.head.size = size;
    int r = cg_layers_add(&m->json.head, uuid, err);
    if (r == 0)
        r = cg_layer_create(m->fd, uuid, size, err);
    if (r == 0)
        r = cg_volume_json_write(m->fd, &m->json, err);
    return r;
}

static int make_empty(struct cg_volumes *space, const struct cg_name *name, uint64_t size,
                      uint64_t original_size, struct cg_error *err)
{
    struct making m;

    making_begin(&m, space);
    m.json.original_size = original_size;
    int r = cg_pool_dir_make(space, name->part[0], m.path, &m.fd, err);
    if (r == 0) {
        r = write_volume(&m, size, err);
        if (r == 0)
            r = cg_pool_dir_publish(space, m.path, name, err);
    }
    return making_end(&m, r);
}

/* A draft that an interrupted job left: 1 if it's of those sizes and can be gone on with; else it's
 * removed. */
static int reuse_draft(struct cg_volumes *space, const struct cg_name *name, uint64_t size,
                       uint64_t original_size, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    struct cg_volume_json json;
    int r = cg_volume_open_dir(space, name, &fd, NULL);

    if (r < 0)
        return r == -ENOENT ? 0 : cg_error_set(err, -r, "open the draft");
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return cg_error_say(err, EBUSY, "it is being filled by another process");
    bool same = cg_volume_json_read(fd, &json, NULL, NULL) == 0;
    if (same) {
        same = json.head.size == size && json.original_size == original_size;
        cg_volume_json_clear(&json);
    }
    if (same)
        return 1;
    cg_close(&fd);
    fd = -1;
    return cg_pool_dir_remove(space, name, err);
}

static int check_size(uint64_t size, struct cg_error *err)
{
    if (size == 0 || size % CG_SECTOR || size > CG_IMAGE_MAX)
        return cg_error_say(err, EINVAL, "%llu bytes are not a size that a volume can have",
                            (unsigned long long)size);
    return 0;
}

int cg_make_empty(struct cg_volumes *space, const struct cg_name *name, uint64_t size,
                  uint64_t original_size, struct cg_error *err)
{
    struct cg_name final = *name;
    char text[CG_NAME_MAX];
    int r = check_size(size, err);

    final.draft = false;
    if (r == 0) /* also for a draft: better now than when it has been filled */
        r = cg_pool_dir_check_free(space, &final, err);
    if (r == 0 && name->draft)
        r = reuse_draft(space, name, size, original_size, err);
    if (r == 0) {
        cg_pool_dir_clean(space);
        r = make_empty(space, name, size, original_size, err);
    }
    return r < 0 ? cg_error_prefix(err, r, "create %s", cg_name_text(name, true, text)) : 0;
}

/* Hard links to the layers of the volume in from; the file system counts who needs them. */
static int link_layers(struct making *m, int from, const struct cg_layers *layers,
                       struct cg_error *err)
{
    static const char *const suffixes[] = { "data", "map" };

    for (size_t i = 0; i < layers->count; i++) {
        for (size_t k = 0; k < 2; k++) {
            char name[CG_UUID_LEN + 6];
            snprintf(name, sizeof name, "%s.%s", layers->uuid[i], suffixes[k]);
            if (linkat(from, name, m->fd, name, 0) < 0)
                return cg_error_set(err, errno, "link %s", name);
        }
    }
    return 0;
}

static int snapshot_layers(const struct cg_volume_json *json, const struct cg_name *parent,
                           struct cg_layers *ret, struct cg_error *err)
{
    const struct cg_volume_snapshot *s = cg_volume_json_snapshot(json, parent->snapshot);
    char text[CG_NAME_MAX];

    if (!s)
        return cg_error_say(err, ENOENT, "there is no snapshot %s",
                            cg_name_text(parent, true, text));
    return cg_layers_copy(&s->layers, ret, err);
}

static int head_layers(struct cg_volumes *space, const struct cg_name *parent,
                       struct cg_layers *ret, struct cg_error *err)
{
    struct cg_change seal = { .op = CG_CHANGE_SEAL };

    return cg_change(space, parent, &seal, ret, err);
}

/* The sealed layers that the clone is to stand on. */
static int choose_layers(struct cg_volumes *space, const struct cg_name *parent, int dirfd,
                         struct cg_layers *ret, struct cg_error *err)
{
    struct cg_volume_json json;

    if (!*parent->snapshot)
        return head_layers(space, parent, ret, err);
    int r = cg_volume_json_read(dirfd, &json, NULL, err);
    if (r == 0) {
        r = snapshot_layers(&json, parent, ret, err);
        cg_volume_json_clear(&json);
    }
    return r;
}

static bool are_same(const struct cg_layers *a, const struct cg_layers *b)
{
    return a->count == b->count && cg_layers_begin_with(a, b);
}

/* What the volume in dirfd says of itself.  -EAGAIN: the layers aren't its head's or the snapshot's
 * any more. */
static int check_layers(const struct cg_name *parent, int dirfd, const struct cg_layers *layers,
                        struct cg_volume_json *ret, struct cg_error *err)
{
    struct cg_volume_json json;
    int r = cg_volume_json_read(dirfd, &json, NULL, err);

    if (r < 0)
        return r;
    const struct cg_volume_snapshot *s =
        *parent->snapshot ? cg_volume_json_snapshot(&json, parent->snapshot) : NULL;
    if (s ? are_same(&s->layers, layers)
          : !*parent->snapshot && cg_volume_json_shows(&json, layers)) {
        *ret = json;
        return 0;
    }
    cg_volume_json_clear(&json);
    return cg_error_set(err, EAGAIN, "read the chain");
}

/* Holds what the new volume stands on, durably, before anybody sees the volume. */
static int finish(struct making *m, const struct cg_name *name, uint64_t size, struct cg_error *err)
{
    struct cg_volumes *space = m->space;
    int r = write_volume(m, size, err);

    if (r == 0 && *m->json.parent)
        r = space->parents.hold(space->parents.opaque, m->json.parent, m->json.parent_identity,
                                m->json.uuid, err);
    return r < 0 ? r : cg_pool_dir_publish(space, m->path, name, err);
}

/* With the top one locked, so that nobody writes into it or merges the one above into it.  A layer
 * that is to replace others has nothing but what they have, and is left out. */
static int link_locked(struct making *m, const struct cg_name *parent, int from,
                       struct cg_layers *layers, struct cg_volume_json *ret_json,
                       struct cg_error *err)
{
    int r = check_layers(parent, from, layers, ret_json, err);

    if (r < 0)
        return r;
    if (cg_volume_json_gathers(ret_json)) {
        cg_layers_remove(layers, ret_json->filling);
        ret_json->filling[0] = '\0';
    }
    r = link_layers(m, from, layers, err);
    if (r < 0) {
        for (size_t i = 0; i < layers->count; i++)
            cg_layer_remove(m->fd, layers->uuid[i], NULL);
        cg_volume_json_clear(ret_json);
    }
    return r;
}

/* Gives the new volume the parent's layers.  -EAGAIN: they changed meanwhile, by a flatten, a
 * rollback or a merge; nothing of them is there. */
static int take_layers(struct making *m, const struct cg_name *parent, int from,
                       struct cg_volume_json *ret_json, struct cg_error *err)
{
    struct cg_layers layers;
    struct cg_layer **open;
    int r = choose_layers(m->space, parent, from, &layers, err);

    if (r < 0)
        return r;
    struct cg_layers top = { layers.size, 1, layers.uuid + layers.count - 1 };
    r = cg_volume_open_layers(from, &top, true, &open, err);
    if (r == 0) {
        r = link_locked(m, parent, from, &layers, ret_json, err);
        cg_volume_close_layers(open, 1);
    }
    if (r < 0) {
        cg_layers_clear(&layers);
        return r == -ENOENT ? -EAGAIN : r;
    }
    m->json.head = layers;
    return 0;
}

static int clone_into(struct making *m, const struct cg_name *parent, const struct cg_name *name,
                      struct cg_error *err)
{
    CG_CLEANUP(cg_close) int from = -1;
    struct cg_volume_json json;
    int r = cg_volume_open_dir(m->space, parent, &from, err);

    if (r < 0)
        return r;
    for (unsigned attempt = 0;; attempt++) {
        r = take_layers(m, parent, from, &json, err);
        if (r != -EAGAIN || !cg_writer_wait(attempt))
            break;
    }
    if (r < 0)
        return r;
    uint64_t size = m->json.head.size;
    strcpy(m->json.parent, json.parent);
    strcpy(m->json.parent_identity, json.parent_identity);
    m->json.parent_size = json.parent_size;
    strcpy(m->json.filling, json.filling);
    m->json.original_size = cg_volume_json_original_size(&json, size);
    m->json.depth = json.depth + 1;
    cg_volume_json_clear(&json);
    r = cg_layers_copy(&m->json.head, &m->json.inherited, err);
    if (r == 0)
        r = finish(m, name, size, err);
    return r < 0 ? r : m->json.depth > CG_DEPTH_MAX;
}

static int clone_volume(struct cg_volumes *space, const struct cg_name *parent,
                        const struct cg_name *name, struct cg_error *err)
{
    struct making m;

    making_begin(&m, space);
    int r = cg_pool_dir_make(space, name->part[0], m.path, &m.fd, err);
    if (r == 0)
        r = clone_into(&m, parent, name, err);
    return making_end(&m, r);
}

/* The parent's size; it's opened only for that. */
static int learn_parent(struct making *m, const char *parent, uint64_t *ret_size,
                        struct cg_error *err)
{
    const struct cg_parents *parents = &m->space->parents;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    int r = parents->resolve(parents->opaque, parent, m->json.parent, m->json.parent_identity, err);

    if (r == 0)
        r = parents->open(parents->opaque, m->json.parent, m->json.parent_identity, &image, err);
    if (r < 0)
        return r;
    m->json.parent_size = cg_image_size(image);
    m->json.original_size = cg_image_original_size(image);
    m->json.depth = 1;
    *ret_size = cg_round_up(m->json.parent_size, CG_SECTOR);
    return check_size(*ret_size, err);
}

static int clone_other(struct cg_volumes *space, const char *parent, const struct cg_name *name,
                       struct cg_error *err)
{
    struct making m;
    uint64_t size;

    making_begin(&m, space);
    int r = learn_parent(&m, parent, &size, err);
    if (r == 0)
        r = cg_pool_dir_make(space, name->part[0], m.path, &m.fd, err);
    if (r == 0)
        r = finish(&m, name, size, err);
    if (r < 0 && *m.json.parent)
        space->parents.release(space->parents.opaque, m.json.parent, m.json.parent_identity,
                               m.json.uuid, NULL);
    return making_end(&m, r);
}

static int clone_any(struct cg_volumes *space, const char *parent, const struct cg_name *name,
                     struct cg_error *err)
{
    struct cg_name from;

    if (cg_arg_kind(parent) != CG_ARG_NAME)
        return clone_other(space, parent, name, err);
    int r = cg_name_parse(parent, &from, err);
    if (r < 0)
        return r;
    if (from.space != CG_NAME_VOLUMES)
        return clone_other(space, parent, name, err);
    if (from.partition)
        return cg_error_say(err, EINVAL,
                            "a partition of a volume can't be cloned: clone the volume, then use "
                            ".p%u of the clone",
                            from.partition);
    return clone_volume(space, &from, name, err);
}

int cg_make_clone(struct cg_volumes *space, const char *parent, const struct cg_name *name,
                  struct cg_error *err)
{
    char text[CG_NAME_MAX];
    int r = cg_pool_dir_check_free(space, name, err);

    if (r == 0) {
        cg_pool_dir_clean(space);
        r = clone_any(space, parent, name, err);
    }
    return r < 0 ? cg_error_prefix(err, r, "clone %s to %s", parent, cg_name_text(name, true, text))
                 : r;
}
