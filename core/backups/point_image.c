#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/page.h"
#include "core/backups/repository.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"

/* Thread model: a point doesn't change; next has where the last reads of a few readers ended, hints
 * that any thread may overwrite; reading is atomic. */

#define AHEAD 2        /* chunks read ahead of a sequential reader */
#define PREFETCH 8     /* chunks that one prefetch call begins at most */
#define NEAR (1 << 20) /* parallel requests of one sequential reader come a little out of order */
#define READERS 8

struct point_image {
    struct cg_project *project;
    struct cg_repository *repo;
    struct cg_point *point; /* owned */
    _Atomic uint64_t next[READERS];
    atomic_uint turn;    /* whose place a new reader takes */
    atomic_uint reading; /* reads in flight */
};

int cg_project_read(struct cg_project *project, const struct cg_ref *ref, void *buf, size_t len,
                    uint32_t off, struct cg_error *err)
{
    struct cg_cached *entry;

    if (cg_ref_is_zero(ref)) {
        memset(buf, 0, len);
        return 0;
    }
    int r = cg_project_cached(project, CG_OBJECT_CHUNK, ref, &entry, err);
    if (r < 0)
        return r;
    memcpy(buf, cg_cached_data(entry) + off, len);
    cg_cache_release(cg_repository_cache(cg_project_repository(project)), entry);
    return 0;
}

/* Reads len bytes at off of one chunk. */
static int read_chunk(struct point_image *p, uint64_t chunk, void *buf, size_t len, uint32_t off,
                      struct cg_error *err)
{
    struct cg_ref ref;
    int r = cg_project_chunk(p->project, p->point, chunk, &ref, err);

    return r < 0 ? r : cg_project_read(p->project, &ref, buf, len, off, err);
}

/* Begins to load chunks from first on, count of them; how it goes is for the reader to hear. */
static void read_ahead(struct point_image *p, uint64_t first, uint64_t count)
{
    uint64_t chunks = cg_chunk_count(p->point->size);
    struct cg_ref ref;

    for (uint64_t i = first; i < first + count && i < chunks; i++) {
        if (cg_project_chunk(p->project, p->point, i, &ref, NULL) < 0)
            return;
        cg_repository_prefetch(p->repo, p->project, &ref);
    }
}

/* True if a read goes on where one of the last ones ended. */
static bool goes_on(struct point_image *p, size_t len, uint64_t off)
{
    for (unsigned i = 0; i < READERS; i++) {
        uint64_t next = atomic_load_explicit(&p->next[i], memory_order_relaxed);
        if ((off > next ? off - next : next - off) <= NEAR) {
            atomic_store_explicit(&p->next[i], off + len, memory_order_relaxed);
            return true;
        }
    }
    unsigned place = atomic_fetch_add(&p->turn, 1) % READERS;
    atomic_store_explicit(&p->next[place], off + len, memory_order_relaxed);
    return false;
}

static int read_chunks(struct point_image *p, uint8_t *to, size_t len, uint64_t off,
                       struct cg_error *err)
{
    while (len > 0) {
        uint32_t in = (uint32_t)(off % CG_CHUNK_SIZE);
        size_t n = (size_t)cg_min(len, CG_CHUNK_SIZE - in);
        int r = read_chunk(p, off / CG_CHUNK_SIZE, to, n, in, err);
        if (r < 0)
            return r;
        to += n;
        off += n;
        len -= n;
    }
    return 0;
}

/* Before a read (p->reading is one less after it): begins to load what it needs at the same time,
 * and what comes behind it. */
static void begin_read(struct point_image *p, size_t len, uint64_t off)
{
    uint64_t first = off / CG_CHUNK_SIZE, last = (off + len - 1) / CG_CHUNK_SIZE;
    bool alone = atomic_fetch_add(&p->reading, 1) == 0;

    read_ahead(p, first + 1, last - first); /* what this request needs: not one after the other */
    /* Not if several take chunks whole at the same time: what is read ahead for one may have left
     * the cache before its turn. */
    if (goes_on(p, len, off) && (len < CG_CHUNK_SIZE || alone))
        read_ahead(p, last + 1, AHEAD);
}

static int point_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct point_image *p = self;

    begin_read(p, len, off);
    int r = read_chunks(p, buf, len, off, err);
    atomic_fetch_sub(&p->reading, 1);
    return r;
}

static int point_borrow(void *self, size_t len, uint64_t off, struct cg_loan *ret,
                        struct cg_error *err)
{
    struct point_image *p = self;
    uint32_t in = (uint32_t)(off % CG_CHUNK_SIZE);
    struct cg_cached *entry;
    struct cg_ref ref;

    if (len > CG_CHUNK_SIZE - in)
        return -ENOTSUP;
    int r = cg_project_chunk(p->project, p->point, off / CG_CHUNK_SIZE, &ref, err);
    if (r < 0)
        return r;
    if (cg_ref_is_zero(&ref))
        return -ENOTSUP;
    begin_read(p, len, off);
    r = cg_project_cached(p->project, CG_OBJECT_CHUNK, &ref, &entry, err);
    atomic_fetch_sub(&p->reading, 1);
    if (r < 0)
        return r;
    *ret = (struct cg_loan){ cg_cached_data(entry) + in, entry };
    return 0;
}

static void point_give_back(void *self, struct cg_loan *loan)
{
    struct point_image *p = self;

    cg_cache_release(cg_repository_cache(p->repo), loan->opaque);
}

static int point_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct point_image *p = self;

    while (!cg_extents_full(e)) {
        uint64_t chunk = e->next / CG_CHUNK_SIZE, page = chunk / CG_PAGE_CHUNKS;
        struct cg_ref ref = { .len = 0 };
        uint64_t end = (page + 1) * CG_PAGE_SPAN;
        if (!cg_ref_is_zero(&p->point->pages[page])) {
            int r = cg_project_chunk(p->project, p->point, chunk, &ref, err);
            if (r < 0)
                return r;
            end = (chunk + 1) * CG_CHUNK_SIZE;
        }
        int r = cg_extents_to(e, end, cg_ref_is_zero(&ref) ? CG_HOLE : CG_DATA, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static uint64_t point_size(void *self)
{
    struct point_image *p = self;

    return p->point->size;
}

static uint64_t point_original_size(void *self)
{
    struct point_image *p = self;

    return p->point->original_size;
}

static void point_prefetch(void *self, uint64_t len, uint64_t off)
{
    uint64_t first = off / CG_CHUNK_SIZE, last = (off + len - 1) / CG_CHUNK_SIZE;

    if (len > 0)
        read_ahead(self, first, cg_min(last - first + 1, PREFETCH));
}

/* A chunk is what a read costs at least, but clients read ahead by themselves: asking them for 4
 * MiB would only make small reads large. */
static void point_block_size(void *self, struct cg_block_size *ret)
{
    (void)self;
    *ret = (struct cg_block_size){ .minimum = 512, .preferred = 256 << 10, .maximum = 32 << 20 };
}

static bool point_immutable(void *self)
{
    (void)self;
    return true;
}

static void point_close(void *self)
{
    struct point_image *p = self;

    cg_point_free(p->point);
    free(p);
}

static const struct cg_image_ops point_ops = {
    .name = "point",
    .pread = point_pread,
    .borrow = point_borrow,
    .give_back = point_give_back,
    .extents = point_extents,
    .size = point_size,
    .original_size = point_original_size,
    .prefetch = point_prefetch,
    .block_size = point_block_size,
    .immutable = point_immutable,
    .close = point_close,
};

int cg_point_image(struct cg_project *project, struct cg_point *point, struct cg_image **ret_image,
                   struct cg_error *err)
{
    struct point_image *p = calloc(1, sizeof *p);

    if (!p) {
        cg_point_free(point);
        return cg_error_set(err, ENOMEM, "open a point");
    }
    p->project = project;
    p->repo = cg_project_repository(project);
    p->point = point;
    for (unsigned i = 0; i < READERS; i++)
        atomic_init(&p->next[i], UINT64_MAX / 2);
    struct cg_image *image = cg_image_new(&point_ops, p, true);
    if (!image) {
        point_close(p);
        return cg_error_set(err, ENOMEM, "open a point");
    }
    *ret_image = image;
    return 0;
}
