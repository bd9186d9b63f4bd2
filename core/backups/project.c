#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/backups/project.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"

/* Thread model: a project doesn't change after it is opened. */

#define SMALL_FILE 65536
#define PATH (3 * (CG_PART_MAX + 1) + 32)

static void free_text(char **text)
{
    cg_keys_text_free(*text);
}

static int create_keys(struct cg_store *store, const char *name, const char *path,
                       struct cg_error *err)
{
    char era[CG_PART_MAX + 32];
    CG_CLEANUP(free_text) char *text = NULL;

    int r = cg_keys_generate(name, &text, err);
    if (r < 0)
        return r;
    snprintf(era, sizeof era, "%s/era/%08x", name, 1);
    r = store->ops->create(store, era, "", 0, err);
    if (r < 0 && r != -EEXIST)
        return r;
    r = store->ops->create(store, path, text, strlen(text), err);
    return r == -EEXIST ? 0 : r; /* another was faster: its keys count */
}

static int found(void *opaque, const char *name, struct cg_error *err)
{
    (void)opaque;
    (void)name;
    (void)err;
    return 1;
}

int cg_project_used(struct cg_store *store, const char *name, struct cg_error *err)
{
    static const char *const levels[] = { "points", "chunks", "pages", "trash" };
    char path[PATH];
    int r = 0;

    for (size_t i = 0; r == 0 && i < sizeof levels / sizeof *levels; i++) {
        snprintf(path, sizeof path, "%s/%s", name, levels[i]);
        r = store->ops->list(store, path, found, NULL, err);
        if (r == -ENOENT || r == -ENOTDIR)
            r = 0;
    }
    return r;
}

/* Reads project.json. What is in the project stands on its keys: where there is something, new ones
 * would only hide that they are lost. */
static int read_keys(struct cg_store *store, const char *name, const char *path, char **ret_text,
                     size_t *ret_len, struct cg_error *err)
{
    int r = cg_store_read(store, path, SMALL_FILE, ret_text, ret_len, err);
    if (r != -ENOENT)
        return r;
    r = cg_project_used(store, name, err);
    if (r <= 0)
        return r < 0 ? r : -ENOENT;
    /* Unless somebody has just made the project: its keys were there first. */
    r = cg_store_read(store, path, SMALL_FILE, ret_text, ret_len, err);
    if (r != -ENOENT)
        return r;
    return cg_error_say(err, EIO,
                        "%s is missing: nothing of the project can be read without it;"
                        " put it back from a copy",
                        path);
}

int cg_project_open(struct cg_repository *repo, const char *name, bool create,
                    struct cg_project **ret_project, struct cg_error *err)
{
    struct cg_store *store = cg_repository_store(repo);
    char path[CG_PART_MAX + 32];
    CG_CLEANUP(free_text) char *text = NULL;
    size_t len;

    snprintf(path, sizeof path, "%s/" CG_PROJECT_FILE, name);
    int r = read_keys(store, name, path, &text, &len, err);
    if (r == -ENOENT && create) {
        r = create_keys(store, name, path, err);
        if (r == 0)
            r = cg_store_read(store, path, SMALL_FILE, &text, &len, err);
    }
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "the repository has no project '%s'", name);
    if (r < 0)
        return r;
    struct cg_project *p = calloc(1, sizeof *p);
    if (!p)
        return cg_error_set(err, ENOMEM, "open project %s", name);
    p->repo = repo;
    snprintf(p->name, sizeof p->name, "%s", name);
    r = cg_keys_parse(name, text, len, &p->keys, err);
    if (r < 0) {
        cg_project_free(p);
        return cg_error_prefix(err, r, "%s", path);
    }
    *ret_project = p;
    return 0;
}

void cg_project_free(struct cg_project *p)
{
    if (!p)
        return;
    cg_keys_free(p->keys);
    free(p);
}

const char *cg_project_name(const struct cg_project *p)
{
    return p->name;
}

struct cg_keys *cg_project_keys(const struct cg_project *p)
{
    return p->keys;
}

struct cg_repository *cg_project_repository(const struct cg_project *p)
{
    return p->repo;
}

static struct cg_store *store_of(const struct cg_project *p)
{
    return cg_repository_store(p->repo);
}

int cg_project_fetch(struct cg_project *p, enum cg_object_kind kind, const struct cg_ref *ref,
                     struct cg_codec *codec, void *buf, struct cg_error *err)
{
    char path[CG_OBJECT_PATH];
    size_t len;
    uint64_t total;

    cg_object_path(p->name, kind, ref, path);
    struct cg_store *store = store_of(p);
    int r = store->ops->get(store, path, cg_codec_buffer(codec), CG_OBJECT_MAX, &len, &total, err);
    if (r == -ENOENT)
        return cg_error_say(err, EIO, "%s is missing", path);
    if (r == -ENOTDIR)
        return cg_error_say(err, EIO, "%s: a directory above it is none", path);
    if (r < 0)
        return r;
    if (total > CG_OBJECT_MAX)
        return cg_error_say(err, EIO, "%s: is larger than any object", path);
    r = cg_object_decode(codec, p->keys, kind, ref, cg_codec_buffer(codec), len, buf, err);
    return r < 0 ? cg_error_prefix(err, r, "%s", path) : 0;
}

struct load {
    struct cg_project *project;
    enum cg_object_kind kind;
};

static int load(void *opaque, const struct cg_ref *ref, void *buf, struct cg_error *err)
{
    struct load *l = opaque;
    struct cg_codec *codec = cg_repository_codec(l->project->repo);

    if (!codec)
        return cg_error_set(err, ENOMEM, "read a %s", cg_object_kind_text(l->kind));
    int r = cg_project_fetch(l->project, l->kind, ref, codec, buf, err);
    cg_repository_codec_done(l->project->repo, codec);
    return r;
}

int cg_project_cached(struct cg_project *p, enum cg_object_kind kind, const struct cg_ref *ref,
                      struct cg_cached **ret_entry, struct cg_error *err)
{
    struct load l = { p, kind };

    return cg_cache_get(cg_repository_cache(p->repo), ref, load, &l, ret_entry, err);
}

static int in_page(struct cg_project *p, const struct cg_ref *page, int r, struct cg_error *err)
{
    char path[CG_OBJECT_PATH];

    return cg_error_prefix(err, r, "%s", cg_object_path(p->name, CG_OBJECT_PAGE, page, path));
}

int cg_project_page(struct cg_project *p, const struct cg_point *point, uint64_t number,
                    struct cg_ref *ret_refs, struct cg_error *err)
{
    const struct cg_ref *ref = number < point->page_count ? &point->pages[number] : NULL;
    struct cg_cached *page;

    if (!ref || cg_ref_is_zero(ref)) {
        memset(ret_refs, 0, CG_PAGE_CHUNKS * sizeof *ret_refs);
        return 0;
    }
    int r = cg_project_cached(p, CG_OBJECT_PAGE, ref, &page, err);
    if (r < 0)
        return r;
    r = cg_page_decode(cg_cached_data(page), number, point->size, ret_refs, err);
    cg_cache_release(cg_repository_cache(p->repo), page);
    return r < 0 ? in_page(p, ref, r, err) : 0;
}

int cg_project_chunk(struct cg_project *p, const struct cg_point *point, uint64_t chunk,
                     struct cg_ref *ret_ref, struct cg_error *err)
{
    const struct cg_ref *ref = &point->pages[chunk / CG_PAGE_CHUNKS];
    struct cg_cached *page;

    if (cg_ref_is_zero(ref)) {
        *ret_ref = (struct cg_ref){ .len = 0 };
        return 0;
    }
    int r = cg_project_cached(p, CG_OBJECT_PAGE, ref, &page, err);
    if (r < 0)
        return r;
    r = cg_page_entry(cg_cached_data(page), chunk % CG_PAGE_CHUNKS, ret_ref, err);
    cg_cache_release(cg_repository_cache(p->repo), page);
    if (r == 0 && ret_ref->len && ret_ref->len != cg_chunk_len(point->size, chunk))
        r = cg_error_say(err, EIO, "chunk %llu has %u bytes", (unsigned long long)chunk,
                         ret_ref->len);
    return r < 0 ? in_page(p, ref, r, err) : 0;
}

struct names {
    struct cg_project *project;
    const char *volume;
    cg_store_list_fn *fn;
    void *opaque;
};

static int list_point(void *opaque, const char *name, struct cg_error *err)
{
    struct names *n = opaque;

    if (!cg_name_point_valid(name) || strcmp(name, "latest") == 0)
        return 0;
    return n->fn(n->opaque, name, err);
}

int cg_project_points(struct cg_project *p, const char *volume, cg_store_list_fn *fn, void *opaque,
                      struct cg_error *err)
{
    struct names n = { p, volume, fn, opaque };
    char path[PATH];

    snprintf(path, sizeof path, "%s/points/%s", p->name, volume);
    int r = store_of(p)->ops->list(store_of(p), path, list_point, &n, err);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no backup of %s/%s", p->name, volume);
    return r;
}

static int list_volume(void *opaque, const char *name, struct cg_error *err)
{
    struct names *n = opaque;

    if (!cg_name_part_valid(name))
        return 0;
    int r = cg_project_points(n->project, name, found, NULL, err);
    if (r <= 0)
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    return n->fn(n->opaque, name, err);
}

int cg_project_volumes(struct cg_project *p, cg_store_list_fn *fn, void *opaque,
                       struct cg_error *err)
{
    struct names n = { p, NULL, fn, opaque };
    char path[PATH];

    snprintf(path, sizeof path, "%s/points", p->name);
    int r = store_of(p)->ops->list(store_of(p), path, list_volume, &n, err);
    return r == -ENOENT ? 0 : r;
}

static int no_point(struct cg_project *p, const char *volume, const char *name,
                    struct cg_error *err)
{
    return cg_error_say(err, ENOENT, "there is no backups/%s/%s/%s", p->name, volume, name);
}

int cg_project_point(struct cg_project *p, const char *volume, const char *name,
                     struct cg_point **ret_point, struct cg_error *err)
{
    char path[PATH];
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;

    snprintf(path, sizeof path, "%s/points/%s/%s", p->name, volume, name);
    int r = cg_store_read(store_of(p), path, CG_POINT_BYTES_MAX, &text, &len, err);
    if (r == -ENOENT)
        return no_point(p, volume, name, err);
    if (r < 0)
        return r;
    r = cg_point_decode(p->keys, p->name, volume, name, text, len, ret_point, err);
    return r < 0 ? cg_error_prefix(err, r, "%s", path) : 0;
}

int cg_project_head(struct cg_project *p, const char *volume, const char *name,
                    struct cg_point **ret_point, struct cg_error *err)
{
    char path[PATH], text[CG_POINT_HEAD];
    size_t len;

    snprintf(path, sizeof path, "%s/points/%s/%s", p->name, volume, name);
    int r = store_of(p)->ops->get(store_of(p), path, text, sizeof text, &len, NULL, err);
    if (r == -ENOENT)
        return no_point(p, volume, name, err);
    if (r < 0)
        return r;
    r = cg_point_decode_head(p->name, volume, name, text, len, ret_point, err);
    return r < 0 ? cg_error_prefix(err, r, "%s", path) : 0;
}

void cg_seen_clear(struct cg_seen *seen)
{
    while (seen->unreadable) {
        struct cg_unreadable *u = seen->unreadable;
        seen->unreadable = u->next;
        free(u);
    }
    seen->sequence = 0;
}

struct heads {
    struct cg_project *project;
    const char *volume;
    cg_head_fn *fn; /* may be NULL */
    void *opaque;
    struct cg_point *best; /* owned */
    struct cg_seen seen;   /* owned */
};

static int note_unreadable(struct heads *h, const char *name, int r, const struct cg_error *why,
                           struct cg_error *err)
{
    struct cg_unreadable *u = malloc(sizeof *u);

    if (!u)
        return cg_error_set(err, ENOMEM, "look at the points");
    snprintf(u->name, sizeof u->name, "%s", name);
    u->result = r;
    u->why = *why;
    u->next = h->seen.unreadable;
    h->seen.unreadable = u;
    return 0;
}

static int look_at_head(void *opaque, const char *name, struct cg_error *err)
{
    struct heads *h = opaque;
    struct cg_point *head;
    struct cg_error why;

    int r = cg_project_head(h->project, h->volume, name, &head, &why);
    if (r == -ENOENT)
        return 0; /* removed meanwhile */
    if (r == -ENOMEM)
        return cg_error_set(err, ENOMEM, "look at the points");
    if (r < 0) {
        r = note_unreadable(h, name, r, &why, err);
        return r == 0 && h->fn ? h->fn(h->opaque, name, NULL, why.message, err) : r;
    }
    r = h->fn ? h->fn(h->opaque, name, head, NULL, err) : 0;
    h->seen.sequence = cg_max(h->seen.sequence, head->sequence);
    if (h->best &&
        (h->best->sequence > head->sequence ||
         (h->best->sequence == head->sequence && strverscmp(h->best->name, head->name) > 0))) {
        cg_point_free(head);
    } else {
        cg_point_free(h->best);
        h->best = head;
    }
    return r;
}

/* The newest, by name, of the unreadable points that may have come after the best. */
static const struct cg_unreadable *doubt(const struct heads *h)
{
    const struct cg_unreadable *newest = NULL;

    for (const struct cg_unreadable *u = h->seen.unreadable; u; u = u->next) {
        if (h->best &&
            (strverscmp(u->name, h->best->name) < 0 || cg_point_supersedes(h->best, u->name)))
            continue;
        if (!newest || strverscmp(u->name, newest->name) > 0)
            newest = u;
    }
    return newest;
}

int cg_project_heads(struct cg_project *p, const char *volume, cg_head_fn *fn, void *opaque,
                     struct cg_point **ret_latest, struct cg_seen *ret_seen, struct cg_error *err)
{
    struct heads h = { .project = p, .volume = volume, .fn = fn, .opaque = opaque };

    int r = cg_project_points(p, volume, look_at_head, &h, err);
    const struct cg_unreadable *u = doubt(&h);
    if (r == 0 && u)
        r = cg_error_say(err, -u->result, "%s", u->why.message);
    else if (r == 0 && !h.best)
        r = no_point(p, volume, "latest", err);
    if (r == 0)
        *ret_latest = h.best;
    else
        cg_point_free(h.best);
    if (ret_seen)
        *ret_seen = h.seen;
    else
        cg_seen_clear(&h.seen);
    return r;
}

int cg_project_latest(struct cg_project *p, const char *volume, struct cg_point **ret_head,
                      struct cg_error *err)
{
    return cg_project_heads(p, volume, NULL, NULL, ret_head, NULL, err);
}
