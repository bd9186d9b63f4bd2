#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/backups/history_points.h"
#include "core/backups/holds.h"
#include "core/backups/repository.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"

/* Thread model: nothing here but a pointer to the repository. */

struct backups {
    struct cg_repository *repo;
};

static int check_point_name(const struct cg_name *name, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    if (name->parts != CG_PARTS || name->snapshot[0])
        return cg_error_say(err, EINVAL, "%s names no point", cg_name_text(name, true, text));
    return 0;
}

/* The project and the point that name stands for; latest is looked up. */
static int find_point(struct backups *b, const struct cg_name *name,
                      struct cg_project **ret_project, struct cg_point **ret_point,
                      struct cg_error *err)
{
    char point[CG_PART_MAX + 1];

    int r = check_point_name(name, err);
    if (r < 0)
        return r;
    r = cg_repository_project(b->repo, name->part[0], false, ret_project, err);
    if (r < 0)
        return r;
    snprintf(point, sizeof point, "%s", name->part[2]);
    if (strcmp(point, "latest") == 0) {
        struct cg_point *head;
        r = cg_project_latest(*ret_project, name->part[1], &head, err);
        if (r < 0)
            return r;
        snprintf(point, sizeof point, "%s", head->name);
        cg_point_free(head);
    }
    return cg_project_point(*ret_project, name->part[1], point, ret_point, err);
}

static int backups_open(void *self, const struct cg_name *name, unsigned flags,
                        struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_project *project;
    struct cg_point *point;

    (void)flags; /* what can only be read is read-only, whatever was asked for */
    int r = find_point(self, name, &project, &point, err);
    if (r < 0 || !name->qcow2)
        return r < 0 ? r : cg_point_image(project, point, ret_image, err);
    r = cg_history_image(project, point->volume, point->name, ret_image, err);
    cg_point_free(point);
    return r;
}

static int backups_resolve(void *self, struct cg_name *name, struct cg_error *err)
{
    struct backups *b = self;
    struct cg_project *project;
    struct cg_point *head;

    if (name->parts != CG_PARTS || strcmp(name->part[2], "latest") != 0)
        return 0;
    int r = cg_repository_project(b->repo, name->part[0], false, &project, err);
    if (r == 0)
        r = cg_project_latest(project, name->part[1], &head, err);
    if (r < 0)
        return r;
    snprintf(name->part[2], sizeof name->part[2], "%s", head->name);
    cg_point_free(head);
    return 0;
}

static int backups_identify(void *self, const struct cg_name *name, struct cg_identity *ret,
                            struct cg_error *err)
{
    struct cg_project *project;
    CG_CLEANUP(cg_point_cleanup) struct cg_point *point = NULL;

    int r = find_point(self, name, &project, &point, err);
    if (r < 0)
        return r;
    /* A session makes one point. */
    struct cg_identity id = { .snapshot = "" };
    snprintf(id.image, sizeof id.image, "%s", point->session);
    if (name->qcow2)
        r = cg_history_identify(project, point->volume, point->name, id.snapshot, err);
    if (r == 0)
        *ret = id;
    return r;
}

static int history_info(struct cg_project *project, const struct cg_point *p, json_t **ret_info,
                        struct cg_error *err)
{
    CG_CLEANUP(cg_history_points_clear) struct cg_history_points points;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    json_t *names = json_array();

    int r = cg_history_points(project, p->volume, p->name, &points, err);
    for (size_t i = 0; r == 0 && i < points.count; i++)
        json_array_append_new(names, json_string(points.v[i].name));
    if (r == 0)
        r = cg_history_image(project, p->volume, p->name, &image, err);
    json_t *info =
        r < 0 ? NULL
              : json_pack("{s:o, s:s, s:I, s:I, s:I, s:O, s:b}", "name",
                          json_sprintf("backups/%s/%s/%s.qcow2", p->project, p->volume, p->name),
                          "type", "history", "size", (json_int_t)cg_image_size(image),
                          "virtual_size", (json_int_t)p->size, "time", (json_int_t)p->time,
                          "points", names, "read_only", 1);
    json_decref(names);
    if (r == 0 && !info)
        r = cg_error_set(err, ENOMEM, "describe a history");
    if (r == 0)
        *ret_info = info;
    return r;
}

static int backups_info(void *self, const struct cg_name *name, json_t **ret_info,
                        struct cg_error *err)
{
    struct cg_project *project;
    CG_CLEANUP(cg_point_cleanup) struct cg_point *p = NULL;
    char text[CG_NAME_MAX];

    int r = find_point(self, name, &project, &p, err);
    if (r < 0)
        return r;
    if (name->qcow2)
        return history_info(project, p, ret_info, err);
    snprintf(text, sizeof text, "backups/%s/%s/%s", p->project, p->volume, p->name);
    json_t *info =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:{s:o, s:s, s:s, s:s}, s:s, s:s, s:s, s:I, s:b}",
                  "name", text, "type", "point", "size", (json_int_t)p->size, "original_size",
                  (json_int_t)p->original_size, "sequence", (json_int_t)p->sequence, "time",
                  (json_int_t)p->time, "source", "text", cg_point_text(p->source.text), "image",
                  p->source.identity.image, "snapshot", p->source.identity.snapshot,
                  "snapshot_name", p->source.snapshot, "parent", p->parent, "tool", p->tool,
                  "session", p->session, "era", (json_int_t)p->era, "read_only", 1);
    if (!info)
        return cg_error_set(err, ENOMEM, "describe %s", text);
    *ret_info = info;
    return 0;
}

struct listing {
    struct cg_project *project;
    const char *volume;
    cg_entry_fn *fn;
    void *opaque;
    int ended; /* what fn returned last */
    bool self; /* the point is what was asked for */
};

static int list_directory(void *opaque, const char *name, struct cg_error *err)
{
    struct listing *l = opaque;
    struct cg_entry entry = { .name = name, .directory = true };

    return l->fn(l->opaque, &entry, err);
}

static int list_head(struct listing *l, const char *name, const struct cg_point *head,
                     struct cg_error *err)
{
    char size[CG_SIZE_TEXT], text[CG_PART_MAX + 64];

    cg_size_text(size, head->size);
    if (strcmp(name, "latest") == 0)
        snprintf(text, sizeof text, "point %s, %s", head->name, size);
    else
        snprintf(text, sizeof text, "point, %s", size);
    struct cg_entry entry = { .name = name,
                              .self = l->self,
                              .size = head->size,
                              .time = (time_t)head->time,
                              .description = text };
    return l->fn(l->opaque, &entry, err);
}

static int list_point(void *opaque, const char *name, const struct cg_point *head, const char *why,
                      struct cg_error *err)
{
    struct listing *l = opaque;
    struct cg_entry entry = { .name = name, .description = why };

    l->ended = head ? list_head(l, name, head, err) : l->fn(l->opaque, &entry, err);
    return l->ended;
}

static int ignore_point(void *opaque, const char *name, struct cg_error *err)
{
    (void)opaque;
    (void)name;
    (void)err;
    return 0;
}

static int list_volume(struct listing *l, struct cg_error *err)
{
    struct cg_point *latest;
    struct cg_error why;

    int r = cg_project_heads(l->project, l->volume, list_point, l, &latest, NULL, &why);
    if (r == 0) {
        r = list_head(l, "latest", latest, err);
        cg_point_free(latest);
        return r;
    }
    if (l->ended == 0 && r == -ENOENT &&
        cg_project_points(l->project, l->volume, ignore_point, NULL, NULL) == 0)
        return 0; /* all of its points were deleted */
    if (l->ended == 0 && r != -ENOENT && r != -ENOMEM) {
        struct cg_entry entry = { .name = "latest", .description = why.message };
        return l->fn(l->opaque, &entry, err);
    }
    return cg_error_say(err, -r, "%s", why.message);
}

static int list_one(struct backups *b, const struct cg_name *name, struct listing *l,
                    struct cg_error *err)
{
    CG_CLEANUP(cg_point_cleanup) struct cg_point *point = NULL;

    l->self = true;
    int r = find_point(b, name, &l->project, &point, err);
    return r < 0 ? r : list_head(l, name->part[2], point, err);
}

static int backups_list(void *self, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
                        struct cg_error *err)
{
    struct backups *b = self;
    struct listing l = { .volume = prefix->part[1], .fn = fn, .opaque = opaque };

    if (prefix->parts == 0)
        return cg_repository_projects(b->repo, list_directory, &l, err);
    if (prefix->parts > 2)
        return list_one(b, prefix, &l, err);
    int r = cg_repository_project(b->repo, prefix->part[0], false, &l.project, err);
    if (r < 0)
        return r;
    if (prefix->parts == 1)
        return cg_project_volumes(l.project, list_directory, &l, err);
    return list_volume(&l, err);
}

static int backups_remove(void *self, const struct cg_name *name, unsigned flags,
                          struct cg_error *err)
{
    struct backups *b = self;
    struct cg_project *project;
    struct cg_name resolved = *name;

    (void)flags;
    int r = check_point_name(name, err);
    if (r == 0)
        r = backups_resolve(self, &resolved, err);
    if (r == 0)
        r = cg_repository_project(b->repo, name->part[0], false, &project, err);
    if (r < 0)
        return r;
    return cg_point_trash(project, resolved.part[1], resolved.part[2], err);
}

static int backups_hold(void *self, const struct cg_name *name, const char *uuid,
                        struct cg_error *err)
{
    struct cg_project *project;
    CG_CLEANUP(cg_point_cleanup) struct cg_point *point = NULL;

    int r = find_point(self, name, &project, &point, err);
    if (r == 0 && name->qcow2)
        return cg_history_hold(project, point->volume, point->name, uuid, err);
    return r < 0 ? r : cg_point_hold(project, point->volume, point->name, uuid, err);
}

static int backups_release(void *self, const struct cg_name *name, const char *uuid,
                           struct cg_error *err)
{
    struct backups *b = self;
    struct cg_project *project;

    int r = check_point_name(name, err);
    if (r == 0)
        r = cg_repository_project(b->repo, name->part[0], false, &project, err);
    if (r < 0)
        return r;
    if (name->qcow2)
        return cg_history_release(project, name->part[1], uuid, err);
    return cg_point_release(project, name->part[1], name->part[2], uuid, err);
}

static void backups_close(void *self)
{
    free(self);
}

static const struct cg_space_ops backups_ops = {
    .list = backups_list,
    .open = backups_open,
    .resolve = backups_resolve,
    .identify = backups_identify,
    .info = backups_info,
    .remove = backups_remove,
    .hold = backups_hold,
    .release = backups_release,
    .close = backups_close,
};

int cg_backups_space(struct cg_repository *repository, struct cg_space **ret_space,
                     struct cg_error *err)
{
    struct backups *b = calloc(1, sizeof *b);

    if (!b)
        return cg_error_set(err, ENOMEM, "open backups/");
    b->repo = repository;
    struct cg_space *space = cg_space_new(CG_NAME_BACKUPS, &backups_ops, b);
    if (!space) {
        free(b);
        return cg_error_set(err, ENOMEM, "open backups/");
    }
    *ret_space = space;
    return 0;
}
