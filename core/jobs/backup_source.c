#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
        r = cg_space_snapshot(s->space, &s->name, 1, err);
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
    char stem[2 * CG_PART_MAX]; /* VOLUME@cowgate-REPOSITORY- */
    size_t count, allocated;
    struct stray {
        char session[CG_SESSION_ID + 1];
        bool needed;
    } * v;
};

static int find_stray(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct strays *s = opaque;
    const char *at = strchr(entry->name, '@');

    if (!at || strncmp(entry->name, s->stem, strlen(s->stem)) != 0 ||
        strlen(at + strlen("@" PREFIX)) != CG_SESSION_ID)
        return 0;
    if (s->count == s->allocated) {
        size_t n = s->allocated ? 2 * s->allocated : 16;
        struct stray *v = realloc(s->v, n * sizeof *v);
        if (!v)
            return cg_error_set(err, ENOMEM, "list snapshots");
        s->v = v;
        s->allocated = n;
    }
    struct stray *stray = &s->v[s->count++];
    strcpy(stray->session, at + strlen("@" PREFIX));
    stray->needed = false;
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

struct latest_of {
    struct strays *strays;
    struct cg_project *project;
};

static int ask_latest(void *opaque, const char *volume, struct cg_error *err)
{
    struct latest_of *l = opaque;
    struct cg_point *head;

    int r = cg_project_latest(l->project, volume, &head, err);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r; /* it may need any of them */
    for (size_t i = 0; i < l->strays->count; i++) {
        if (strncmp(head->source.snapshot, PREFIX, strlen(PREFIX)) == 0 &&
            strcmp(head->source.snapshot + strlen(PREFIX), l->strays->v[i].session) == 0)
            l->strays->v[i].needed = true;
    }
    cg_point_free(head);
    return 0;
}

static int ask_points(void *opaque, const char *project, struct cg_error *err)
{
    struct latest_of l = { .strays = opaque };

    int r = cg_repository_project(l.strays->repo, project, false, &l.project, err);
    return r < 0 ? r : cg_project_volumes(l.project, ask_latest, &l, err);
}

int cg_backup_source_sweep(const struct cg_backup_source *source, struct cg_repository *repo,
                           struct cg_error *err)
{
    struct strays s = { .repo = repo };
    struct cg_name name = source->name, prefix = source->name;

    if (!source->space || name.parts == 0 || name.space == CG_NAME_BACKUPS)
        return 0;
    snprintf(s.stem, sizeof s.stem, "%s@" PREFIX "%.*s-", name.part[name.parts - 1], REPOSITORY,
             cg_repository_uuid(repo));
    prefix.snapshot[0] = '\0';
    prefix.parts--;
    int r = cg_space_list(source->space, &prefix, find_stray, &s, err);
    /* Sessions before points: one that commits in between is found in its point. */
    if (r == 0 && s.count > 0)
        r = cg_repository_projects(repo, ask_session, &s, err);
    if (r == 0 && s.count > 0)
        r = cg_repository_projects(repo, ask_points, &s, err);
    for (size_t i = 0; r == 0 && i < s.count; i++) {
        if (s.v[i].needed)
            continue;
        snprintf(name.snapshot, sizeof name.snapshot, PREFIX "%s", s.v[i].session);
        r = cg_space_remove(source->space, &name, 0, err);
        if (r == -ENOENT)
            r = 0;
    }
    free(s.v);
    return r;
}
