/* Thread model: lock guards all of struct readahead but what never changes (base, size, pieces_max,
 * pool), and of struct piece all but its bytes, which only the loading thread writes before state
 * says READY and nobody after.  It is held neither while reading nor while copying.  A piece lives
 * as long as somebody refers to it: the stream it was read for, the thread that loads it, readers.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/bulk.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"
#include "core/image/readahead.h"

#define STREAMS 16      /* readers that are watched */
#define STREAMS_AHEAD 4 /* of these, so many are read ahead for */
#define PIECE ((uint64_t)1 << 20)
#define PIECE_MIN ((uint64_t)256 << 10) /* smaller ones only at an end of data */
#define AHEAD ((uint64_t)8 << 20)
#define PIECES ((AHEAD + CG_READAHEAD_KEEP_MAX) / PIECE)
#define RUN_MIN ((uint64_t)128 << 10) /* read in sequence before anything is read ahead */
#define NEAR ((uint64_t)1 << 20)      /* out of order by so much at most */
#define THREADS 8                     /* pieces read at the same time */
#define TASKS 128
#define BUSY 8    /* who has more reads in flight needs no help */
#define RECENT 64 /* a stream that had none of so many reads makes place for another */
#define IDLE 10   /* seconds until what wasn't used goes */
#define MAP_SPAN ((uint64_t)1 << 30) /* what is asked about holes in one go */
#define MAP_EXTENTS 1024

enum state { LOADING, READY, FAILED };

struct piece {
    struct readahead *ra;
    uint64_t off, end;
    enum state state;
    unsigned refs;
    uint8_t *bytes; /* owned */
};

struct stream {
    uint64_t id;    /* 0: none */
    uint64_t next;  /* where the reader goes on, if it does */
    uint64_t run;   /* bytes read in sequence */
    uint64_t keep;  /* bytes behind it that may still be asked for */
    uint64_t ahead; /* what lies before is read or being read */
    unsigned reads;
    uint64_t used;               /* the image's count of reads then */
    time_t time;                 /* of the last read */
    struct cg_extents map;       /* from start to next: what there is to read ahead */
    bool looking;                /* the map is being asked for */
    struct piece *piece[PIECES]; /* oldest first; references */
    unsigned pieces;
};

struct readahead {
    struct cg_image *base; /* owns a reference */
    uint64_t size;
    unsigned pieces_max; /* kept for a stream, ahead and behind */
    struct cg_pool *pool;
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    bool closing, has_map;
    unsigned reading;    /* reads in flight */
    uint64_t reads, ids; /* so far */
    struct stream stream[STREAMS];
};

/* Pieces */

static void unref_locked(struct piece *p)
{
    if (--p->refs > 0)
        return;
    free(p->bytes);
    free(p);
}

/* A piece is worth loading only if somebody still refers to it. */
static void load(void *opaque)
{
    struct piece *p = opaque;
    struct readahead *ra = p->ra;
    int r = -ECANCELED;

    pthread_mutex_lock(&ra->lock);
    bool wanted = p->refs > 1 && !ra->closing;
    pthread_mutex_unlock(&ra->lock);
    if (wanted && (p->bytes = cg_bulk_buffer(p->end - p->off)))
        r = cg_image_pread(ra->base, p->bytes, (size_t)(p->end - p->off), p->off, NULL);
    CG_LOCK(&ra->lock);
    p->state = r == 0 ? READY : FAILED;
    pthread_cond_broadcast(&ra->loaded);
    unref_locked(p);
}

/* Takes the stream's oldest piece away if the reader is past it.  False: it isn't. */
static bool recycle_locked(struct stream *s)
{
    if (s->piece[0]->end + s->keep > s->next)
        return false;
    unref_locked(s->piece[0]);
    s->pieces--;
    memmove(s->piece, s->piece + 1, s->pieces * sizeof *s->piece);
    return true;
}

/* Begins to read a piece for a stream.  False if there is no place for it. */
static bool begin_piece_locked(struct readahead *ra, struct stream *s, uint64_t off, uint64_t end)
{
    if (s->pieces == ra->pieces_max && !recycle_locked(s))
        return false;
    struct piece *p = calloc(1, sizeof *p);
    if (!p)
        return false;
    *p = (struct piece){ .ra = ra, .off = off, .end = end, .state = LOADING, .refs = 2 };
    if (!cg_pool_submit(ra->pool, load, p)) {
        free(p);
        return false;
    }
    s->piece[s->pieces++] = p;
    return true;
}

/* The piece that has the byte at off, if any; else *ret_end is at most the beginning of the next
 * one. */
static struct piece *find_locked(struct readahead *ra, uint64_t off, uint64_t *ret_end)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &ra->stream[i];
        for (unsigned j = 0; j < s->pieces; j++) {
            struct piece *p = s->piece[j];
            if (p->state == FAILED || off >= p->end)
                continue;
            if (off >= p->off)
                return p;
            *ret_end = cg_min(*ret_end, p->off);
        }
    }
    return NULL;
}

/* Streams */

static void forget_pieces_locked(struct stream *s)
{
    while (s->pieces > 0)
        unref_locked(s->piece[--s->pieces]);
}

static void end_stream_locked(struct stream *s)
{
    forget_pieces_locked(s);
    cg_extents_clear(&s->map);
    *s = (struct stream){ .id = 0 };
}

/* How far a read at off is from where the stream goes on; UINT64_MAX if it's none of it. */
static uint64_t distance(const struct stream *s, size_t len, uint64_t off)
{
    if (s->id == 0)
        return UINT64_MAX;
    if (off < s->next)
        return s->next - off <= NEAR ? s->next - off : UINT64_MAX;
    uint64_t gap = off - s->next;
    if (gap <= cg_min(4 * (uint64_t)len, NEAR))
        return gap;
    for (unsigned i = 0; i < s->pieces; i++) {
        if (off >= s->piece[i]->off && off < s->piece[i]->end)
            return gap;
    }
    return UINT64_MAX;
}

/* A place for a new stream: the one that was used last of those that have nothing read ahead; there
 * always are some. */
static struct stream *new_stream_locked(struct readahead *ra)
{
    struct stream *oldest = NULL;

    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &ra->stream[i];
        if (s->pieces == 0 && (!oldest || s->used < oldest->used))
            oldest = s;
    }
    end_stream_locked(oldest);
    oldest->id = ++ra->ids;
    return oldest;
}

/* The stream that a read belongs to, with the read in it. */
static struct stream *follow_locked(struct readahead *ra, size_t len, uint64_t off)
{
    struct stream *best = NULL;
    uint64_t nearest = UINT64_MAX, end = off + len;

    for (unsigned i = 0; i < STREAMS; i++) {
        uint64_t d = distance(&ra->stream[i], len, off);
        if (d < nearest) {
            nearest = d;
            best = &ra->stream[i];
        }
    }
    if (!best) {
        best = new_stream_locked(ra);
        best->next = off;
    }
    if (end > best->next) {
        best->run += cg_min(end - best->next, len);
        best->next = end;
    }
    best->keep = cg_max(len, NEAR);
    best->reads++;
    best->used = ra->reads;
    return best;
}

/* What wasn't used for long goes. */
static void tidy_locked(struct readahead *ra, time_t now)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &ra->stream[i];
        if (s->pieces > 0 && now - s->time > IDLE)
            end_stream_locked(s);
    }
}

/* True if the stream has pieces or may have some: only a few streams do. */
static bool may_begin_locked(struct readahead *ra, const struct stream *s)
{
    struct stream *oldest = NULL;
    unsigned have = 0;

    if (s->pieces > 0)
        return true;
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *other = &ra->stream[i];
        if (other->pieces == 0)
            continue;
        have++;
        if (!oldest || other->used < oldest->used)
            oldest = other;
    }
    if (have < STREAMS_AHEAD)
        return true;
    if (ra->reads - oldest->used < RECENT)
        return false;
    end_stream_locked(oldest);
    return true;
}

/* Reading ahead */

static void begin_locked(struct readahead *ra, struct stream *s);

struct question {
    struct readahead *ra;
    uint64_t id, off;
};

/* Asks where there is data to be read ahead for a stream, and goes on with it. */
static void look(void *opaque)
{
    struct question *q = opaque;
    struct readahead *ra = q->ra;
    struct cg_extents map;

    cg_extents_init(&map, q->off, cg_min(q->off + MAP_SPAN, ra->size), MAP_EXTENTS);
    int r = cg_image_extents(ra->base, &map, NULL);
    CG_LOCK(&ra->lock);
    if (r < 0)
        ra->has_map = false; /* then all is data */
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &ra->stream[i];
        if (s->id != q->id || ra->closing)
            continue;
        cg_extents_clear(&s->map);
        s->map = map;
        map = (struct cg_extents){ .count = 0 };
        s->looking = false;
        if (may_begin_locked(ra, s)) /* others may have begun meanwhile */
            begin_locked(ra, s);
    }
    cg_extents_clear(&map);
    free(q);
}

static void look_locked(struct readahead *ra, struct stream *s)
{
    struct question *q = s->looking ? NULL : malloc(sizeof *q);

    if (!q)
        return;
    *q = (struct question){ ra, s->id, s->ahead };
    s->looking = cg_pool_submit(ra->pool, look, q);
    if (!s->looking)
        free(q);
}

/* Moves ahead over holes.  False if it isn't known what is there; else *ret_end is the end of the
 * data. */
static bool skip_holes_locked(struct readahead *ra, struct stream *s, uint64_t *ret_end)
{
    const struct cg_extents *map = &s->map;

    *ret_end = ra->size;
    if (!ra->has_map)
        return true;
    for (size_t i = 0; s->ahead >= map->start && i < map->count; i++) {
        const struct cg_extent *x = &map->v[i];
        if (s->ahead >= x->off + x->len)
            continue;
        if (x->type == CG_DATA) {
            *ret_end = x->off + x->len;
            return true;
        }
        s->ahead = x->off + x->len;
    }
    if (s->ahead < ra->size && s->ahead - s->next < MAP_SPAN)
        look_locked(ra, s);
    return false;
}

/* Bytes read or being read that the reader hasn't come to. */
static uint64_t waiting(const struct stream *s)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < s->pieces; i++) {
        const struct piece *p = s->piece[i];
        if (p->end > s->next)
            bytes += p->end - cg_max(p->off, s->next);
    }
    return bytes;
}

/* Begins to read what comes next: the more the longer the reader has been going on. */
static void begin_locked(struct readahead *ra, struct stream *s)
{
    uint64_t want = cg_min(2 * s->run, AHEAD), have = waiting(s);
    uint64_t least = cg_max(want * PIECE / AHEAD, PIECE_MIN); /* nothing too small */

    s->ahead = cg_max(s->ahead, s->next);
    while (have < want && s->ahead < ra->size) {
        uint64_t end;
        if (!skip_holes_locked(ra, s, &end))
            return;
        end = cg_min(end, cg_round_down(s->ahead, PIECE) + PIECE);
        const struct piece *p = find_locked(ra, s->ahead, &end);
        if (p) { /* another stream has it */
            have += p->end - s->ahead;
            s->ahead = p->end;
            continue;
        }
        if (end - s->ahead > want - have) { /* not all of it yet */
            if (want - have < least)
                return;
            end = s->ahead + (want - have);
        }
        if (!begin_piece_locked(ra, s, s->ahead, end))
            return;
        have += end - s->ahead;
        s->ahead = end;
    }
}

static void note_read_locked(struct readahead *ra, size_t len, uint64_t off)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    ra->reads++;
    tidy_locked(ra, now.tv_sec);
    struct stream *s = follow_locked(ra, len, off);
    s->time = now.tv_sec;
    if (s->reads > 1 && s->run >= RUN_MIN && ra->reading <= BUSY && may_begin_locked(ra, s))
        begin_locked(ra, s);
}

/* Takes what it can from a piece, waiting for it.  False if the piece failed. */
static bool take_locked(struct readahead *ra, struct piece *p, uint8_t *buf, size_t n, uint64_t off)
{
    p->refs++;
    while (p->state == LOADING)
        pthread_cond_wait(&ra->loaded, &ra->lock);
    bool ready = p->state == READY;
    if (ready) {
        pthread_mutex_unlock(&ra->lock);
        memcpy(buf, p->bytes + (off - p->off), n);
        pthread_mutex_lock(&ra->lock);
    }
    unref_locked(p);
    return ready;
}

static int read_locked(struct readahead *ra, uint8_t *buf, size_t len, uint64_t off,
                       struct cg_error *err)
{
    int r = 0;

    while (r == 0 && len > 0) {
        uint64_t end = off + len;
        struct piece *p = find_locked(ra, off, &end);
        size_t n = (size_t)((p ? cg_min(end, p->end) : end) - off);
        if (!p || !take_locked(ra, p, buf, n, off)) {
            pthread_mutex_unlock(&ra->lock);
            r = cg_image_pread(ra->base, buf, n, off, err);
            pthread_mutex_lock(&ra->lock);
        }
        buf += n;
        off += n;
        len -= n;
    }
    return r;
}

static int readahead_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct readahead *ra = self;
    CG_LOCK(&ra->lock);

    ra->reading++;
    note_read_locked(ra, len, off);
    int r = read_locked(ra, buf, len, off, err);
    ra->reading--;
    return r;
}

static int readahead_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct readahead *ra = self;
    return cg_image_extents(ra->base, e, err);
}

static uint64_t readahead_size(void *self)
{
    struct readahead *ra = self;
    return ra->size;
}

static uint64_t readahead_original_size(void *self)
{
    struct readahead *ra = self;
    return cg_image_original_size(ra->base);
}

static void readahead_prefetch(void *self, uint64_t len, uint64_t off)
{
    struct readahead *ra = self;
    cg_image_prefetch(ra->base, len, off);
}

static void readahead_block_size(void *self, struct cg_block_size *ret)
{
    struct readahead *ra = self;
    cg_image_block_size(ra->base, ret);
}

static bool readahead_immutable(void *self)
{
    struct readahead *ra = self;
    return cg_image_immutable(ra->base);
}

static void readahead_close(void *self)
{
    struct readahead *ra = self;

    pthread_mutex_lock(&ra->lock);
    ra->closing = true;
    pthread_mutex_unlock(&ra->lock);
    cg_pool_free(ra->pool); /* waits for what is being read */
    for (unsigned i = 0; i < STREAMS; i++)
        end_stream_locked(&ra->stream[i]);
    cg_image_unref(ra->base);
    pthread_cond_destroy(&ra->loaded);
    pthread_mutex_destroy(&ra->lock);
    free(ra);
}

static const struct cg_image_ops readahead_ops = {
    .name = "readahead",
    .pread = readahead_pread,
    .extents = readahead_extents,
    .size = readahead_size,
    .original_size = readahead_original_size,
    .prefetch = readahead_prefetch,
    .block_size = readahead_block_size,
    .immutable = readahead_immutable,
    .close = readahead_close,
};

int cg_readahead_open(struct cg_image *base, uint64_t keep, struct cg_image **ret_image,
                      struct cg_error *err)
{
    struct readahead *ra = calloc(1, sizeof *ra);
    struct cg_image *image = NULL;

    if (!ra)
        return cg_error_set(err, ENOMEM, "read ahead");
    pthread_mutex_init(&ra->lock, NULL);
    pthread_cond_init(&ra->loaded, NULL);
    ra->base = cg_image_ref(base);
    ra->size = cg_image_size(base);
    ra->pieces_max = (unsigned)((AHEAD + cg_min(keep, CG_READAHEAD_KEEP_MAX)) / PIECE);
    ra->has_map = cg_image_cheap_extents(base);
    ra->pool = cg_pool_new(THREADS, TASKS);
    if (ra->pool)
        image = cg_image_new(&readahead_ops, ra, true);
    if (!image) {
        readahead_close(ra);
        return cg_error_set(err, ENOMEM, "read ahead");
    }
    *ret_image = image;
    return 0;
}
