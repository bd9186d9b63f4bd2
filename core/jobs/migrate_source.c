#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/array.h"
#include "core/base/cleanup.h"
#include "core/jobs/migrate_source.h"

struct snapshots {
    size_t count, allocated;
    struct snapshot {
        char name[CG_PART_MAX + 1];
        time_t time;
    } * v;
};

static int add_snapshot(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct snapshots *s = opaque;
    const char *at = strchr(entry->name, '@');

    if (!at || entry->directory || strlen(at + 1) > CG_PART_MAX)
        return 0;
    void *v = cg_array_room(s->v, s->count, &s->allocated, sizeof *s->v);
    if (!v)
        return cg_error_set(err, ENOMEM, "list snapshots");
    s->v = v;
    size_t i = s->count++;
    for (; i > 0 && s->v[i - 1].time > entry->time; i--)
        s->v[i] = s->v[i - 1];
    strcpy(s->v[i].name, at + 1);
    s->v[i].time = entry->time;
    return 0;
}

/* Adds the clone that the content of the source, or of a snapshot of it, is read from. */
static int add_clone(struct cg_migration *m, const struct cg_name *source, const char *snapshot,
                     struct cg_error *err)
{
    const char *project = source && source->space != CG_NAME_RBD ? source->part[0] : "migrate";
    char text[CG_NAME_MAX], number[24] = "";

    /* librbd takes all of a raw file for data; but snapshots only a raw image can have. */
    bool qcow2 = strcmp(m->record.stream, "file") == 0 && !m->record.snapshots;
    if (snapshot[0])
        snprintf(number, sizeof number, "-%zu", m->record.count + 1);
    snprintf(text, sizeof text, "volumes/%s/migrate-%s%s@source%s", project, m->record.uuid, number,
             qcow2 ? ".qcow2" : "");
    return cg_migration_add(m, text, snapshot, err);
}

static int choose_snapshots(struct cg_migration *m, const struct cg_migration_spaces *spaces,
                            const struct cg_name *source, struct cg_error *err)
{
    struct snapshots s = { 0 };

    if (!source || source->space == CG_NAME_BACKUPS || source->snapshot[0] || source->partition)
        return cg_error_say(err, EINVAL,
                            "%s has no snapshots to take along: only a volume or an RBD image has "
                            "(of a point, take its history, POINT.qcow2)",
                            m->record.source);
    int r = cg_space_list(spaces->source, source, add_snapshot, &s, err);
    for (size_t i = 0; r == 0 && i < s.count; i++)
        r = add_clone(m, source, s.v[i].name, err);
    free(s.v);
    return r;
}

/* Fills in which images are read. */
static int choose(struct cg_migration *m, const struct cg_migration_spaces *spaces,
                  struct cg_name *source, struct cg_error *err)
{
    char text[CG_NAME_MAX];
    int r = 0;

    if (m->record.snapshots)
        r = choose_snapshots(m, spaces, source, err);
    /* A history is a qcow2 file of its own; a point needs none over nbd, and where others serve it
     * they may have a root of their own, which knows its repository only. */
    bool direct = source && (source->qcow2 || strcmp(m->record.stream, "file") || !m->record.own);
    if (r == 0 && direct && source->space == CG_NAME_BACKUPS && !source->partition) {
        r = cg_space_resolve(spaces->source, source, err);
        cg_name_text(source, true, text);
        return r < 0 ? r : cg_migration_add(m, text, "", err);
    }
    return r < 0 ? r : add_clone(m, source, "", err);
}

/* The name of what is kept, without @source. */
static int kept_name(const struct cg_migration_image *image, struct cg_name *ret,
                     struct cg_error *err)
{
    int r = cg_name_parse(image->name, ret, err);

    if (r == 0 && ret->space == CG_NAME_VOLUMES) {
        ret->snapshot[0] = '\0';
        ret->qcow2 = false;
    }
    return r;
}

static int keep_clone(const struct cg_migration *m, const struct cg_migration_image *image,
                      struct cg_space *volumes, struct cg_error *err)
{
    char parent[CG_NAME_MAX + CG_PART_MAX + 2];
    struct cg_name name;
    int r = kept_name(image, &name, err);

    snprintf(parent, sizeof parent, "%s%s%s", m->record.source, image->snapshot[0] ? "@" : "",
             image->snapshot);
    if (r == 0)
        r = cg_space_clone(volumes, parent, &name, err);
    if (r < 0 && r != -EEXIST)
        return r;
    r = cg_name_parse(image->name, &name, err);
    name.qcow2 = false;
    if (r == 0)
        r = cg_space_snapshot(volumes, &name, 1, err);
    return r == -EEXIST ? 0 : r;
}

static int keep(const struct cg_migration *m, const struct cg_migration_image *image,
                const struct cg_migration_spaces *spaces, struct cg_error *err)
{
    struct cg_name name;
    int r = kept_name(image, &name, err);

    if (r < 0)
        return r;
    return name.space == CG_NAME_VOLUMES
               ? keep_clone(m, image, spaces->volumes, err)
               : cg_space_hold(spaces->source, &name, m->record.uuid, err);
}

int cg_migration_keep(struct cg_migration *m, const struct cg_migration_spaces *spaces,
                      struct cg_error *err)
{
    struct cg_name source;
    bool named = cg_arg_kind(m->record.source) == CG_ARG_NAME;
    int r = named ? cg_name_parse(m->record.source, &source, err) : 0;

    if (r == 0 && m->record.count == 0) {
        r = choose(m, spaces, named ? &source : NULL, err);
        if (r == 0)
            r = cg_migration_save(m, err);
    }
    for (size_t i = 0; r == 0 && i < m->record.count; i++)
        r = keep(m, &m->record.image[i], spaces, err);
    return r;
}

int cg_migration_release(struct cg_migration *m, const struct cg_migration_spaces *spaces,
                         struct cg_error *err)
{
    struct cg_name name;
    int r = 0;

    for (size_t i = 0; r == 0 && i < m->record.count; i++) {
        r = kept_name(&m->record.image[i], &name, err);
        if (r == 0 && name.space == CG_NAME_VOLUMES)
            r = cg_space_remove(spaces->volumes, &name, CG_REMOVE_SNAPSHOTS, err);
        else if (r == 0)
            r = cg_space_release(spaces->source, &name, m->record.uuid, err);
        if (r == -ENOENT)
            r = 0;
    }
    return r;
}
