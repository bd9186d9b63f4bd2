#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/list.h"
#include "core/volumes/usage.h"
#include "core/volumes/volume.h"

/* The name of the draft in a directory of this name; NULL if it isn't one's. */
static const char *draft_in(const char *directory)
{
    size_t n = strlen(CG_DRAFT_PREFIX);

    return strncmp(directory, CG_DRAFT_PREFIX, n) == 0 ? directory + n : NULL;
}

/* Calls fn for each subdirectory of path whose name is one of ours, those of drafts if asked to. */
typedef int sub_fn(struct cg_volumes *space, const char *name, void *opaque, struct cg_error *err);

static int each_directory(struct cg_volumes *space, const char *path, bool drafts, sub_fn *fn,
                          void *opaque, struct cg_error *err)
{
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(space->fd, path, O_NOFOLLOW);
    struct dirent *e;
    struct stat st;

    if (!dir)
        return errno == ENOENT ? cg_error_say(err, ENOENT, "there is no project %s", path)
                               : cg_error_set(err, errno, "list %s", path);
    while (errno = 0, (e = readdir(dir))) {
        const char *draft = drafts ? draft_in(e->d_name) : NULL;
        if (!cg_name_part_valid(draft ? draft : e->d_name) ||
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
            continue;
        int r = fn(space, e->d_name, opaque, err);
        if (r != 0)
            return r;
    }
    return errno ? cg_error_set(err, errno, "list %s", path) : 0;
}

struct listing {
    const char *project;
    cg_entry_fn *fn;
    void *opaque;
    bool self; /* the volume is what was asked for */
};

static int list_project(struct cg_volumes *space, const char *name, void *opaque,
                        struct cg_error *err)
{
    struct listing *l = opaque;
    struct cg_entry entry = { .name = name, .directory = true };

    (void)space;
    return l->fn(l->opaque, &entry, err);
}

static int tell_volume(struct listing *l, const char *name, const struct cg_volume_json *json,
                       struct cg_error *err)
{
    struct cg_entry head = { .name = name,
                             .self = l->self,
                             .size = json->head.size,
                             .time = json->created,
                             .description = *json->parent ? "volume, a clone" : "volume" };
    int r = l->fn(l->opaque, &head, err);

    for (size_t i = 0; r == 0 && i < json->snapshots; i++) {
        const struct cg_volume_snapshot *s = &json->snapshot[i];
        char text[2 * CG_PART_MAX + 2];
        snprintf(text, sizeof text, "%s@%s", name, s->name);
        struct cg_entry entry = { .name = text,
                                  .self = l->self,
                                  .size = s->layers.size,
                                  .time = s->time,
                                  .description = "snapshot" };
        r = l->fn(l->opaque, &entry, err);
    }
    return r;
}

static int tell_draft(struct listing *l, int dirfd, const char *name,
                      const struct cg_volume_json *json, struct cg_error *err)
{
    char text[128] = "unfinished: run its import or restore again, or delete it";
    pid_t writer = cg_writer_alive(dirfd);

    if (writer)
        snprintf(text, sizeof text, "unfinished: process %ld is filling it", (long)writer);
    struct cg_entry entry = { .name = name,
                              .self = l->self,
                              .size = json->head.size,
                              .time = json->created,
                              .draft = true,
                              .description = text };
    return l->fn(l->opaque, &entry, err);
}

static int list_volume(struct cg_volumes *space, const char *name, void *opaque,
                       struct cg_error *err)
{
    struct listing *l = opaque;
    const char *draft = draft_in(name);
    struct cg_volume_json json;
    struct cg_error why;
    char path[CG_NAME_MAX];

    snprintf(path, sizeof path, "%s/%s", l->project, name);
    CG_CLEANUP(cg_close)
    int fd = openat(space->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) /* deleted meanwhile */
        return 0;
    int r = fd < 0 ? cg_error_set(&why, errno, "open") : cg_volume_json_read(fd, &json, NULL, &why);
    if (r == -ENOENT) {
        struct stat st;
        if (fstatat(space->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return 0;
    }
    if (r < 0) { /* one that is damaged doesn't hide the others */
        struct cg_entry entry = { .name = draft ? draft : name,
                                  .self = l->self,
                                  .draft = draft,
                                  .description = why.message };
        return l->fn(l->opaque, &entry, err);
    }
    r = draft ? tell_draft(l, fd, draft, &json, err) : tell_volume(l, name, &json, err);
    cg_volume_json_clear(&json);
    return r;
}

/* Lets only the entry of a name through. */
struct only {
    const char *want;
    const struct listing *to;
};

static int only(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    const struct only *o = opaque;

    return strcmp(entry->name, o->want) == 0 ? o->to->fn(o->to->opaque, entry, err) : 0;
}

static int list_draft(struct cg_volumes *space, const struct cg_name *name, struct listing *l,
                      struct cg_error *err)
{
    char text[sizeof CG_DRAFT_PREFIX + CG_PART_MAX];
    CG_CLEANUP(cg_close) int fd = -1;
    int r = cg_volume_open_dir(space, name, &fd, err);

    snprintf(text, sizeof text, CG_DRAFT_PREFIX "%s", name->part[1]);
    return r < 0 ? r : list_volume(space, text, l, err);
}

/* A whole name as a prefix: the volume and its snapshots, or the one snapshot; the draft too, if
 * name->draft. */
static int list_one(struct cg_volumes *space, const struct cg_name *name, struct listing *l,
                    struct cg_error *err)
{
    char text[2 * CG_PART_MAX + 2];
    struct only o = { text, l };
    struct listing filtered = { l->project, only, &o, true };
    struct cg_name head = *name;
    CG_CLEANUP(cg_close) int fd = -1;
    int draft = -ENOENT;

    l->self = true;
    if (name->draft && !*name->snapshot)
        draft = list_draft(space, name, l, err);
    if (draft != 0 && draft != -ENOENT)
        return draft;
    head.draft = false;
    int r = cg_volume_open_dir(space, &head, &fd, err);
    if (r < 0)
        return r == -ENOENT && draft == 0 ? 0 : r;
    if (!*name->snapshot)
        return list_volume(space, name->part[1], l, err);
    snprintf(text, sizeof text, "%s@%s", name->part[1], name->snapshot);
    return list_volume(space, name->part[1], &filtered, err);
}

int cg_list(struct cg_volumes *space, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
            struct cg_error *err)
{
    struct listing l = { prefix->part[0], fn, opaque, false };

    if (prefix->parts == 0)
        return each_directory(space, ".", false, list_project, &l, err);
    if (prefix->parts == 1)
        return each_directory(space, prefix->part[0], prefix->draft, list_volume, &l, err);
    return list_one(space, prefix, &l, err);
}

/* Bytes of the parent's content that are here already. */
static uint64_t bytes_filled(int fd, const struct cg_volume_json *json)
{
    char name[CG_UUID_LEN + 6];
    struct stat st;

    snprintf(name, sizeof name, "%s.data", json->filling);
    return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : 512 * (uint64_t)st.st_blocks;
}

static json_t *parent_json(int fd, const struct cg_volume_json *json)
{
    json_t *parent;

    if (!*json->parent)
        return json_null();
    parent = json_pack("{s:s, s:s, s:I}", "name", json->parent, "identity", json->parent_identity,
                       "size", (json_int_t)json->parent_size);
    if (parent && *json->filling)
        json_object_set_new(parent, "filled_bytes",
                            json_integer((json_int_t)bytes_filled(fd, json)));
    return parent;
}

static json_t *snapshots_json(const struct cg_volume_json *json)
{
    json_t *array = json_array();

    for (size_t i = 0; i < json->snapshots; i++) {
        const struct cg_volume_snapshot *s = &json->snapshot[i];
        json_array_append_new(array,
                              json_pack("{s:s, s:I, s:I}", "name", s->name, "size",
                                        (json_int_t)s->layers.size, "time", (json_int_t)s->time));
    }
    return array;
}

static json_t *head_json(int dirfd, const struct cg_volume_json *json)
{
    pid_t writer = cg_writer_alive(dirfd);
    struct cg_usage u;
    cg_usage(dirfd, json, &u);
    json_t *info = json_pack(
        "{s:s, s:I, s:I, s:I, s:o, s:i, s:o, s:I, s:I, s:I, s:I, s:I}", "uuid", json->uuid, "size",
        (json_int_t)json->head.size, "original_size", (json_int_t)json->original_size, "created",
        (json_int_t)json->created, "parent", parent_json(dirfd, json), "depth", (int)json->depth,
        "snapshots", snapshots_json(json), "layers", (json_int_t)json->head.count, "allocated",
        (json_int_t)(u.used + u.shared), "used", (json_int_t)u.used, "shared", (json_int_t)u.shared,
        "reserve", (json_int_t)u.reserve);

    if (info && *json->release &&
        json_object_set_new(info, "held", json_string(json->release)) < 0) {
        json_decref(info);
        return NULL;
    }
    if (info && writer && json_object_set_new(info, "writer", json_integer(writer)) < 0) {
        json_decref(info);
        return NULL;
    }
    return info;
}

static json_t *snapshot_info(int fd, const struct cg_volume_json *json,
                             const struct cg_volume_snapshot *s)
{
    uint64_t size = s->layers.size;

    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:I}", "uuid", s->uuid, "volume", json->uuid,
                     "size", (json_int_t)size, "original_size",
                     (json_int_t)cg_volume_json_original_size(json, size), "created",
                     (json_int_t)s->time, "parent", parent_json(fd, json), "layers",
                     (json_int_t)s->layers.count);
}

int cg_list_info(struct cg_volumes *space, const struct cg_name *name, json_t **ret_info,
                 struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    struct cg_volume_json json;
    char text[CG_NAME_MAX];
    int r = cg_volume_open_dir(space, name, &fd, err);

    if (r < 0)
        return r;
    r = cg_volume_json_read(fd, &json, NULL, err);
    if (r < 0)
        return cg_error_prefix(err, r, "%s", cg_name_text(name, true, text));
    const struct cg_volume_snapshot *s =
        *name->snapshot ? cg_volume_json_snapshot(&json, name->snapshot) : NULL;
    if (*name->snapshot && !s) {
        r = cg_error_say(err, ENOENT, "there is no snapshot %s", cg_name_text(name, true, text));
    } else {
        *ret_info = s ? snapshot_info(fd, &json, s) : head_json(fd, &json);
        r = *ret_info ? 0 : cg_error_set(err, ENOMEM, "describe %s", text);
    }
    cg_volume_json_clear(&json);
    return r;
}

struct sum {
    const char *project;
    struct cg_space_usage usage;
};

static int add_volume(struct cg_volumes *space, const char *name, void *opaque,
                      struct cg_error *err)
{
    struct sum *sum = opaque;
    struct cg_volume_json json;
    struct cg_usage u;
    char path[CG_NAME_MAX];

    (void)err;
    snprintf(path, sizeof path, "%s/%s", sum->project, name);
    CG_CLEANUP(cg_close)
    int fd = openat(space->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || cg_volume_json_read(fd, &json, NULL, NULL) < 0)
        return 0;
    cg_usage(fd, &json, &u);
    cg_volume_json_clear(&json);
    sum->usage.images++;
    sum->usage.reserve += u.reserve;
    return 0;
}

static int add_project(struct cg_volumes *space, const char *name, void *opaque,
                       struct cg_error *err)
{
    struct sum *sum = opaque;

    sum->project = name;
    int r = each_directory(space, name, true, add_volume, sum, err);
    return r == -ENOENT ? 0 : r;
}

int cg_list_usage(struct cg_volumes *space, struct cg_space_usage *ret, struct cg_error *err)
{
    struct sum sum = { .project = "" };
    int r = each_directory(space, ".", false, add_project, &sum, err);

    if (r == 0)
        *ret = sum.usage;
    return r;
}
