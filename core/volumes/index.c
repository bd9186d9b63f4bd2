/* Thread model.  A slot is empty, or says that its whole window has one source, for good, or points
 * to the window's runs.  Who follows that pointer, or takes it out, holds the lock of the slot's
 * shard.  Slots are filled and emptied, and windows put into and taken out of the ring, under the
 * ring's lock; it is taken before a shard's.  A window is built without either: who comes second
 * throws his away.
 */
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/volumes/index.h"

#define BLOCKS ((size_t)CG_MAP_WINDOW_BLOCKS)
#define WORDS (CG_MAP_WINDOW / 8)
#define WORD_BLOCKS 32u                   /* the blocks of a word of states */
#define ONES UINT64_C(0x5555555555555555) /* one in each pair of bits */
#define SHARDS 64u
#define BRIEF_BLOCKS 2048u /* the most that are looked up without building a window */
#define TURNS 16u          /* of that many lookups one builds a window, when there is no room */

/* Where a block comes from: 0 for nowhere, else 1 + 3 * layer + state - 1. */
#define LAYERS_MAX ((UINT16_MAX - 3) / 3)

struct run {
    uint16_t start; /* block in the window; it goes on to the start of the next */
    uint16_t source;
};

struct window {
    struct cg_index *index;
    struct window *prev, *next; /* in the ring */
    uint64_t number;
    atomic_bool used; /* since the hand passed */
    size_t count;     /* of runs, at least 2 */
    struct run run[];
};

struct cg_index {
    atomic_uint refs;
    uint64_t windows;
    _Atomic uintptr_t *slot; /* mapped, zeros; odd: 2 * source + 1, even: a struct window */
    size_t kept;             /* windows in the ring; guarded by its lock */
    size_t count;
    struct cg_layer *layer[]; /* owned references */
};

/* All windows of the process.  The hand goes around, and takes out what wasn't used since the last
 * time (F. J. Corbato, "A paging experiment with the Multics system"). */
static struct {
    pthread_mutex_t lock; /* guards what follows */
    struct window *hand;
    size_t bytes, limit;
} ring = { .lock = PTHREAD_MUTEX_INITIALIZER, .limit = CG_INDEX_LIMIT };

static atomic_bool full; /* the ring has hardly any room; changed under its lock */

static struct {
    _Alignas(64)
        pthread_mutex_t lock; /* guards the windows whose slots fall on it from being freed */
} shards[SHARDS] = { [0 ... SHARDS - 1] = { PTHREAD_MUTEX_INITIALIZER } };

static pthread_mutex_t *shard_of(const struct cg_index *x, uint64_t window)
{
    return &shards[((uintptr_t)x / 64 + window) % SHARDS].lock;
}

static size_t bytes_of(const struct window *w)
{
    return sizeof *w + w->count * sizeof w->run[0];
}

struct cg_index *cg_index_new(struct cg_layer **layers, size_t count)
{
    uint64_t size = 0;
    struct cg_index *x =
        count > LAYERS_MAX ? NULL : calloc(1, sizeof *x + count * sizeof x->layer[0]);

    if (!x)
        return NULL;
    for (size_t i = 0; i < count; i++)
        size = cg_max(size, cg_layer_size(layers[i]));
    x->windows = cg_map_file_windows(size);
    x->slot = mmap(NULL, x->windows * sizeof *x->slot, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (x->slot == MAP_FAILED) {
        free(x);
        return NULL;
    }
    atomic_init(&x->refs, 1);
    x->count = count;
    for (size_t i = 0; i < count; i++)
        x->layer[i] = cg_layer_ref(layers[i]);
    return x;
}

struct cg_index *cg_index_ref(struct cg_index *x)
{
    atomic_fetch_add(&x->refs, 1);
    return x;
}

static void put_locked(struct window *w)
{
    if (ring.hand) {
        w->next = ring.hand;
        w->prev = ring.hand->prev;
        w->prev->next = w->next->prev = w;
    } else {
        ring.hand = w->next = w->prev = w;
    }
    ring.bytes += bytes_of(w);
    w->index->kept++;
}

static void drop_locked(struct window *w)
{
    pthread_mutex_t *shard = shard_of(w->index, w->number);

    pthread_mutex_lock(shard);
    atomic_store_explicit(&w->index->slot[w->number], 0, memory_order_relaxed);
    pthread_mutex_unlock(shard);
    if (ring.hand == w)
        ring.hand = w->next == w ? NULL : w->next;
    w->prev->next = w->next;
    w->next->prev = w->prev;
    ring.bytes -= bytes_of(w);
    w->index->kept--;
    free(w);
}

static void note_room_locked(void)
{
    atomic_store_explicit(&full, ring.bytes >= ring.limit - ring.limit / 8, memory_order_relaxed);
}

static void make_room_locked(void)
{
    while (ring.bytes > ring.limit) {
        struct window *w = ring.hand;
        if (atomic_exchange_explicit(&w->used, false, memory_order_relaxed))
            ring.hand = w->next;
        else
            drop_locked(w);
    }
    note_room_locked();
}

void cg_index_unref(struct cg_index *x)
{
    if (!x || atomic_fetch_sub(&x->refs, 1) != 1)
        return;
    pthread_mutex_lock(&ring.lock);
    for (struct window *w = ring.hand, *next; x->kept > 0; w = next) {
        next = w->next;
        if (w->index == x)
            drop_locked(w);
    }
    note_room_locked();
    pthread_mutex_unlock(&ring.lock);
    for (size_t i = 0; i < x->count; i++)
        cg_layer_unref(x->layer[i]);
    munmap((void *)x->slot, x->windows * sizeof *x->slot);
    free(x);
}

void cg_index_set_limit(size_t bytes)
{
    CG_LOCK(&ring.lock);
    ring.limit = bytes;
    make_room_locked();
}

size_t cg_index_memory(void)
{
    CG_LOCK(&ring.lock);
    return ring.bytes;
}

/* What a slot says of the block number `first` of its window. */
static void look_into(uintptr_t slot, size_t first, uint16_t *ret_source, uint64_t *ret_count)
{
    if (slot & 1) {
        *ret_source = (uint16_t)(slot >> 1);
        *ret_count = BLOCKS - first;
        return;
    }
    struct window *w = (struct window *)slot;
    size_t low = 0, high = w->count; /* the run is one of these */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (w->run[middle].start <= first)
            low = middle;
        else
            high = middle;
    }
    *ret_source = w->run[low].source;
    *ret_count = (high < w->count ? w->run[high].start : BLOCKS) - first;
    if (!atomic_load_explicit(&w->used, memory_order_relaxed))
        atomic_store_explicit(&w->used, true, memory_order_relaxed);
}

/* False: the window has to be built. */
static bool look(struct cg_index *x, uint64_t window, size_t first, uint16_t *ret_source,
                 uint64_t *ret_count)
{
    uintptr_t slot = atomic_load_explicit(&x->slot[window], memory_order_acquire);

    if (slot & 1) {
        look_into(slot, first, ret_source, ret_count);
        return true;
    }
    if (!slot)
        return false;
    CG_LOCK(shard_of(x, window));
    slot = atomic_load_explicit(&x->slot[window], memory_order_acquire);
    if (slot)
        look_into(slot, first, ret_source, ret_count);
    return slot;
}

/* Takes from count words of a layer's states those of blocks that no layer above has; returns how
 * many words of todo that made 0. */
static size_t take(uint16_t layer, size_t count, const uint64_t *states, uint64_t *todo,
                   uint16_t *source)
{
    size_t done = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t found = (states[i] | states[i] >> 1) & todo[i];
        todo[i] &= ~found;
        done += found && !todo[i];
        for (; found; found &= found - 1) {
            unsigned bit = (unsigned)__builtin_ctzll(found);
            uint64_t state = states[i] >> bit & 3;
            source[i * WORD_BLOCKS + bit / 2] = (uint16_t)(3 * layer + state);
        }
    }
    return done;
}

/* Where the blocks of count words of a window come from. */
static int find_sources(struct cg_index *x, uint64_t window, size_t word, size_t count,
                        uint16_t *source, struct cg_error *err)
{
    uint64_t states[WORDS], todo[WORDS];
    size_t left = count;

    memset(source, 0, count * WORD_BLOCKS * sizeof *source);
    for (size_t i = 0; i < count; i++)
        todo[i] = ONES;
    for (size_t i = x->count; i-- > 0 && left > 0;) {
        bool any;
        int r = cg_layer_words(x->layer[i], window, word, count, states, &any, err);
        if (r < 0)
            return r;
        if (any)
            left -= take((uint16_t)i, count, states, todo, source);
    }
    return 0;
}

/* An index that can't remember for want of memory goes on all the same. */
static uintptr_t pack(struct cg_index *x, uint64_t window, const uint16_t source[static BLOCKS])
{
    size_t count = 1;

    for (size_t i = 1; i < BLOCKS; i++)
        count += source[i] != source[i - 1];
    if (count == 1)
        return 2 * (uintptr_t)source[0] + 1;
    struct window *w = malloc(sizeof *w + count * sizeof w->run[0]);
    if (!w)
        return 0;
    w->index = x;
    w->number = window;
    w->count = 0;
    atomic_init(&w->used, true);
    for (size_t i = 0; i < BLOCKS; i++)
        if (i == 0 || source[i] != source[i - 1])
            w->run[w->count++] = (struct run){ (uint16_t)i, source[i] };
    return (uintptr_t)w;
}

static void remember(struct cg_index *x, uint64_t window, uintptr_t slot)
{
    struct window *w = slot & 1 ? NULL : (struct window *)slot;

    if (!slot)
        return;
    CG_LOCK(&ring.lock);
    if (atomic_load_explicit(&x->slot[window], memory_order_relaxed)) {
        free(w);
        return;
    }
    if (w)
        put_locked(w);
    atomic_store_explicit(&x->slot[window], slot, memory_order_release);
    make_room_locked();
}

/* The source of block number `first` of those from number `begin` up to `end`, and for how many. */
static void answer(const uint16_t *source, size_t begin, size_t end, size_t first,
                   uint16_t *ret_source, uint64_t *ret_count)
{
    size_t at = first + 1;

    while (at < end && source[at - begin] == source[first - begin])
        at++;
    *ret_source = source[first - begin];
    *ret_count = at - first;
}

static int build(struct cg_index *x, uint64_t window, size_t first, uint16_t *ret_source,
                 uint64_t *ret_count, struct cg_error *err)
{
    uint16_t source[BLOCKS];
    int r = find_sources(x, window, 0, WORDS, source, err);

    if (r < 0)
        return r;
    answer(source, 0, BLOCKS, first, ret_source, ret_count);
    remember(x, window, pack(x, window, source));
    return 0;
}

/* For at most max blocks, without building the window. */
static int ask_layers(struct cg_index *x, uint64_t window, size_t first, uint64_t max,
                      uint16_t *ret_source, uint64_t *ret_count, struct cg_error *err)
{
    uint16_t source[BRIEF_BLOCKS + 2 * WORD_BLOCKS];
    size_t word = first / WORD_BLOCKS;
    size_t end = (size_t)cg_min((first + max - 1) / WORD_BLOCKS + 1, WORDS);
    int r = find_sources(x, window, word, end - word, source, err);

    if (r == 0)
        answer(source, word * WORD_BLOCKS, end * WORD_BLOCKS, first, ret_source, ret_count);
    return r;
}

/* When there is no room a window has to drive out another.  Not each that is asked for once is
 * worth that: those that are asked for often get their turn. */
static bool is_worth_building(uint64_t max)
{
    static atomic_uint turn;

    return !atomic_load_explicit(&full, memory_order_relaxed) || max > BRIEF_BLOCKS ||
           atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % TURNS == 0;
}

int cg_index_run(struct cg_index *x, uint64_t block, uint64_t max, size_t *ret_layer,
                 enum cg_state *ret_state, uint64_t *ret_count, struct cg_error *err)
{
    uint64_t window = block / BLOCKS, count = max;
    size_t first = block % BLOCKS;
    uint16_t source = 0;

    if (window < x->windows && !look(x, window, first, &source, &count)) {
        int r = is_worth_building(max) ? build(x, window, first, &source, &count, err)
                                       : ask_layers(x, window, first, max, &source, &count, err);
        if (r < 0)
            return r;
    }
    *ret_layer = source ? (source - 1u) / 3 : 0;
    *ret_state = source ? (enum cg_state)((source - 1u) % 3 + 1) : CG_STATE_ABSENT;
    *ret_count = cg_min(count, max);
    return 0;
}
