#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/change.h"
#include "core/volumes/flatten.h"
#include "core/volumes/list.h"
#include "core/volumes/make.h"
#include "core/volumes/merge.h"
#include "core/volumes/moment.h"
#include "core/volumes/pool_dir.h"
#include "core/volumes/volume.h"
#include "core/volumes/volumes.h"

static int check_volume(const struct cg_name *name, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    if (name->space != CG_NAME_VOLUMES || name->parts != 2)
        return cg_error_say(err, EINVAL, "%s is not the name of a volume",
                            cg_name_text(name, true, text));
    return 0;
}

static int check_head(const struct cg_name *name, const char *what, struct cg_error *err)
{
    char text[CG_NAME_MAX];
    int r = check_volume(name, err);

    if (r == 0 && *name->snapshot)
        r = cg_error_say(err, EINVAL, "%s %s: it is a snapshot, not a volume", what,
                         cg_name_text(name, true, text));
    return r;
}

static int check_snapshot(const struct cg_name *name, const char *what, struct cg_error *err)
{
    char text[CG_NAME_MAX];
    int r = check_volume(name, err);

    if (r == 0 && !*name->snapshot)
        r = cg_error_say(err, EINVAL, "%s %s: it is a volume, write VOLUME@SNAPSHOT", what,
                         cg_name_text(name, true, text));
    return r;
}

static int space_open(void *self, const struct cg_name *name, unsigned flags,
                      struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_volume *v;
    int r = check_volume(name, err);

    if (r == 0)
        r = cg_volume_open(self, name, flags, &v, err);
    if (r < 0)
        return r;
    r = cg_volume_image(v, !(flags & CG_OPEN_WRITE), ret_image, err);
    if (r < 0)
        cg_volume_unref(v);
    return r;
}

static int space_create(void *self, const struct cg_name *name, uint64_t size,
                        uint64_t original_size, struct cg_error *err)
{
    int r = check_head(name, "create", err);

    return r < 0 ? r : cg_make_empty(self, name, size, original_size, err);
}

static int space_snapshot(void *self, const struct cg_name *names, size_t count,
                          struct cg_error *err)
{
    struct cg_change change = { .op = CG_CHANGE_SNAPSHOT };
    int r = 0;

    for (size_t i = 0; r == 0 && i < count; i++)
        r = check_snapshot(&names[i], "snapshot", err);
    if (r < 0)
        return r;
    cg_moment_clean(self);
    if (count > 1)
        return cg_moment_snapshot(self, names, count, err);
    snprintf(change.snapshot, sizeof change.snapshot, "%s", names->snapshot);
    return cg_change(self, names, &change, NULL, err);
}

static int space_clone(void *self, const char *parent, const struct cg_name *name,
                       struct cg_error *err)
{
    int r = check_head(name, "clone to", err);

    if (r < 0)
        return r;
    cg_moment_clean(self);
    return cg_make_clone(self, parent, name, err);
}

static int space_rollback(void *self, const struct cg_name *name, struct cg_error *err)
{
    struct cg_change change = { .op = CG_CHANGE_ROLLBACK };
    int r = check_snapshot(name, "roll back to", err);

    if (r < 0)
        return r;
    cg_moment_clean(self);
    snprintf(change.snapshot, sizeof change.snapshot, "%s", name->snapshot);
    return cg_change(self, name, &change, NULL, err);
}

static int space_flatten(void *self, const struct cg_name *name, uint64_t rate,
                         int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                         struct cg_error *err)
{
    int r = check_head(name, "flatten", err);

    return r < 0 ? r : cg_flatten(self, name, rate, progress, opaque, err);
}

static int space_reclaim(void *self, const struct cg_name *name,
                         int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                         struct cg_error *err)
{
    struct cg_name head = *name;
    int r = check_volume(name, err);

    head.snapshot[0] = '\0';
    return r < 0 ? r : cg_merge(self, &head, progress, opaque, err);
}

static int space_resize(void *self, const struct cg_name *name, uint64_t size, struct cg_error *err)
{
    struct cg_change change = { .op = CG_CHANGE_RESIZE, .size = size };
    int r = check_head(name, "resize", err);

    return r < 0 ? r : cg_change(self, name, &change, NULL, err);
}

static int space_rename(void *self, const struct cg_name *from, const struct cg_name *to,
                        struct cg_error *err)
{
    char path[CG_NAME_MAX], text[CG_NAME_MAX];
    struct cg_volumes *space = self;
    struct stat st;
    int r = check_head(from, "rename", err);

    if (r == 0)
        r = check_head(to, "rename to", err);
    if (r < 0)
        return r;
    cg_moment_clean(self); /* which knows it by its name of now */
    cg_volume_dir_name(from, path);
    if (fstatat(space->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
        return cg_error_say(err, ENOENT, "there is no volume %s", cg_name_text(from, true, text));
    r = cg_pool_dir_publish(space, path, to, err);
    return r < 0 ? cg_error_prefix(err, r, "rename %s", cg_name_text(from, true, text)) : 0;
}

/* Snapshots that people made keep a volume; those of backups don't. */
static int check_snapshots(struct cg_volumes *space, const struct cg_name *name,
                           struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    struct cg_volume_json json;
    char text[CG_NAME_MAX];
    size_t count = 0;
    int r = cg_volume_open_dir(space, name, &fd, err);

    if (r < 0)
        return r;
    if (cg_volume_json_read(fd, &json, NULL, NULL) < 0)
        return 0; /* damaged: it can be deleted */
    for (size_t i = 0; i < json.snapshots; i++)
        count += !cg_name_own_snapshot(json.snapshot[i].name);
    cg_volume_json_clear(&json);
    if (count)
        return cg_error_say(err, ENOTEMPTY, "%s has %zu snapshot%s", cg_name_text(name, true, text),
                            count, count == 1 ? "" : "s");
    return 0;
}

static int space_remove(void *self, const struct cg_name *name, unsigned flags,
                        struct cg_error *err)
{
    struct cg_change change = { .op = CG_CHANGE_REMOVE_SNAPSHOT };
    int r = check_volume(name, err);

    if (r < 0)
        return r;
    cg_moment_clean(self);
    /* Also if this one is gone: what it held may not be.  And what is left of clones has layers. */
    cg_pool_dir_clean(self);
    if (*name->snapshot) {
        snprintf(change.snapshot, sizeof change.snapshot, "%s", name->snapshot);
        return cg_change(self, name, &change, NULL, err);
    }
    if (!(flags & CG_REMOVE_SNAPSHOTS))
        r = check_snapshots(self, name, err);
    return r < 0 ? r : cg_pool_dir_remove(self, name, err);
}

static int space_list(void *self, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
                      struct cg_error *err)
{
    return cg_list(self, prefix, fn, opaque, err);
}

static int space_usage(void *self, struct cg_space_usage *ret, struct cg_error *err)
{
    return cg_list_usage(self, ret, err);
}

static int space_info(void *self, const struct cg_name *name, json_t **ret_info,
                      struct cg_error *err)
{
    int r = check_volume(name, err);

    return r < 0 ? r : cg_list_info(self, name, ret_info, err);
}

static int space_identify(void *self, const struct cg_name *name, struct cg_identity *ret,
                          struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    struct cg_volume_json json;
    char text[CG_NAME_MAX];
    int r = check_volume(name, err);

    if (r == 0)
        r = cg_volume_open_dir(self, name, &fd, err);
    if (r == 0)
        r = cg_volume_json_read(fd, &json, NULL, err);
    if (r < 0)
        return r;
    struct cg_identity id = { .snapshot = "" };
    snprintf(id.image, sizeof id.image, "%s", json.uuid);
    if (*name->snapshot) {
        const struct cg_volume_snapshot *s = cg_volume_json_snapshot(&json, name->snapshot);
        if (s)
            snprintf(id.snapshot, sizeof id.snapshot, "%s", s->uuid);
        else
            r = cg_error_say(err, ENOENT, "there is no snapshot %s",
                             cg_name_text(name, true, text));
    }
    cg_volume_json_clear(&json);
    if (r == 0)
        *ret = id;
    return r;
}

static int diff_volumes(struct cg_volume *a, struct cg_volume *b, cg_extent_fn *fn, void *opaque,
                        struct cg_error *err)
{
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *from = cg_volume_head(a);
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *to = cg_volume_head(b);
    struct cg_layers below, all;
    int r = cg_volume_layers_of(from, &below, err);

    if (r < 0)
        return r;
    r = cg_volume_layers_of(to, &all, err);
    if (r == 0) {
        bool related = cg_layers_begin_with(&all, &below) && all.size >= below.size &&
                       !cg_chain_parent(from) == !cg_chain_parent(to);
        cg_layers_clear(&all);
        r = related ? 0 : cg_error_say(err, ENOTSUP, "the one did not come from the other");
    }
    if (r == 0)
        r = cg_chain_diff(to, below.count, below.size, fn, opaque, err);
    cg_layers_clear(&below);
    return r;
}

static int space_diff(void *self, const struct cg_name *from, const struct cg_name *to,
                      cg_extent_fn *fn, void *opaque, struct cg_error *err)
{
    struct cg_volume *a, *b;
    int r = check_snapshot(from, "compare with", err);

    if (r == 0)
        r = check_volume(to, err);
    if (r == 0)
        r = cg_volume_open(self, from, CG_OPEN_READ, &a, err);
    if (r < 0)
        return r;
    r = cg_volume_open(self, to, CG_OPEN_READ, &b, err);
    if (r == 0) {
        r = diff_volumes(a, b, fn, opaque, err);
        cg_volume_unref(b);
    }
    cg_volume_unref(a);
    return r;
}

static void space_close(void *self)
{
    struct cg_volumes *space = self;

    close(space->fd);
    pthread_mutex_destroy(&space->lock);
    pthread_cond_destroy(&space->settled);
    free(space);
}

static const struct cg_space_ops ops = {
    .list = space_list,
    .open = space_open,
    .identify = space_identify,
    .info = space_info,
    .usage = space_usage,
    .create = space_create,
    .snapshot = space_snapshot,
    .clone = space_clone,
    .rollback = space_rollback,
    .flatten = space_flatten,
    .reclaim = space_reclaim,
    .resize = space_resize,
    .rename = space_rename,
    .remove = space_remove,
    .diff = space_diff,
    .close = space_close,
};

int cg_volumes_open(const char *pool, const struct cg_parents *parents, struct cg_space **ret_space,
                    struct cg_error *err)
{
    struct cg_volumes *space = calloc(1, sizeof *space);

    if (!space)
        return cg_error_set(err, ENOMEM, "open pool %s", pool);
    space->parents = *parents;
    pthread_mutex_init(&space->lock, NULL);
    pthread_cond_init(&space->settled, NULL);
    space->fd = open(pool, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (space->fd < 0) {
        int r = cg_error_set(err, errno, "open pool %s", pool);
        pthread_mutex_destroy(&space->lock);
        pthread_cond_destroy(&space->settled);
        free(space);
        return r;
    }
    *ret_space = cg_space_new(CG_NAME_VOLUMES, &ops, space);
    if (!*ret_space) {
        space_close(space);
        return cg_error_set(err, ENOMEM, "open pool %s", pool);
    }
    return 0;
}
