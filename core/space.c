#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/space.h"

struct cg_space {
    enum cg_name_space kind;
    const struct cg_space_ops *ops;
    void *self; /* owned: ops->close frees it */
};

struct cg_space *cg_space_new(enum cg_name_space kind, const struct cg_space_ops *ops, void *self)
{
    struct cg_space *space = calloc(1, sizeof *space);

    if (space)
        *space = (struct cg_space){ kind, ops, self };
    return space;
}

void cg_space_free(struct cg_space *space)
{
    if (!space)
        return;
    space->ops->close(space->self);
    free(space);
}

static int cannot(struct cg_space *space, const char *what, struct cg_error *err)
{
    return cg_error_say(err, ENOTSUP, "%s: not possible in %s/", what,
                        cg_name_space_text(space->kind));
}

bool cg_space_in_project(struct cg_space *space, const struct cg_name *name, bool prefix,
                         const char *project)
{
    if (space->ops->in_project)
        return space->ops->in_project(space->self, name, prefix, project);
    return strcmp(name->part[0], project) == 0;
}

double cg_space_audit(struct cg_space *space)
{
    return space->ops->audit ? space->ops->audit(space->self) : 0;
}

size_t cg_space_hidden(struct cg_space *space)
{
    return space->ops->hidden ? space->ops->hidden(space->self) : 0;
}

int cg_space_list(struct cg_space *space, const struct cg_name *prefix, cg_entry_fn *fn,
                  void *opaque, struct cg_error *err)
{
    if (!space->ops->list)
        return cannot(space, "list", err);
    return space->ops->list(space->self, prefix, fn, opaque, err);
}

int cg_space_open(struct cg_space *space, const struct cg_name *name, unsigned flags,
                  struct cg_image **ret_image, struct cg_error *err)
{
    if (!space->ops->open)
        return cannot(space, "open", err);
    return space->ops->open(space->self, name, flags, ret_image, err);
}

int cg_space_resolve(struct cg_space *space, struct cg_name *name, struct cg_error *err)
{
    if (!space->ops->resolve)
        return 0;
    return space->ops->resolve(space->self, name, err);
}

int cg_space_identify(struct cg_space *space, const struct cg_name *name, struct cg_identity *ret,
                      struct cg_error *err)
{
    if (!space->ops->identify)
        return cannot(space, "identify", err);
    return space->ops->identify(space->self, name, ret, err);
}

int cg_space_info(struct cg_space *space, const struct cg_name *name, json_t **ret_info,
                  struct cg_error *err)
{
    if (!space->ops->info)
        return cannot(space, "info", err);
    return space->ops->info(space->self, name, ret_info, err);
}

int cg_space_usage(struct cg_space *space, struct cg_space_usage *ret, struct cg_error *err)
{
    if (!space->ops->usage)
        return cannot(space, "usage", err);
    return space->ops->usage(space->self, ret, err);
}

int cg_space_create(struct cg_space *space, const struct cg_name *name, uint64_t size,
                    uint64_t original_size, struct cg_error *err)
{
    if (!space->ops->create)
        return cannot(space, "create", err);
    return space->ops->create(space->self, name, size, original_size, err);
}

int cg_space_snapshot(struct cg_space *space, const struct cg_name *names, size_t count,
                      struct cg_error *err)
{
    if (!space->ops->snapshot)
        return cannot(space, "snapshot", err);
    return space->ops->snapshot(space->self, names, count, err);
}

int cg_space_clone(struct cg_space *space, const char *parent, const struct cg_name *name,
                   struct cg_error *err)
{
    if (!space->ops->clone)
        return cannot(space, "clone", err);
    return space->ops->clone(space->self, parent, name, err);
}

int cg_space_rollback(struct cg_space *space, const struct cg_name *snapshot, struct cg_error *err)
{
    if (!space->ops->rollback)
        return cannot(space, "rollback", err);
    return space->ops->rollback(space->self, snapshot, err);
}

int cg_space_flatten(struct cg_space *space, const struct cg_name *name, uint64_t rate,
                     int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                     struct cg_error *err)
{
    if (!space->ops->flatten)
        return cannot(space, "flatten", err);
    return space->ops->flatten(space->self, name, rate, progress, opaque, err);
}

int cg_space_reclaim(struct cg_space *space, const struct cg_name *name,
                     int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                     struct cg_error *err)
{
    return space->ops->reclaim ? space->ops->reclaim(space->self, name, progress, opaque, err) : 0;
}

int cg_space_resize(struct cg_space *space, const struct cg_name *name, uint64_t size,
                    struct cg_error *err)
{
    if (!space->ops->resize)
        return cannot(space, "resize", err);
    return space->ops->resize(space->self, name, size, err);
}

int cg_space_rename(struct cg_space *space, const struct cg_name *from, const struct cg_name *to,
                    struct cg_error *err)
{
    if (!space->ops->rename)
        return cannot(space, "rename", err);
    return space->ops->rename(space->self, from, to, err);
}

int cg_space_remove(struct cg_space *space, const struct cg_name *name, unsigned flags,
                    struct cg_error *err)
{
    if (!space->ops->remove)
        return cannot(space, "remove", err);
    return space->ops->remove(space->self, name, flags, err);
}

int cg_space_diff(struct cg_space *space, const struct cg_name *from, const struct cg_name *to,
                  cg_extent_fn *fn, void *opaque, struct cg_error *err)
{
    if (!space->ops->diff)
        return cannot(space, "diff", err);
    return space->ops->diff(space->self, from, to, fn, opaque, err);
}

int cg_space_freeze(struct cg_space *space, struct cg_name *name, struct cg_error *err)
{
    return space->ops->freeze ? space->ops->freeze(space->self, name, err) : 0;
}

int cg_space_find(struct cg_space *space, const struct cg_identity *identity, struct cg_name *name,
                  struct cg_error *err)
{
    if (!space->ops->find)
        return cannot(space, "find by identity", err);
    return space->ops->find(space->self, identity, name, err);
}

int cg_space_hold(struct cg_space *space, const struct cg_name *name, const char *uuid,
                  struct cg_error *err)
{
    if (!space->ops->hold)
        return cannot(space, "hold", err);
    return space->ops->hold(space->self, name, uuid, err);
}

int cg_space_release(struct cg_space *space, const struct cg_name *name, const char *uuid,
                     struct cg_error *err)
{
    if (!space->ops->release)
        return cannot(space, "release", err);
    return space->ops->release(space->self, name, uuid, err);
}

int cg_space_migrate_stream(struct cg_space *space, const struct cg_name *name, const char *stream,
                            struct cg_error *err)
{
    if (!space->ops->migrate_stream)
        return cannot(space, "migrate", err);
    return space->ops->migrate_stream(space->self, name, stream, err);
}

int cg_space_migrate_prepare(struct cg_space *space, const struct cg_name *name, const char *spec,
                             struct cg_error *err)
{
    if (!space->ops->migrate_prepare)
        return cannot(space, "migrate", err);
    return space->ops->migrate_prepare(space->self, name, spec, err);
}

int cg_space_migrate_step(struct cg_space *space, const struct cg_name *name,
                          enum cg_migration_step step,
                          int (*progress)(void *opaque, uint64_t done, uint64_t total),
                          void *opaque, struct cg_error *err)
{
    if (!space->ops->migrate_step)
        return cannot(space, "migrate", err);
    return space->ops->migrate_step(space->self, name, step, progress, opaque, err);
}

int cg_space_migrate_status(struct cg_space *space, const struct cg_name *name,
                            const char *image_id, const char *spec, struct cg_migration_status *ret,
                            struct cg_error *err)
{
    if (!space->ops->migrate_status)
        return cannot(space, "migrate", err);
    return space->ops->migrate_status(space->self, name, image_id, spec, ret, err);
}
