#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/page.h"
#include "core/backups/session.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/pace.h"
#include "core/base/workers.h"
#include "core/jobs/backup.h"
#include "core/jobs/backup_audit.h"
#include "core/jobs/backup_plan.h"
#include "core/jobs/backup_source.h"
#include "core/jobs/chunk_workers.h"

/* Thread model: the chunks of the audit are the items of one parallel loop, then those of the plan
 * are of another; each worker has its own buffer and codec.  A page's references are written by
 * whoever has the chunk, each into its own place; who finishes a page's last chunk (left, atomic)
 * stores the page and frees it.  So about as many pages are in memory as there are workers,
 * whatever the size.  The counters are atomic. */

/* A page of the new point with planned chunks: plan items first to end - 1. */
struct page {
    uint64_t number;
    size_t first, end;
    _Atomic size_t left;           /* of them */
    _Atomic(struct cg_ref *) refs; /* made for the first that is done */
};

struct backup {
    const struct cg_backup_options *options;
    struct cg_session *session;
    struct cg_image *image;
    const struct cg_point *base;       /* of an incremental; else NULL */
    const struct cg_point *distrusted; /* the last point, if an audit found its diff wrong */
    struct cg_plan plan;
    struct cg_audit audit;
    uint64_t total; /* planned and audited bytes */
    size_t page_count;
    struct page *pages;
    uint32_t *page_of; /* plan item -> index into pages */
    struct cg_point *point;
    struct cg_chunk_workers workers;
    struct cg_pace pace;
    _Atomic uint64_t bytes_read, chunks_read, bytes_audited, chunks_audited, bytes_stored,
        chunks_stored, pages_stored, chunks_known, done;
};

/* The references of page that are being found, 512 of them. */
static struct cg_ref *page_refs(struct page *page)
{
    struct cg_ref *refs = atomic_load(&page->refs), *none = NULL;

    if (refs)
        return refs;
    refs = calloc(CG_PAGE_CHUNKS, sizeof *refs);
    if (refs && !atomic_compare_exchange_strong(&page->refs, &none, refs)) {
        free(refs);
        refs = none;
    }
    return refs;
}

/* What the page says where nothing was planned. */
static int old_refs(struct backup *b, const struct page *page, struct cg_ref *ret,
                    struct cg_error *err)
{
    uint64_t in_page =
        cg_min(CG_PAGE_CHUNKS, cg_chunk_count(b->plan.size) - page->number * CG_PAGE_CHUNKS);
    bool damaged[CG_PAGE_CHUNKS];

    memset(ret, 0, CG_PAGE_CHUNKS * sizeof *ret);
    if (!b->base || page->number >= b->base->page_count || page->end - page->first == in_page)
        return 0;
    return cg_session_base_page(b->session, page->number, ret, damaged, err);
}

static int store_page(struct backup *b, struct page *page, struct cg_chunk_worker *w,
                      struct cg_error *err)
{
    struct cg_ref refs[CG_PAGE_CHUNKS], ref = { .len = 0 };
    uint8_t bytes[CG_PAGE_BYTES];
    uint64_t stored = 0;

    int r = old_refs(b, page, refs, err);
    if (r < 0)
        return r;
    struct cg_ref *found = atomic_load(&page->refs);
    for (size_t i = page->first; i < page->end; i++) {
        uint64_t at = cg_plan_chunk(&b->plan, i) % CG_PAGE_CHUNKS;
        refs[at] = found[at];
    }
    cg_page_encode(refs, bytes);
    if (!cg_is_zero(bytes, sizeof bytes))
        r = cg_session_store(b->session, w->codec, CG_OBJECT_PAGE, bytes, sizeof bytes, &ref,
                             &stored, err);
    if (r < 0)
        return r;
    b->point->pages[page->number] = ref;
    if (stored) {
        atomic_fetch_add(&b->pages_stored, 1);
        atomic_fetch_add(&b->bytes_stored, stored);
    }
    atomic_store(&page->refs, NULL);
    free(found);
    return 0;
}

static int read_chunk(struct backup *b, uint64_t chunk, uint32_t len, struct cg_chunk_worker *w,
                      struct cg_error *err)
{
    cg_pace_wait(&b->pace, len);
    int r = cg_image_pread(b->image, w->buf, len, chunk * CG_CHUNK_SIZE, err);
    return r < 0 ? cg_error_prefix(err, r, "read the source at %" PRIu64, chunk * CG_CHUNK_SIZE)
                 : 0;
}

static int store_chunk(struct backup *b, uint64_t chunk, struct cg_chunk_worker *w,
                       struct cg_ref *ret, struct cg_error *err)
{
    uint32_t len = cg_chunk_len(b->plan.size, chunk);
    uint64_t stored;

    int r = read_chunk(b, chunk, len, w, err);
    if (r < 0)
        return r;
    atomic_fetch_add(&b->bytes_read, len);
    atomic_fetch_add(&b->chunks_read, 1);
    *ret = (struct cg_ref){ .len = 0 };
    if (cg_is_zero(w->buf, len))
        return 0;
    r = cg_session_store(b->session, w->codec, CG_OBJECT_CHUNK, w->buf, len, ret, &stored, err);
    if (r < 0)
        return r;
    atomic_fetch_add(stored ? &b->chunks_stored : &b->chunks_known, 1);
    atomic_fetch_add(&b->bytes_stored, stored);
    return 0;
}

static int report(struct backup *b, uint64_t len, struct cg_error *err)
{
    const struct cg_progress *p = b->options->progress;
    uint64_t done = atomic_fetch_add(&b->done, len) + len;

    if (p && p->report(p->opaque, done, b->total) != 0)
        return cg_error_say(err, ECANCELED, "the backup was cancelled");
    return 0;
}

static int do_chunk(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct backup *b = opaque;
    struct cg_chunk_worker *w = &b->workers.v[worker];
    struct page *page = &b->pages[b->page_of[item]];
    uint64_t chunk = cg_plan_chunk(&b->plan, item);
    struct cg_ref *refs = page_refs(page);

    if (!refs)
        return cg_error_set(err, ENOMEM, "back up a page");
    int r = 0;
    if (!cg_plan_is_zero(&b->plan, item))
        r = store_chunk(b, chunk, w, &refs[chunk % CG_PAGE_CHUNKS], err);
    if (r == 0 && atomic_fetch_sub(&page->left, 1) == 1)
        r = store_page(b, page, w, err);
    if (r == 0)
        r = report(b, cg_chunk_len(b->plan.size, chunk), err);
    return r;
}

/* Whatever comes of the record, this backup fails. */
static int diff_is_wrong(struct backup *b, uint64_t chunk, struct cg_error *err)
{
    struct cg_error why;
    int r = cg_project_distrust(cg_session_project(b->session), b->base, &why);

    return cg_error_say(err, EBADMSG,
                        "chunk %" PRIu64 " (at %" PRIu64 ") isn't what it was in point %s, though "
                        "the diff since then doesn't name it: the diff is wrong. No point was "
                        "made; %s%s",
                        chunk, chunk * CG_CHUNK_SIZE, b->base->name,
                        r < 0 ? "run the next backup with --full, since this couldn't be recorded: "
                              : "the next backup reads everything",
                        r < 0 ? why.message : "");
}

static int audit_chunk(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct backup *b = opaque;
    struct cg_chunk_worker *w = &b->workers.v[worker];
    const struct cg_audit_chunk *chunk = &b->audit.v[item];
    uint32_t len = cg_chunk_len(b->plan.size, chunk->chunk);

    int r = read_chunk(b, chunk->chunk, len, w, err);
    if (r < 0)
        return r;
    atomic_fetch_add(&b->bytes_audited, len);
    atomic_fetch_add(&b->chunks_audited, 1);
    r = cg_audit_compare(chunk, cg_session_project(b->session), w->buf, len, err);
    if (r < 0)
        return r;
    return r == 0 ? diff_is_wrong(b, chunk->chunk, err) : report(b, len, err);
}

/* Groups the plan's items by page, and takes the others over from the base. */
static int plan_pages(struct backup *b, struct cg_error *err)
{
    struct cg_point *p = b->point;

    p->page_count = cg_page_count(b->plan.size);
    if (p->page_count > CG_POINT_PAGES_MAX)
        return cg_error_say(err, EFBIG, "more than 2 PiB can't be backed up");
    p->pages = calloc(p->page_count ? p->page_count : 1, sizeof *p->pages);
    b->page_of = calloc(b->plan.count ? b->plan.count : 1, sizeof *b->page_of);
    b->pages = calloc(cg_min(p->page_count, b->plan.count) + 1, sizeof *b->pages);
    if (!p->pages || !b->page_of || !b->pages)
        return cg_error_set(err, ENOMEM, "plan a backup");
    if (b->base)
        memcpy(p->pages, b->base->pages,
               cg_min(p->page_count, b->base->page_count) * sizeof *p->pages);
    struct page *page = NULL;
    for (size_t i = 0; i < b->plan.count; i++) {
        uint64_t chunk = cg_plan_chunk(&b->plan, i);
        if (!page || page->number != chunk / CG_PAGE_CHUNKS) {
            page = &b->pages[b->page_count++];
            page->number = chunk / CG_PAGE_CHUNKS;
            page->first = i;
        }
        page->end = i + 1;
        atomic_fetch_add(&page->left, 1);
        b->page_of[i] = (uint32_t)(b->page_count - 1);
        b->total += cg_chunk_len(b->plan.size, chunk);
    }
    for (size_t i = 0; i < b->audit.count; i++)
        b->total += cg_chunk_len(b->plan.size, b->audit.v[i].chunk);
    return 0;
}

/* By the diff, and the audit of it. */
static int plan_increment(struct backup *b, const struct cg_backup_source *source,
                          const struct cg_name *from, const struct cg_point *base,
                          struct cg_error *err)
{
    int r = cg_plan_diff(&b->plan, b->session, source->space, from, &source->name, err);

    if (r == 0)
        r = cg_audit_choose(&b->audit, b->session, &b->plan, b->options->audit, err);
    if (r == 0)
        b->base = base;
    return r;
}

/* Which chunks are looked at: those that changed since the last point, or all. */
static int plan(struct backup *b, const struct cg_backup_source *source,
                struct cg_backup_result *res, struct cg_error *err)
{
    const char *why;
    const struct cg_point *base = cg_session_base(b->session, &why);
    struct cg_name from;
    int r;

    b->plan.size = cg_image_size(b->image);
    if (base) {
        r = cg_project_distrusted(cg_session_project(b->session), base, err);
        if (r < 0)
            return r;
        b->distrusted = r ? base : NULL;
    }
    if (b->options->full)
        snprintf(res->reason, sizeof res->reason, "a full backup was asked for");
    else if (!base)
        snprintf(res->reason, sizeof res->reason, "%s", why);
    else if (b->distrusted)
        snprintf(res->reason, sizeof res->reason,
                 "an audit found what is said to have changed since the last point wrong");
    else if (cg_backup_source_base(source, base, &from, res->reason)) {
        r = plan_increment(b, source, &from, base, err);
        if (r == 0) {
            res->incremental = true;
            return 0;
        }
        if (r == -ENOMEM)
            return r;
        /* Reading everything needs no diff; the reason says what is wrong with it. */
        cg_plan_clear(&b->plan);
        snprintf(res->reason, sizeof res->reason, "%.200s", err->message);
    }
    return cg_plan_full(&b->plan, b->image, err);
}

static int start_workers(struct backup *b, struct cg_error *err)
{
    /* More than processors, so that some may wait for the source, which may be far away. */
    uint64_t count = cg_min(cg_processors() + 4, cg_max(b->plan.count, b->audit.count));

    return cg_chunk_workers_init(&b->workers, cg_project_repository(cg_session_project(b->session)),
                                 count, err);
}

static void clear(struct backup *b)
{
    cg_chunk_workers_clear(&b->workers);
    for (size_t i = 0; i < b->page_count; i++)
        free(atomic_load(&b->pages[i].refs));
    free(b->pages);
    free(b->page_of);
    cg_plan_clear(&b->plan);
    cg_audit_clear(&b->audit);
    cg_point_free(b->point);
    cg_pace_clear(&b->pace);
}

static void describe(struct backup *b, const struct cg_backup_source *source)
{
    struct cg_point *p = b->point;
    const struct cg_backup_options *o = b->options;

    p->size = b->plan.size;
    p->original_size = cg_image_original_size(b->image);
    p->time = source->time;
    snprintf(p->source.text, sizeof p->source.text, "%s", o->source_text ? o->source_text : "");
    p->source.identity = source->identity;
    if (source->space)
        snprintf(p->source.snapshot, sizeof p->source.snapshot, "%s", source->name.snapshot);
    if (b->base)
        snprintf(p->parent, sizeof p->parent, "%s", b->base->name);
}

static void result(struct backup *b, struct cg_backup_result *res)
{
    snprintf(res->point, sizeof res->point, "backups/%s/%s/%s", b->point->project, b->point->volume,
             b->point->name);
    res->size = b->point->size;
    res->bytes_read = b->bytes_read;
    res->chunks_read = b->chunks_read;
    res->bytes_audited = b->bytes_audited;
    res->chunks_audited = b->chunks_audited;
    res->bytes_stored = b->bytes_stored;
    res->chunks_stored = b->chunks_stored;
    res->pages_stored = b->pages_stored;
    res->chunks_known = b->chunks_known;
}

/* From the opened source to the committed point. */
static int run(struct backup *b, const struct cg_backup_source *source,
               struct cg_backup_result *res, struct cg_error *err)
{
    b->image = source->image;
    b->point = cg_point_new();
    if (!b->point)
        return cg_error_set(err, ENOMEM, "start a backup");
    if (cg_image_size(b->image) == 0)
        return cg_error_say(err, EINVAL, "the source is empty");
    int r = plan(b, source, res, err);
    if (r == 0)
        r = plan_pages(b, err);
    if (r == 0)
        r = cg_session_index(b->session, err);
    if (r == 0)
        r = start_workers(b, err);
    if (r == 0)
        r = cg_parallel(b->audit.count, b->workers.count, audit_chunk, b, err);
    if (r == 0)
        r = cg_parallel(b->plan.count, b->workers.count, do_chunk, b, err);
    if (r < 0)
        return r;
    describe(b, source);
    r = cg_session_commit(b->session, b->point, err);
    if (r < 0)
        return r;
    if (b->distrusted) /* nobody asks any more: no harm if it stays */
        cg_project_forget_distrust(cg_session_project(b->session), b->distrusted, NULL);
    result(b, res);
    return 0;
}

/* What isn't there is told by its own name, not by that of a snapshot of it, and before a session.
 */
static int check_source(const struct cg_backup_options *o, struct cg_error *err)
{
    struct cg_name head = o->source;
    struct cg_identity id;

    if (!o->space)
        return 0;
    head.snapshot[0] = '\0';
    int r = cg_space_identify(o->space, &head, &id, err);
    return r == -ENOENT ? r : 0;
}

int cg_backup(struct cg_repository *repository, const struct cg_backup_options *options,
              struct cg_backup_result *ret, struct cg_error *err)
{
    struct backup b = { .options = options };
    struct cg_backup_source source = { .space = NULL };
    struct cg_backup_result res = { .incremental = false };

    int r = check_source(options, err);
    if (r == 0)
        r = cg_session_begin(repository, options->project, options->volume, &b.session, err);
    if (r < 0)
        return r;
    cg_pace_init(&b.pace, options->rate);
    r = cg_backup_source_open(&source, options, b.session, err);
    if (r == 0) {
        r = run(&b, &source, &res, err);
        cg_backup_source_close(&source, r == 0);
    }
    clear(&b);
    cg_session_end(b.session);
    if (r < 0)
        return r;
    /* The point is there, whatever becomes of older snapshots. */
    struct cg_error why;
    if (cg_backup_source_sweep(&source, repository, options->progress, &why) < 0)
        snprintf(res.warning, sizeof res.warning, "old snapshots of the source stay: %.400s",
                 why.message);
    *ret = res;
    return 0;
}
