#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/holds.h"
#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/backups/session.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/base/workers.h"

/* Thread model: cg_session_store comes from many threads; known and claims are guarded by lock,
 * everything else it uses doesn't change once cg_session_index has returned.  The rest comes from
 * one thread.
 *
 * The order of steps in begin and commit is the protocol that the collector of garbage relies on:
 * docs/format-repository.md says why each is where it is. */

#define BEGIN_TRIES 5
#define NAME_TRIES 1000
#define SEQUENCE_GAP 1000 /* left for points that can't be read but perhaps come back */
#define PATH (3 * (CG_PART_MAX + 1) + 32)

/* An id whose content a thread is storing. */
struct claim {
    const struct cg_ref *ref;
    struct claim *next;
};

struct pinned {
    struct cg_point *point;
    struct pinned *next;
};

struct cg_session {
    struct cg_project *project;
    struct cg_store *store;
    struct cg_store_session *open;
    char volume[CG_PART_MAX + 1];
    char id[CG_SESSION_ID + 1];
    uint32_t era;
    struct cg_seen seen; /* the volume's points */
    bool doubt;          /* which of them is the latest */
    struct pinned *pinned;
    struct cg_point *base; /* one of pinned, or NULL */
    char no_base[256];
    struct cg_refs *bad_chunks, *bad_pages;
    pthread_mutex_t lock;
    struct cg_refs *known; /* guarded by lock: chunks and pages to rely on */
    /* Guarded by lock: recorded as damaged, and stored anew in their place; by kind. */
    struct cg_refs *mended_chunks, *mended_pages;
    struct claim *claims;  /* guarded by lock: on the stacks of those who store */
    pthread_cond_t stored; /* a claim was given up */
};

/* What the session's file says: {"format", "session": {"id", "era", "pins"}}; the era is null until
 * it is known. */
static int write_session(struct cg_session *s, json_t *pins, struct cg_error *err)
{
    json_t *era = s->era ? json_integer(s->era) : json_null();
    CG_CLEANUP(cg_json_cleanup)
    json_t *doc = json_pack("{s:i, s:{s:s, s:o, s:O}}", "format", 1, "session", "id", s->id, "era",
                            era, "pins", pins);
    CG_CLEANUP(cg_free) char *text = doc ? json_dumps(doc, 0) : NULL;

    if (!text)
        return cg_error_set(err, ENOMEM, "write the session");
    return s->store->ops->session_write(s->open, text, strlen(text), err);
}

static int read_era(void *opaque, const char *name, struct cg_error *err)
{
    struct cg_session *s = opaque;
    uint32_t era;

    (void)err;
    if (cg_object_era(name, &era))
        s->era = (uint32_t)cg_max(s->era, era);
    return 0;
}

static int enter_era(struct cg_session *s, json_t *pins, struct cg_error *err)
{
    char path[PATH];

    snprintf(path, sizeof path, "%s/era", cg_project_name(s->project));
    int r = s->store->ops->list(s->store, path, read_era, s, err);
    if (r < 0)
        return r;
    if (s->era == 0)
        return cg_error_say(err, EIO, "%s has no era", path);
    return write_session(s, pins, err);
}

/* The latest points of the volumes, by name: candidates for pins. */
static int choose_pin(void *opaque, const char *volume, struct cg_error *err)
{
    struct cg_session *s = opaque;
    bool own = strcmp(volume, s->volume) == 0;
    struct cg_point *head;

    int r = cg_project_heads(s->project, volume, NULL, NULL, &head, own ? &s->seen : NULL, err);
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        /* What can't be read isn't relied on. */
        s->doubt = s->doubt || own;
        if (own)
            snprintf(s->no_base, sizeof s->no_base, "the last point can't be read: %.200s",
                     err->message);
        return 0;
    }
    struct pinned *p = calloc(1, sizeof *p);
    if (!p) {
        cg_point_free(head);
        return cg_error_set(err, ENOMEM, "pin a point");
    }
    p->point = head;
    p->next = s->pinned;
    s->pinned = p;
    return 0;
}

static json_t *pins_of(const struct cg_session *s)
{
    json_t *pins = json_array();

    for (const struct pinned *p = s->pinned; pins && p; p = p->next) {
        json_t *pin = json_sprintf("%s/%s", p->point->volume, p->point->name);
        if (json_array_append_new(pins, pin) < 0) {
            json_decref(pins);
            return NULL;
        }
    }
    return pins;
}

/* Replaces the heads by the points, read after they were pinned: one that is still there then stays
 * for the collector to see as long as the session does.  The others are dropped. */
static int check_pins(struct cg_session *s, bool *ret_dropped, struct cg_error *err)
{
    for (struct pinned **next = &s->pinned; *next;) {
        struct pinned *p = *next;
        struct cg_point *point;
        bool own = strcmp(p->point->volume, s->volume) == 0;
        int r = cg_project_point(s->project, p->point->volume, p->point->name, &point, err);
        if (r == -ENOMEM)
            return r;
        cg_point_free(p->point);
        if (r == 0) {
            p->point = point;
            if (own)
                s->base = point;
            next = &p->next;
            continue;
        }
        if (own)
            snprintf(s->no_base, sizeof s->no_base, "the last point can't be read: %.200s",
                     err->message);
        *next = p->next;
        free(p);
        *ret_dropped = true;
    }
    return 0;
}

static int pin(struct cg_session *s, struct cg_error *err)
{
    bool dropped = false;

    int r = cg_project_volumes(s->project, choose_pin, s, err);
    if (r < 0 || !s->pinned)
        return r;
    CG_CLEANUP(cg_json_cleanup) json_t *pins = pins_of(s);
    if (!pins)
        return cg_error_set(err, ENOMEM, "pin points");
    r = write_session(s, pins, err);
    if (r < 0)
        return r;
    r = check_pins(s, &dropped, err);
    if (r < 0 || !dropped)
        return r;
    CG_CLEANUP(cg_json_cleanup) json_t *left = pins_of(s);
    if (!left)
        return cg_error_set(err, ENOMEM, "pin points");
    return write_session(s, left, err);
}

/* A session's file with no pins and era unknown.  An id that somebody revokes at once, taking the
 * session for a dead one's, is given up for another. */
static int open_session(struct cg_session *s, json_t *pins, struct cg_error *err)
{
    uint8_t random[8];
    char hex[17];
    int r = -EAGAIN;

    for (unsigned i = 0; i < BEGIN_TRIES && r == -EAGAIN; i++) {
        cg_random(random, sizeof random);
        cg_hex(hex, random, sizeof random);
        snprintf(s->id, sizeof s->id, "%.8s-%s",
                 cg_repository_uuid(cg_project_repository(s->project)), hex);
        r = s->store->ops->session_begin(s->store, cg_project_name(s->project), s->volume, s->id,
                                         &s->open, err);
    }
    return r < 0 ? r : write_session(s, pins, err);
}

int cg_session_begin(struct cg_repository *repository, const char *project, const char *volume,
                     struct cg_session **ret_session, struct cg_error *err)
{
    struct cg_session *s = calloc(1, sizeof *s);
    json_t *none = json_array();
    int r;

    if (!s || !none) {
        r = cg_error_set(err, ENOMEM, "begin a session");
        goto fail;
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->stored, NULL);
    s->store = cg_repository_store(repository);
    snprintf(s->volume, sizeof s->volume, "%s", volume);
    snprintf(s->no_base, sizeof s->no_base, "there is no earlier point");
    s->known = cg_refs_new(false);
    s->mended_chunks = cg_refs_new(true);
    s->mended_pages = cg_refs_new(true);
    if (!s->known || !s->mended_chunks || !s->mended_pages) {
        r = cg_error_set(err, ENOMEM, "begin a session");
        goto fail;
    }
    r = cg_repository_project(repository, project, true, &s->project, err);
    if (r < 0)
        goto fail;
    r = open_session(s, none, err);
    if (r < 0)
        goto fail;
    r = enter_era(s, none, err);
    if (r < 0)
        goto fail;
    r = pin(s, err);
    if (r < 0)
        goto fail;
    r = cg_project_damaged(s->project, CG_OBJECT_CHUNK, &s->bad_chunks, err);
    if (r < 0)
        goto fail;
    r = cg_project_damaged(s->project, CG_OBJECT_PAGE, &s->bad_pages, err);
    if (r < 0)
        goto fail;
    json_decref(none);
    *ret_session = s;
    return 0;
fail:
    json_decref(none);
    cg_session_end(s);
    return r;
}

void cg_session_end(struct cg_session *s)
{
    if (!s)
        return;
    if (s->open)
        s->store->ops->session_end(s->open);
    while (s->pinned) {
        struct pinned *p = s->pinned;
        s->pinned = p->next;
        cg_point_free(p->point);
        free(p);
    }
    cg_refs_free(s->bad_chunks);
    cg_refs_free(s->bad_pages);
    cg_refs_free(s->known);
    cg_refs_free(s->mended_chunks);
    cg_refs_free(s->mended_pages);
    cg_seen_clear(&s->seen);
    pthread_cond_destroy(&s->stored);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const char *cg_session_id(const struct cg_session *s)
{
    return s->id;
}

struct cg_project *cg_session_project(const struct cg_session *s)
{
    return s->project;
}

const struct cg_point *cg_session_base(const struct cg_session *s, const char **ret_why)
{
    if (!s->base)
        *ret_why = s->no_base;
    return s->base;
}

static int sound_page(struct cg_session *s, const struct cg_point *point, uint64_t number,
                      struct cg_ref *ret_refs, struct cg_error *err)
{
    const struct cg_ref *ref = &point->pages[number];

    if (!cg_ref_is_zero(ref) && cg_refs_find(s->bad_pages, ref))
        return cg_error_say(err, EIO, "page %" PRIu64 " is recorded as damaged", number);
    return cg_project_page(s->project, point, number, ret_refs, err);
}

int cg_session_base_page(struct cg_session *s, uint64_t number, struct cg_ref *ret_refs,
                         bool *ret_damaged, struct cg_error *err)
{
    int r = sound_page(s, s->base, number, ret_refs, err);

    for (unsigned i = 0; r == 0 && i < CG_PAGE_CHUNKS; i++)
        ret_damaged[i] = !cg_ref_is_zero(&ret_refs[i]) && cg_refs_find(s->bad_chunks, &ret_refs[i]);
    return r;
}

static int know(struct cg_session *s, const struct cg_ref *ref, struct cg_error *err)
{
    CG_LOCK(&s->lock);
    int r = cg_refs_add(s->known, ref, err);
    return r < 0 ? r : 0;
}

/* As know, for what this session stored: it may have taken the place of a damaged object. */
static int know_stored(struct cg_session *s, enum cg_object_kind kind, const struct cg_ref *ref,
                       struct cg_error *err)
{
    bool page = kind == CG_OBJECT_PAGE;
    int r = 0;

    CG_LOCK(&s->lock);
    if (cg_refs_find(page ? s->bad_pages : s->bad_chunks, ref))
        r = cg_refs_add(page ? s->mended_pages : s->mended_chunks, ref, err);
    if (r >= 0)
        r = cg_refs_add(s->known, ref, err);
    return r < 0 ? r : 0;
}

struct index_page {
    const struct cg_point *point;
    uint64_t number;
};

struct index {
    struct cg_session *session;
    struct index_page *pages;
};

/* Puts a page and what it refers to into the index.  One that can't be read isn't relied on, and
 * neither is what only it names. */
static int index_one(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct index *x = opaque;
    struct cg_session *s = x->session;
    const struct index_page *p = &x->pages[item];
    struct cg_ref refs[CG_PAGE_CHUNKS];

    (void)worker;
    int r = sound_page(s, p->point, p->number, refs, err);
    if (r < 0)
        return r == -ENOMEM ? r : 0;
    r = know(s, &p->point->pages[p->number], err);
    for (unsigned i = 0; r == 0 && i < CG_PAGE_CHUNKS; i++) {
        if (!cg_ref_is_zero(&refs[i]) && !cg_refs_find(s->bad_chunks, &refs[i]))
            r = know(s, &refs[i], err);
    }
    return r;
}

int cg_session_index(struct cg_session *s, struct cg_error *err)
{
    size_t count = 0;
    struct index x = { .session = s };

    for (const struct pinned *p = s->pinned; p; p = p->next)
        count += p->point->page_count;
    x.pages = calloc(count ? count : 1, sizeof *x.pages);
    struct cg_refs *seen = cg_refs_new(true);
    int r = x.pages && seen ? 0 : cg_error_set(err, ENOMEM, "read the pinned points");
    count = 0;
    for (const struct pinned *p = s->pinned; p; p = p->next) {
        for (uint64_t i = 0; r >= 0 && i < p->point->page_count; i++) {
            if (cg_ref_is_zero(&p->point->pages[i]))
                continue;
            r = cg_refs_add(seen, &p->point->pages[i], err);
            if (r == 1)
                x.pages[count++] = (struct index_page){ p->point, i };
        }
    }
    cg_refs_free(seen);
    if (r >= 0)
        r = cg_parallel(count, 0, index_one, &x, err);
    free(x.pages);
    return r;
}

static bool is_claimed_locked(const struct cg_session *s, const struct cg_ref *ref)
{
    for (const struct claim *c = s->claims; c; c = c->next) {
        if (memcmp(c->ref->id, ref->id, sizeof ref->id) == 0)
            return true;
    }
    return false;
}

/* True if ref is known, perhaps after another thread has stored it; else it's the caller's to
 * store, and then to unclaim. */
static bool find_or_claim(struct cg_session *s, struct cg_ref *ref, struct claim *claim)
{
    CG_LOCK(&s->lock);
    for (;;) {
        const struct cg_ref *known = cg_refs_find(s->known, ref);
        if (known) {
            *ref = *known;
            return true;
        }
        if (!is_claimed_locked(s, ref))
            break;
        pthread_cond_wait(&s->stored, &s->lock);
    }
    *claim = (struct claim){ ref, s->claims };
    s->claims = claim;
    return false;
}

static void unclaim(struct cg_session *s, struct claim *claim)
{
    CG_LOCK(&s->lock);
    struct claim **c = &s->claims;
    while (*c != claim)
        c = &(*c)->next;
    *c = claim->next;
    pthread_cond_broadcast(&s->stored);
}

static int store(struct cg_session *s, struct cg_codec *codec, enum cg_object_kind kind,
                 const void *plain, const struct cg_ref *ref, uint64_t *ret_stored,
                 struct cg_error *err)
{
    struct cg_encoded object;
    char path[CG_OBJECT_PATH];

    int r = cg_object_encode(codec, kind, ref->id, plain, ref->len, &object, err);
    if (r < 0)
        return r;
    cg_object_path(cg_project_name(s->project), kind, ref, path);
    r = s->store->ops->session_put(s->open, path, object.header, sizeof object.header,
                                   object.payload, object.payload_len, err);
    if (r == 0)
        r = know_stored(s, kind, ref, err);
    if (r == 0)
        *ret_stored = sizeof object.header + object.payload_len;
    return r;
}

int cg_session_store(struct cg_session *s, struct cg_codec *codec, enum cg_object_kind kind,
                     const void *plain, uint32_t len, struct cg_ref *ret_ref, uint64_t *ret_stored,
                     struct cg_error *err)
{
    struct cg_ref ref = { .era = s->era, .len = len };
    struct claim claim;

    int r = cg_keys_object_id(cg_project_keys(s->project), kind, plain, len, ref.id, err);
    if (r < 0)
        return r;
    if (find_or_claim(s, &ref, &claim)) {
        *ret_ref = ref;
        *ret_stored = 0;
        return 0;
    }
    r = store(s, codec, kind, plain, &ref, ret_stored, err);
    unclaim(s, &claim);
    if (r == 0)
        *ret_ref = ref;
    return r;
}

/* A name that the trash has isn't used again before it was collected. */
static int commit_locked(struct cg_session *s, const char *name, struct cg_error *err)
{
    char path[PATH];

    int r = cg_point_in_trash(s->project, s->volume, name, err);
    if (r != 0)
        return r < 0 ? r : -EEXIST;
    snprintf(path, sizeof path, "%s/points/%s/%s", cg_project_name(s->project), s->volume, name);
    return s->store->ops->session_commit(s->open, path, err);
}

static int commit_as(struct cg_session *s, const struct cg_point *point, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;

    int r = cg_point_encode(point, cg_project_keys(s->project), &text, &len, err);
    if (r < 0)
        return r;
    r = s->store->ops->session_write(s->open, text, len, err);
    if (r < 0)
        return r;
    int lock = cg_point_lock_names(s->project, s->volume, err);
    if (lock < 0)
        return lock;
    r = commit_locked(s, point->name, err);
    s->store->ops->unlock(s->store, lock);
    return r;
}

/* Damaged objects that this session replaced, durably, are right again.  A record that stays only
 * costs the next backup another copy. */
static void strike_mended(struct cg_session *s)
{
    for (size_t i = 0; i < cg_refs_count(s->mended_chunks); i++)
        cg_project_strike(s->project, CG_OBJECT_CHUNK, cg_refs_at(s->mended_chunks, i), NULL);
    for (size_t i = 0; i < cg_refs_count(s->mended_pages); i++)
        cg_project_strike(s->project, CG_OBJECT_PAGE, cg_refs_at(s->mended_pages, i), NULL);
}

static int newest_first(const void *a, const void *b)
{
    return -strverscmp(*(char *const *)a, *(char *const *)b);
}

/* Which unreadable points this one comes after though its name says otherwise: the clock was set
 * back.  If there are too many, the others stay in the way until they are deleted. */
static int supersede(struct cg_session *s, struct cg_point *point, struct cg_error *err)
{
    size_t count = 0, n = 0;
    int r = 0;

    for (const struct cg_unreadable *u = s->seen.unreadable; u; u = u->next)
        count++;
    CG_CLEANUP(cg_free) char *memory = malloc((count + 1) * sizeof(char *));
    const char **names = (const char **)memory;
    json_decref(point->superseded);
    point->superseded = json_array();
    if (!names || !point->superseded)
        return cg_error_set(err, ENOMEM, "write the point");
    for (const struct cg_unreadable *u = s->seen.unreadable; u; u = u->next) {
        if (strverscmp(u->name, point->name) > 0)
            names[n++] = u->name;
    }
    qsort(names, n, sizeof *names, newest_first);
    for (size_t i = 0; r == 0 && i < cg_min(n, CG_POINT_SUPERSEDED); i++)
        r = json_array_append_new(point->superseded, json_string(names[i]));
    return r < 0 ? cg_error_set(err, ENOMEM, "write the point") : 0;
}

int cg_session_commit(struct cg_session *s, struct cg_point *point, struct cg_error *err)
{
    int r = s->store->ops->session_sync(s->open, err);

    if (r < 0)
        return r;
    json_decref(point->pins);
    point->pins = pins_of(s);
    if (!point->pins)
        return cg_error_set(err, ENOMEM, "write the point");
    snprintf(point->project, sizeof point->project, "%s", cg_project_name(s->project));
    snprintf(point->volume, sizeof point->volume, "%s", s->volume);
    snprintf(point->tool, sizeof point->tool, "cowgate " PACKAGE_VERSION);
    snprintf(point->session, sizeof point->session, "%s", s->id);
    point->era = s->era;
    point->sequence = s->seen.sequence + 1 + (s->doubt ? SEQUENCE_GAP : 0);
    r = -EEXIST;
    for (unsigned i = 1; i < NAME_TRIES && r == -EEXIST; i++) {
        cg_point_name(point->time, i, point->name);
        r = supersede(s, point, err);
        if (r == 0)
            r = commit_as(s, point, err);
    }
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "all names of a point at this second are taken");
    if (r == 0)
        strike_mended(s);
    return r;
}
