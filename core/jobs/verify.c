#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/page.h"
#include "core/backups/repository.h"
#include "core/base/array.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"
#include "core/jobs/chunk_workers.h"
#include "core/jobs/verify.h"

/* Thread model: points are read by the calling thread; then all their pages, then all their chunks,
 * are the items of a parallel loop each.  lock guards the result, the calls of damaged and the set
 * of chunks that the pages add to.  Nothing is read through the cache: what lies in the repository
 * is what is asked. */

struct page_item {
    struct cg_ref ref;
    uint64_t number, size; /* of the page in its volume, of the volume */
};

struct verify {
    struct cg_repository *repo;
    const struct cg_name *prefix;
    const struct cg_progress *progress;
    cg_verify_fn *damaged;
    void *opaque;
    struct cg_chunk_workers workers;
    _Atomic uint64_t done;
    uint64_t total;
    pthread_mutex_t lock;
    struct cg_verify_result result; /* guarded by lock */

    /* Of the project at hand. */
    struct cg_project *project;
    struct cg_refs *pages_seen;
    struct page_item *pages;
    size_t page_count, pages_allocated;
    struct cg_refs *chunks; /* guarded by lock while pages are read */
    struct cg_refs *bad_chunks, *bad_pages;
};

/* Whether a failure says something about the object, rather than about us. */
static bool is_damage(int r)
{
    return r == -EIO || r == -ENOTSUP || r == -EFBIG || r == -ENOTDIR || r == -ELOOP;
}

static void tell(struct verify *v, const char *object, const struct cg_error *why)
{
    CG_LOCK(&v->lock);
    v->result.damaged++;
    if (v->damaged)
        v->damaged(v->opaque, object, why->message);
}

/* A repository that can be read but not written is verified all the same. */
static void warn(struct verify *v, const struct cg_error *why)
{
    CG_LOCK(&v->lock);
    if (!v->result.warning[0])
        snprintf(v->result.warning, sizeof v->result.warning,
                 "what was found isn't recorded in the repository: %.400s", why->message);
}

/* What became of an object: damage is told and recorded, a record that is no longer true struck
 * off. */
static int judge(struct verify *v, enum cg_object_kind kind, const struct cg_ref *ref, int r,
                 const struct cg_error *why, struct cg_error *err)
{
    const struct cg_refs *bad = kind == CG_OBJECT_PAGE ? v->bad_pages : v->bad_chunks;
    char path[CG_OBJECT_PATH];
    struct cg_error not_written;

    if (r < 0 && !is_damage(r))
        return cg_error_say(err, -r, "%s", why->message);
    if (r < 0) {
        tell(v, cg_object_path(cg_project_name(v->project), kind, ref, path), why);
        r = cg_project_record(v->project, kind, ref, &not_written);
    } else if (cg_refs_find(bad, ref)) {
        r = cg_project_strike(v->project, kind, ref, &not_written);
    }
    if (r < 0)
        warn(v, &not_written);
    return 0;
}

static int add_chunks(struct verify *v, const struct cg_ref refs[static CG_PAGE_CHUNKS],
                      struct cg_error *err)
{
    int r = 0;

    CG_LOCK(&v->lock);
    for (unsigned i = 0; r >= 0 && i < CG_PAGE_CHUNKS; i++) {
        if (!cg_ref_is_zero(&refs[i]))
            r = cg_refs_add(v->chunks, &refs[i], err);
    }
    return r < 0 ? r : 0;
}

static int check_page(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct verify *v = opaque;
    struct cg_chunk_worker *w = &v->workers.v[worker];
    const struct page_item *p = &v->pages[item];
    struct cg_ref refs[CG_PAGE_CHUNKS];
    struct cg_error why;

    int r = cg_project_fetch(v->project, CG_OBJECT_PAGE, &p->ref, w->codec, w->buf, &why);
    if (r == 0)
        r = cg_page_decode(w->buf, p->number, p->size, refs, &why);
    int judged = judge(v, CG_OBJECT_PAGE, &p->ref, r, &why, err);
    if (judged < 0 || r < 0)
        return judged;
    return add_chunks(v, refs, err);
}

static int check_chunk(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct verify *v = opaque;
    struct cg_chunk_worker *w = &v->workers.v[worker];
    const struct cg_ref *ref = cg_refs_at(v->chunks, (size_t)item);
    struct cg_error why;

    int r = cg_project_fetch(v->project, CG_OBJECT_CHUNK, ref, w->codec, w->buf, &why);
    r = judge(v, CG_OBJECT_CHUNK, ref, r, &why, err);
    uint64_t done = atomic_fetch_add(&v->done, ref->len) + ref->len;
    if (r == 0 && v->progress && v->progress->report(v->progress->opaque, done, v->total) != 0)
        r = cg_error_say(err, ECANCELED, "the verification was cancelled");
    return r;
}

static int add_page(struct verify *v, const struct cg_point *point, uint64_t number,
                    struct cg_error *err)
{
    int r = cg_refs_add(v->pages_seen, &point->pages[number], err);

    if (r != 1)
        return r;
    struct page_item *pages =
        cg_array_room(v->pages, v->page_count, &v->pages_allocated, sizeof *pages);
    if (!pages)
        return cg_error_set(err, ENOMEM, "list pages");
    v->pages = pages;
    v->pages[v->page_count++] = (struct page_item){ point->pages[number], number, point->size };
    return 0;
}

struct volume {
    struct verify *verify;
    const char *name;
};

static int check_point(void *opaque, const char *name, struct cg_error *err)
{
    struct volume *volume = opaque;
    struct verify *v = volume->verify;
    CG_CLEANUP(cg_point_cleanup) struct cg_point *point = NULL;
    struct cg_error why;
    char path[3 * (CG_PART_MAX + 1) + 32];

    int r = cg_project_point(v->project, volume->name, name, &point, &why);
    if (r == -ENOENT && v->prefix->parts < CG_PARTS)
        return 0; /* removed meanwhile */
    if (r < 0 && !is_damage(r))
        return cg_error_say(err, -r, "%s", why.message);
    v->result.points++;
    if (r < 0) {
        snprintf(path, sizeof path, "%s/points/%s/%s", cg_project_name(v->project), volume->name,
                 name);
        tell(v, path, &why);
        return 0;
    }
    for (uint64_t i = 0; r >= 0 && i < point->page_count; i++) {
        if (!cg_ref_is_zero(&point->pages[i]))
            r = add_page(v, point, i, err);
    }
    return r < 0 ? r : 0;
}

static int check_volume(void *opaque, const char *name, struct cg_error *err)
{
    struct verify *v = opaque;
    struct volume volume = { v, name };

    return cg_project_points(v->project, name, check_point, &volume, err);
}

/* The points below the prefix. */
static int check_points(struct verify *v, struct cg_error *err)
{
    const struct cg_name *n = v->prefix;
    struct volume volume = { v, n->part[1] };
    struct cg_point *head;

    if (n->parts < 2)
        return cg_project_volumes(v->project, check_volume, v, err);
    if (n->parts == 2)
        return check_volume(v, n->part[1], err);
    if (strcmp(n->part[2], "latest") != 0)
        return check_point(&volume, n->part[2], err);
    int r = cg_project_latest(v->project, n->part[1], &head, err);
    if (r == 0) {
        r = check_point(&volume, head->name, err);
        cg_point_free(head);
    }
    return r;
}

static int check_objects(struct verify *v, struct cg_error *err)
{
    int r = cg_parallel(v->page_count, v->workers.count, check_page, v, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < cg_refs_count(v->chunks); i++)
        v->total += cg_refs_at(v->chunks, i)->len;
    v->result.pages += v->page_count;
    v->result.chunks += cg_refs_count(v->chunks);
    r = cg_parallel(cg_refs_count(v->chunks), v->workers.count, check_chunk, v, err);
    v->result.bytes = atomic_load(&v->done);
    return r;
}

static void clear_project(struct verify *v)
{
    cg_refs_free(v->pages_seen);
    cg_refs_free(v->chunks);
    cg_refs_free(v->bad_chunks);
    cg_refs_free(v->bad_pages);
    v->pages_seen = v->chunks = v->bad_chunks = v->bad_pages = NULL;
    v->page_count = 0;
}

static int check_project(void *opaque, const char *name, struct cg_error *err)
{
    struct verify *v = opaque;
    struct cg_error why;
    char path[CG_PART_MAX + 32];

    int r = cg_repository_project(v->repo, name, false, &v->project, &why);
    if (r < 0 && !is_damage(r))
        return cg_error_say(err, -r, "%s", why.message);
    if (r < 0) {
        snprintf(path, sizeof path, "%s/project.json", name);
        tell(v, path, &why);
        return 0;
    }
    v->pages_seen = cg_refs_new(true);
    v->chunks = cg_refs_new(true);
    if (!v->pages_seen || !v->chunks)
        r = cg_error_set(err, ENOMEM, "verify %s", name);
    if (r == 0)
        r = cg_project_damaged(v->project, CG_OBJECT_CHUNK, &v->bad_chunks, err);
    if (r == 0)
        r = cg_project_damaged(v->project, CG_OBJECT_PAGE, &v->bad_pages, err);
    if (r == 0)
        r = check_points(v, err);
    if (r == 0)
        r = check_objects(v, err);
    clear_project(v);
    return r;
}

int cg_verify(struct cg_repository *repository, const struct cg_name *prefix,
              const struct cg_progress *progress, cg_verify_fn *damaged, void *opaque,
              struct cg_verify_result *ret, struct cg_error *err)
{
    struct verify v = { .repo = repository,
                        .prefix = prefix,
                        .progress = progress,
                        .damaged = damaged,
                        .opaque = opaque };
    char text[CG_NAME_MAX];

    if ((prefix->space != CG_NAME_BACKUPS && prefix->space != CG_NAME_ROOT) || prefix->qcow2 ||
        prefix->partition)
        return cg_error_say(err, EINVAL, "%s: only backups can be verified",
                            cg_name_text(prefix, false, text));
    pthread_mutex_init(&v.lock, NULL);
    int r = cg_chunk_workers_init(&v.workers, repository, cg_processors() + 1, err);
    if (r == 0 && prefix->parts == 0)
        r = cg_repository_projects(repository, check_project, &v, err);
    else if (r == 0)
        r = check_project(&v, prefix->part[0], err);
    cg_chunk_workers_clear(&v.workers);
    free(v.pages);
    pthread_mutex_destroy(&v.lock);
    if (r == 0)
        *ret = v.result;
    return r;
}
