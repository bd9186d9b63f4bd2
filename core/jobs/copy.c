#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"
#include "core/jobs/copy.h"
#include "core/jobs/output.h"

/* Thread model of cg_copy: one of cg_parallel's workers walks the source's extents and puts pieces
 * into a bounded queue, the others take them from there and copy.  The walker copies a piece itself
 * when the queue is full and what remains at the end, so it never waits, and it doesn't matter how
 * many threads there are.  queue_lock guards the ring; done and failed are atomic.  No lock is held
 * during I/O.
 *
 * cg_copy_stream needs no queue: each worker reads the piece it was given into its own buffer and
 * then waits for its turn to write (output.h). */

#define PIECE ((uint64_t)4 << 20) /* of data, aligned: a chunk of a backup */
#define ZERO_PIECE ((uint64_t)64 << 20)
#define BLOCK 4096 /* the grain of zero detection */
#define WORKERS_MAX 16
#define QUEUE 64

/* A gap between data smaller than this is cheaper to read than to make another request for. */
#define GAP_MIN ((uint64_t)64 << 10)

struct piece {
    uint64_t off, len;
    bool zero; /* else it's read */
};

struct copy {
    struct cg_image *source, *target;
    bool target_is_zero, can_zero;
    const struct cg_progress *progress;
    uint64_t total;
    _Atomic uint64_t done;
    atomic_bool failed;
    void *buffer[WORKERS_MAX]; /* PIECE bytes, by worker */
    struct piece pending;      /* the walker's: grows until it is pushed */

    pthread_mutex_t queue_lock;
    pthread_cond_t queue_wake;
    struct piece ring[QUEUE]; /* these by queue_lock */
    unsigned first, queued;
    bool closed; /* nothing will be pushed any more */
};

/* 2 for each processor, as half of them wait for I/O. */
static unsigned worker_count(void)
{
    return (unsigned)cg_min(2 * cg_processors(), WORKERS_MAX);
}

static int report(const struct cg_progress *progress, uint64_t done, uint64_t total,
                  struct cg_error *err)
{
    if (progress && progress->report(progress->opaque, done, total) != 0)
        return cg_error_say(err, ECANCELED, "cancelled");
    return 0;
}

static int advance(struct copy *c, uint64_t bytes, struct cg_error *err)
{
    uint64_t done = atomic_fetch_add(&c->done, bytes) + bytes;
    return report(c->progress, done, c->total, err);
}

/* PIECE bytes of this worker's own. */
static int get_buffer(void **slot, struct cg_error *err)
{
    if (!*slot)
        *slot = cg_bulk_buffer(PIECE);
    return *slot ? 0 : cg_error_set(err, ENOMEM, "copy");
}

static int make_zero(struct copy *c, uint64_t len, uint64_t off, struct cg_error *err)
{
    if (c->target_is_zero)
        return 0;
    return cg_image_zero(c->target, len, off, CG_MAY_TRIM, err);
}

static int copy_data(struct copy *c, const struct piece *p, uint8_t *buf, struct cg_error *err)
{
    int r = cg_image_pread(c->source, buf, (size_t)p->len, p->off, err);

    if (r < 0)
        return cg_error_prefix(err, r, "read the source");
    bool sparse = c->target_is_zero || c->can_zero;
    for (size_t at = 0; r == 0 && at < p->len;) {
        bool zero = false;
        size_t n = (size_t)p->len - at;
        if (sparse)
            n = cg_zero_run(buf + at, n, BLOCK, &zero);
        if (zero)
            r = make_zero(c, n, p->off + at, err);
        else
            r = cg_image_pwrite(c->target, buf + at, n, p->off + at, CG_BULK, err);
        at += n;
    }
    return r < 0 ? cg_error_prefix(err, r, "write the target") : 0;
}

static int copy_piece(struct copy *c, const struct piece *p, unsigned worker, struct cg_error *err)
{
    int r;

    if (p->zero) {
        r = make_zero(c, p->len, p->off, err);
        if (r < 0)
            cg_error_prefix(err, r, "write the target");
    } else {
        r = get_buffer(&c->buffer[worker], err);
        if (r == 0)
            r = copy_data(c, p, c->buffer[worker], err);
    }
    return r < 0 ? r : advance(c, p->len, err);
}

static bool push(struct copy *c, const struct piece *p)
{
    CG_LOCK(&c->queue_lock);

    if (c->queued == QUEUE)
        return false;
    c->ring[(c->first + c->queued) % QUEUE] = *p;
    c->queued++;
    pthread_cond_signal(&c->queue_wake);
    return true;
}

/* False when there is nothing left to do: for the walker at once, for the others when the walk is
 * over too. */
static bool pop(struct copy *c, bool wait, struct piece *ret)
{
    CG_LOCK(&c->queue_lock);

    while (wait && c->queued == 0 && !c->closed)
        pthread_cond_wait(&c->queue_wake, &c->queue_lock);
    if (c->queued == 0 || atomic_load(&c->failed))
        return false;
    *ret = c->ring[c->first];
    c->first = (c->first + 1) % QUEUE;
    c->queued--;
    return true;
}

static void close_queue(struct copy *c)
{
    CG_LOCK(&c->queue_lock);

    c->closed = true;
    pthread_cond_broadcast(&c->queue_wake);
}

static int work(struct copy *c, bool wait, unsigned worker, struct cg_error *err)
{
    struct piece p;
    int r = 0;

    while (r == 0 && pop(c, wait, &p))
        r = copy_piece(c, &p, worker, err);
    return r;
}

struct walk {
    struct copy *copy;
    unsigned worker;
};

/* Hands the pending piece to the workers, or does it if they have enough. */
static int hand_over(struct walk *w, struct cg_error *err)
{
    struct copy *c = w->copy;
    struct piece p = c->pending;

    c->pending.off += p.len;
    c->pending.len = 0;
    if (p.len == 0)
        return 0;
    if (p.zero && c->target_is_zero)
        return advance(c, p.len, err);
    return push(c, &p) ? 0 : copy_piece(c, &p, w->worker, err);
}

/* The end of the piece that begins at off. */
static uint64_t piece_end(uint64_t off, bool zero)
{
    uint64_t piece = zero ? ZERO_PIECE : PIECE;
    return cg_round_down(off, piece) + piece;
}

/* Adds an extent to the pieces, split where pieces end. */
static int add_extent(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    struct walk *w = opaque;
    struct copy *c = w->copy;
    struct piece *p = &c->pending;
    uint64_t end = extent->off + extent->len;
    bool zero = extent->type != CG_DATA;

    if (zero && p->len > 0 && !p->zero && extent->len < GAP_MIN)
        zero = false;
    while (p->off + p->len < end) {
        int r = atomic_load(&c->failed) ? -ECANCELED : 0;
        if (r == 0 && p->zero != zero)
            r = hand_over(w, err);
        if (r < 0)
            return r;
        p->zero = zero;
        p->len = cg_min(end, piece_end(p->off, zero)) - p->off;
        if (p->off + p->len == piece_end(p->off, zero) && (r = hand_over(w, err)) < 0)
            return r;
    }
    return 0;
}

static int walk(struct copy *c, unsigned worker, struct cg_error *err)
{
    struct walk w = { c, worker };
    int r = cg_image_walk(c->source, 0, c->total, add_extent, &w, err);

    if (r == 0)
        r = hand_over(&w, err);
    close_queue(c);
    return r < 0 ? r : work(c, false, worker, err);
}

static int copy_worker(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct copy *c = opaque;
    int r = item == 0 ? walk(c, worker, err) : work(c, true, worker, err);

    if (r == 0)
        return 0;
    bool first = !atomic_exchange(&c->failed, true);
    close_queue(c);
    return first ? r : 0; /* else the failure is another worker's */
}

int cg_copy(struct cg_image *source, struct cg_image *target, const struct cg_copy_options *options,
            struct cg_error *err)
{
    struct copy c = {
        .source = source,
        .target = target,
        .target_is_zero = options->target_is_zero,
        .can_zero = cg_image_can_zero(target),
        .progress = options->progress,
        .total = cg_image_size(source),
    };
    unsigned workers = worker_count();

    if (c.total > cg_image_size(target))
        return cg_error_say(err, ENOSPC, "the source has %llu bytes, the target only %llu",
                            (unsigned long long)c.total, (unsigned long long)cg_image_size(target));
    pthread_mutex_init(&c.queue_lock, NULL);
    pthread_cond_init(&c.queue_wake, NULL);
    int r = cg_parallel(workers, workers, copy_worker, &c, err);
    for (unsigned i = 0; i < workers; i++)
        free(c.buffer[i]);
    pthread_cond_destroy(&c.queue_wake);
    pthread_mutex_destroy(&c.queue_lock);
    if (r < 0)
        return r;
    r = cg_image_flush(target, err);
    return r < 0 ? cg_error_prefix(err, r, "flush the target") : 0;
}

struct stream {
    struct cg_image *source;
    uint64_t total;
    void *buffer[WORKERS_MAX]; /* PIECE bytes, by worker */
    struct cg_output output;
};

/* Reads a piece; a hole isn't fetched. */
static int read_piece(struct stream *s, uint8_t *buf, size_t len, uint64_t off,
                      struct cg_error *err)
{
    struct cg_extents e;

    cg_extents_init(&e, off, off + len, 1);
    int r = cg_image_extents(s->source, &e, err);
    bool hole = r == 0 && e.count == 1 && e.v[0].type != CG_DATA && e.v[0].len == len;
    cg_extents_clear(&e);
    if (hole)
        memset(buf, 0, len);
    else if (r == 0)
        r = cg_image_pread(s->source, buf, len, off, err);
    return r < 0 ? cg_error_prefix(err, r, "read the source") : 0;
}

static int stream_piece(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct stream *s = opaque;
    uint64_t off = item * PIECE, end = cg_min(off + PIECE, s->total);
    size_t len = (size_t)(end - off);
    int r = get_buffer(&s->buffer[worker], err);

    if (r == 0)
        r = read_piece(s, s->buffer[worker], len, off, err);
    if (r == 0) {
        if (!cg_output_wait(&s->output, item))
            return 0;
        r = cg_output_write(&s->output, s->buffer[worker], len, err);
    }
    if (r == 0)
        r = cg_output_report(&s->output, len, err);
    return cg_output_end(&s->output, r);
}

int cg_copy_stream(struct cg_image *source, int fd, const struct cg_progress *progress,
                   struct cg_error *err)
{
    struct stream s = { .source = source, .total = cg_image_size(source) };
    unsigned workers = worker_count();

    cg_output_init(&s.output, fd, progress, s.total);
    int r = cg_parallel((s.total + PIECE - 1) / PIECE, workers, stream_piece, &s, err);
    for (unsigned i = 0; i < workers; i++)
        free(s.buffer[i]);
    cg_output_clear(&s.output);
    return r;
}
