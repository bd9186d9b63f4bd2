#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/array.h"
#include "core/base/cleanup.h"
#include "core/jobs/backup_source.h"

/* Snapshots made for backups are called cowgate-SESSION, and a session's id begins with its
 * repository's, so that a repository never removes another's. */
#define PREFIX "cowgate-"
#define REPOSITORY 8 /* characters of the session id that say the repository */

static bool is_head(const struct cg_backup_options *o)
{
    return !o->source.snapshot[0] && o->source.space != CG_NAME_BACKUPS;
}

static int take_snapshot(struct cg_backup_source *s, const struct cg_backup_options *o,
                         struct cg_error *err)
{
    int r = o->before_snapshot ? o->before_snapshot(o->snapshot_opaque, err) : 0;

    s->time = time(NULL);
    if (r == 0)
        r = cg_space_snapshot(s->space, &s->name, 1, err);
    if (o->after_snapshot)
        o->after_snapshot(o->snapshot_opaque, r == 0);
    return r;
}

int cg_backup_source_open(struct cg_backup_source *s, const struct cg_backup_options *o,
                          struct cg_session *session, struct cg_error *err)
{
    *s = (struct cg_backup_source){ .space = o->space, .name = o->source };
    if (!o->space) {
        s->time = time(NULL);
        s->image = cg_image_ref(o->image);
        return 0;
    }
    int r = 0;
    s->time = time(NULL);
    if (is_head(o)) {
        snprintf(s->name.snapshot, sizeof s->name.snapshot, PREFIX "%s", cg_session_id(session));
        r = take_snapshot(s, o, err);
        if (r < 0)
            return r;
        s->own = true;
    }
    r = cg_space_open(s->space, &s->name, CG_OPEN_READ, &s->image, err);
    if (r == 0)
        r = cg_space_identify(s->space, &s->name, &s->identity, err);
    if (r == -ENOTSUP && s->image)
        r = 0; /* it has no identity: every backup is full */
    if (r < 0)
        cg_backup_source_close(s, false);
    return r;
}

void cg_backup_source_close(struct cg_backup_source *s, bool committed)
{
    cg_image_unref(s->image);
    s->image = NULL;
    /* One that can't be removed now is removed by the next backup. */
    if (s->own && !committed)
        cg_space_remove(s->space, &s->name, 0, NULL);
}

bool cg_backup_source_base(const struct cg_backup_source *s, const struct cg_point *base,
                           struct cg_name *ret_from, char ret_why[static 256])
{
    struct cg_name from = s->name;
    struct cg_identity now;
    struct cg_error err;

    if (!s->space || !s->identity.image[0] || !s->identity.snapshot[0]) {
        snprintf(ret_why, 256, "the source has no snapshots to compare");
        return false;
    }
    if (strcmp(base->source.identity.image, s->identity.image) != 0) {
        snprintf(ret_why, 256, "the last point is of another image");
        return false;
    }
    if (!base->source.snapshot[0] || !base->source.identity.snapshot[0]) {
        snprintf(ret_why, 256, "the last point is not of a snapshot");
        return false;
    }
    snprintf(from.snapshot, sizeof from.snapshot, "%s", base->source.snapshot);
    if (cg_space_identify(s->space, &from, &now, &err) < 0 ||
        strcmp(now.image, s->identity.image) != 0 ||
        strcmp(now.snapshot, base->source.identity.snapshot) != 0) {
        snprintf(ret_why, 256, "the snapshot of the last point is gone");
        return false;
    }
    if (strcmp(base->source.identity.parent, s->identity.parent) != 0) {
        snprintf(ret_why, 256,
                 s->identity.parent[0]
                     ? "the source is a clone of something else than at the last point"
                     : "the source was flattened since the last point");
        return false;
    }
    if (base->size > cg_image_size(s->image)) {
        snprintf(ret_why, 256, "the source is smaller than the last point");
        return false;
    }
    *ret_from = from;
    return true;
}

/* Snapshots of the source that may be ours. */
struct strays {
    struct cg_repository *repo;
    const struct cg_progress *progress;
    char stem[2 * CG_PART_MAX]; /* cowgate-REPOSITORY- */
    bool self;                  /* look at the source's own only */
    /* Whether some point that may be a latest one can't be read, and why. */
    bool unsure;
    struct cg_error why;
    size_t count, allocated;
    struct stray {
        char volume[CG_PART_MAX + 1];
        char session[CG_SESSION_ID + 1];
        bool needed;
        bool named; /* by a point that can be read */
    } * v;
};

static int find_stray(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct strays *s = opaque;
    const char *at = strchr(entry->name, '@');

    if (!at || entry->self != s->self || at - entry->name > CG_PART_MAX ||
        strncmp(at + 1, s->stem, strlen(s->stem)) != 0 ||
        strlen(at + strlen("@" PREFIX)) != CG_SESSION_ID)
        return 0;
    struct stray *v = cg_array_room(s->v, s->count, &s->allocated, sizeof *v);
    if (!v)
        return cg_error_set(err, ENOMEM, "list snapshots");
    s->v = v;
    struct stray *stray = &s->v[s->count++];
    *stray = (struct stray){ .needed = false };
    memcpy(stray->volume, entry->name, (size_t)(at - entry->name));
    strcpy(stray->session, at + strlen("@" PREFIX));
    return 0;
}

static int ask_session(void *opaque, const char *project, struct cg_error *err)
{
    struct strays *s = opaque;
    struct cg_store *store = cg_repository_store(s->repo);

    for (size_t i = 0; i < s->count; i++) {
        if (s->v[i].needed)
            continue;
        int r = store->ops->session_alive(store, project, s->v[i].session, err);
        if (r < 0)
            return r;
        s->v[i].needed = r == 1;
    }
    return 0;
}

/* What the points of a volume need. */
struct asked {
    struct strays *strays;
    struct cg_project *project;
};

/* The stray that the point names, or NULL. */
static struct stray *named_by(struct strays *s, const struct cg_point *head)
{
    if (strncmp(head->source.snapshot, PREFIX, strlen(PREFIX)) != 0)
        return NULL;
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(head->source.snapshot + strlen(PREFIX), s->v[i].session) == 0)
            return &s->v[i];
    }
    return NULL;
}

static int ask_head(void *opaque, const char *name, const struct cg_point *head, const char *why,
                    struct cg_error *err)
{
    struct asked *a = opaque;
    struct stray *stray = head ? named_by(a->strays, head) : NULL;

    (void)name;
    (void)why;
    (void)err;
    if (stray)
        stray->named = true;
    return 0;
}

/* A failure that leaves open what some point needs. */
static int unsure(struct strays *s, int r, const struct cg_error *why, struct cg_error *err)
{
    if (r == -ENOMEM)
        return cg_error_set(err, ENOMEM, "look for what needs old snapshots");
    if (r < 0 && r != -ENOENT && !s->unsure) {
        s->unsure = true;
        s->why = *why;
    }
    return 0;
}

static int ask_volume(void *opaque, const char *volume, struct cg_error *err)
{
    struct asked *a = opaque;
    struct cg_point *head;
    struct cg_error why;

    int r = cg_project_heads(a->project, volume, ask_head, a, &head, NULL, &why);
    if (r < 0)
        return unsure(a->strays, r, &why, err);
    struct stray *stray = named_by(a->strays, head);
    if (stray)
        stray->needed = true;
    cg_point_free(head);
    return 0;
}

static int ask_points(void *opaque, const char *project, struct cg_error *err)
{
    struct asked a = { .strays = opaque };
    struct cg_error why;

    int r = cg_repository_project(a.strays->repo, project, false, &a.project, &why);
    if (r == 0)
        r = cg_project_volumes(a.project, ask_volume, &a, &why);
    return unsure(a.strays, r, &why, err);
}

/* All of the backup itself is done. */
static int reclaiming(void *opaque, uint64_t done, uint64_t total)
{
    const struct cg_progress *p = opaque;

    (void)done;
    return p ? p->report(p->opaque, total, total) : 0;
}

/* Removes those that nobody needs.  A latest point that can't be read may need any that no other
 * point names; one that such a point names has been superseded by its successor. */
static int remove_strays(struct strays *s, struct cg_space *space, struct cg_name *name,
                         struct cg_error *err)
{
    unsigned part = name->parts - 1;
    struct cg_error why;
    int result = 0;

    for (size_t i = 0; i < s->count; i++) {
        struct stray *stray = &s->v[i];
        if (stray->needed)
            continue;
        if (s->unsure && !stray->named) {
            if (result == 0)
                result = cg_error_say(err, EIO, "%s", s->why.message);
            continue;
        }
        strcpy(name->part[part], stray->volume);
        snprintf(name->snapshot, sizeof name->snapshot, PREFIX "%s", stray->session);
        int r = cg_space_remove(space, name, 0, &why);
        if (r < 0 && r != -ENOENT && result == 0)
            result = cg_error_say(err, -r, "%s", why.message);
        if (r == 0) /* what can't be given back now is by the next */
            cg_space_reclaim(space, name, reclaiming, (void *)s->progress, &why);
    }
    return result;
}

int cg_backup_source_sweep(const struct cg_backup_source *source, struct cg_repository *repo,
                           const struct cg_progress *progress, struct cg_error *err)
{
    struct strays s = { .repo = repo, .progress = progress };
    struct cg_name name = source->name, prefix = source->name;

    if (!source->space || name.parts == 0 || name.space == CG_NAME_BACKUPS)
        return 0;
    snprintf(s.stem, sizeof s.stem, PREFIX "%.*s-", REPOSITORY, cg_repository_uuid(repo));
    prefix.snapshot[0] = '\0';
    s.self = name.space == CG_NAME_RBD; /* a pool may have thousands of images */
    if (!s.self)
        prefix.parts--;
    int r = cg_space_list(source->space, &prefix, find_stray, &s, err);
    /* Sessions before points: one that commits in between is found in its point. */
    if (r == 0 && s.count > 0)
        r = cg_repository_projects(repo, ask_session, &s, err);
    if (r == 0 && s.count > 0)
        r = cg_repository_projects(repo, ask_points, &s, err);
    if (r == 0)
        r = remove_strays(&s, source->space, &name, err);
    free(s.v);
    return r;
}
