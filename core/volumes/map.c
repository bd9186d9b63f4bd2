#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/map_inside.h"

#define WORD_BLOCKS 32u
#define ONES UINT64_C(0x5555555555555555) /* one in each pair of bits */

int cg_map_open(int dirfd, const char *uuid, struct cg_map **ret_map, struct cg_error *err)
{
    char name[CG_UUID_LEN + 5];
    struct cg_map *map = calloc(1, sizeof *map);

    if (!map)
        return cg_error_set(err, ENOMEM, "open a map");
    map->fd = -1;
    map->own = MAP_FAILED;
    pthread_mutex_init(&map->load, NULL);
    snprintf(map->uuid, sizeof map->uuid, "%s", uuid);
    snprintf(name, sizeof name, "%s.map", uuid);
    int r = cg_map_file_open(dirfd, name, uuid, &map->fd, &map->size, err);
    if (r < 0)
        goto fail;
    map->blocks = (map->size + CG_BLOCK - 1) / CG_BLOCK;
    map->windows = cg_map_file_windows(map->size);
    map->status = calloc(map->windows, 1);
    map->own = mmap(NULL, map->windows * CG_MAP_WINDOW, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!map->status || map->own == MAP_FAILED) {
        r = cg_error_set(err, ENOMEM, "open %s", name);
        goto fail;
    }
    *ret_map = map;
    return 0;

fail:
    cg_map_close(map);
    return r;
}

void cg_map_close(struct cg_map *map)
{
    if (!map)
        return;
    cg_work_map_close(map->work);
    if (map->own != MAP_FAILED)
        munmap((void *)map->own, map->windows * CG_MAP_WINDOW);
    if (map->fd >= 0)
        close(map->fd);
    pthread_mutex_destroy(&map->load);
    free((void *)map->status);
    free((void *)map->dirty);
    free(map);
}

int cg_map_fd(struct cg_map *map)
{
    return map->fd;
}

uint64_t cg_map_size(struct cg_map *map)
{
    return map->size;
}

static uint64_t file_offset(uint64_t window)
{
    return CG_MAP_HEADER + window * CG_MAP_WINDOW;
}

/* The words of a window from number first on. */
static int read_words(struct cg_map *map, uint64_t window, size_t first, size_t count,
                      uint64_t *ret, struct cg_error *err)
{
    uint8_t buf[CG_MAP_WINDOW];
    int r = cg_pread_full(map->fd, buf, 8 * count, file_offset(window) + 8 * first);

    if (r == -ENODATA)
        r = -EIO;
    if (r < 0)
        return cg_error_set(err, -r, "read %s.map", map->uuid);
    cg_map_file_get_words(ret, buf, count);
    return 0;
}

int cg_map_read_window(struct cg_map *map, uint64_t window, uint64_t ret[static CG_MAP_WORDS],
                       struct cg_error *err)
{
    return read_words(map, window, 0, CG_MAP_WORDS, ret, err);
}

/* True if the map file has nothing in the window; then that is known from here on, also of the
 * empty ones that follow. */
static int find_empty_locked(struct cg_map *map, uint64_t window, bool *ret_empty,
                             struct cg_error *err)
{
    off_t data = lseek(map->fd, (off_t)file_offset(window), SEEK_DATA);

    if (data < 0 && errno != ENXIO)
        return cg_error_set(err, errno, "read %s.map", map->uuid);
    uint64_t next = data < 0 ? map->windows : ((uint64_t)data - CG_MAP_HEADER) / CG_MAP_WINDOW;
    for (uint64_t w = window; w < next; w++)
        if (atomic_load(&map->status[w]) == CG_MAP_UNKNOWN)
            atomic_store(&map->status[w], CG_MAP_EMPTY);
    *ret_empty = next > window;
    return 0;
}

int cg_map_load_locked(struct cg_map *map, uint64_t window, struct cg_error *err)
{
    uint64_t words[CG_MAP_WORDS];
    bool empty;
    int r = find_empty_locked(map, window, &empty, err);

    if (r == 0 && !empty)
        r = cg_map_read_window(map, window, words, err);
    if (r < 0 || empty)
        return r;
    if (cg_is_zero(words, sizeof words)) {
        atomic_store(&map->status[window], CG_MAP_EMPTY);
        return 0;
    }
    for (size_t i = 0; i < CG_MAP_WORDS; i++)
        atomic_store_explicit(&cg_map_own_words(map, window)[i], words[i], memory_order_relaxed);
    atomic_store(&map->status[window], CG_MAP_OWN);
    return 0;
}

/* The window's words; NULL in *ret_words if it's empty. */
static inline int look(struct cg_map *map, uint64_t window, const _Atomic uint64_t **ret_words,
                       struct cg_error *err)
{
    uint8_t status = atomic_load_explicit(&map->status[window], memory_order_acquire);

    if (status == CG_MAP_UNKNOWN) {
        CG_LOCK(&map->load);
        status = atomic_load(&map->status[window]);
        if (status == CG_MAP_UNKNOWN) {
            int r = cg_map_load_locked(map, window, err);
            if (r < 0)
                return r;
            status = atomic_load(&map->status[window]);
        }
    }
    *ret_words = status == CG_MAP_SHARED ? cg_work_map_words(map->work, window)
                 : status == CG_MAP_OWN  ? cg_map_own_words(map, window)
                                         : NULL;
    return 0;
}

int cg_map_look(struct cg_map *map, uint64_t window, const _Atomic uint64_t **ret_words,
                struct cg_error *err)
{
    return look(map, window, ret_words, err);
}

/* True if what was read of words counts for nothing, since the window has moved meanwhile. */
static inline bool moved(struct cg_map *map, uint64_t window, const _Atomic uint64_t *words)
{
    return words == cg_map_own_words(map, window) &&
           atomic_load_explicit(&map->status[window], memory_order_acquire) != CG_MAP_OWN;
}

/* How many of max blocks from the first on have the first one's state. */
static uint64_t run_in_words(const _Atomic uint64_t *words, uint64_t first, uint64_t max,
                             enum cg_state *ret_state)
{
    uint64_t word = atomic_load_explicit(&words[first / WORD_BLOCKS], memory_order_acquire) >>
                    (2 * (first % WORD_BLOCKS));
    enum cg_state state = (enum cg_state)(word & 3);
    uint64_t pattern = ONES * state;
    uint64_t count = 0, here = WORD_BLOCKS - first % WORD_BLOCKS;

    *ret_state = state;
    for (;;) {
        uint64_t differs = word ^ (pattern >> (2 * (WORD_BLOCKS - here)));
        uint64_t same = differs ? (uint64_t)__builtin_ctzll(differs) / 2 : WORD_BLOCKS;
        if (same < here)
            return cg_min(count + same, max);
        count += here;
        if (count >= max)
            return max;
        word = atomic_load_explicit(&words[(first + count) / WORD_BLOCKS], memory_order_acquire);
        here = WORD_BLOCKS;
    }
}

int cg_map_run(struct cg_map *map, uint64_t block, uint64_t max, enum cg_state *ret_state,
               uint64_t *ret_count, struct cg_error *err)
{
    uint64_t total = 0;

    if (block >= map->blocks) {
        *ret_state = CG_STATE_ABSENT;
        *ret_count = max;
        return 0;
    }
    max = cg_min(max, map->blocks - block);
    while (total < max) {
        uint64_t at = block + total;
        uint64_t first = at % CG_MAP_WINDOW_BLOCKS;
        uint64_t most = cg_min(max - total, CG_MAP_WINDOW_BLOCKS - first);
        enum cg_state state = CG_STATE_ABSENT;
        const _Atomic uint64_t *words;
        int r = look(map, at / CG_MAP_WINDOW_BLOCKS, &words, err);
        if (r < 0)
            return r;
        uint64_t n = words ? run_in_words(words, first, most, &state) : most;
        if (moved(map, at / CG_MAP_WINDOW_BLOCKS, words))
            continue;
        if (total == 0)
            *ret_state = state;
        else if (state != *ret_state)
            break;
        total += n;
        if (n < most)
            break;
    }
    *ret_count = total;
    if (*ret_state == CG_STATE_DAMAGED)
        return cg_error_say(err, EIO, "%s.map is damaged: block %llu has no valid state", map->uuid,
                            (unsigned long long)block);
    return 0;
}

/* What lies behind the layer's end says nothing. */
static void cut(const struct cg_map *map, uint64_t window, size_t first, size_t count,
                uint64_t *words)
{
    uint64_t blocks = map->blocks - window * CG_MAP_WINDOW_BLOCKS, end = blocks / WORD_BLOCKS;

    for (size_t i = 0; i < count; i++)
        if (first + i >= end)
            words[i] &= first + i > end ? 0 : (UINT64_C(1) << 2 * (blocks % WORD_BLOCKS)) - 1;
}

/* From the map file, without remembering more than that a window is empty. */
static int peek_locked(struct cg_map *map, uint64_t window, size_t first, size_t count,
                       uint64_t *ret, bool *ret_any, struct cg_error *err)
{
    bool empty;
    int r = read_words(map, window, first, count, ret, err);

    if (r < 0)
        return r;
    *ret_any = !cg_is_zero(ret, 8 * count);
    return *ret_any ? 0 : find_empty_locked(map, window, &empty, err);
}

int cg_map_words(struct cg_map *map, uint64_t window, size_t first, size_t count, uint64_t *ret,
                 bool *ret_any, struct cg_error *err)
{
    const _Atomic uint64_t *words = NULL;
    bool peeked = false;
    int r = 0;

    *ret_any = false;
    if (window >= map->windows)
        return 0;
    if (atomic_load_explicit(&map->status[window], memory_order_acquire) == CG_MAP_UNKNOWN) {
        CG_LOCK(&map->load);
        peeked = atomic_load(&map->status[window]) == CG_MAP_UNKNOWN;
        if (peeked)
            r = peek_locked(map, window, first, count, ret, ret_any, err);
    }
    for (bool done = peeked; !done && r == 0;) {
        r = look(map, window, &words, err);
        for (size_t i = 0; r == 0 && words && i < count; i++)
            ret[i] = atomic_load_explicit(&words[first + i], memory_order_acquire);
        done = !moved(map, window, words);
    }
    if (r < 0)
        return r;
    *ret_any = *ret_any || words;
    if (*ret_any)
        cut(map, window, first, count, ret);
    return 0;
}

/* True in each pair of bits that is 3. */
static uint64_t damaged_pairs(uint64_t word)
{
    return word & (word >> 1) & ONES;
}

static int set_in_window(struct cg_map *map, uint64_t block, uint64_t count, enum cg_state state,
                         struct cg_error *err)
{
    uint64_t window = block / CG_MAP_WINDOW_BLOCKS;

    if (atomic_load_explicit(&map->status[window], memory_order_acquire) != CG_MAP_SHARED) {
        int r = cg_map_share(map, window, err);
        if (r < 0)
            return r;
    }
    _Atomic uint64_t *words = cg_work_map_words(map->work, window);
    while (count > 0) {
        uint64_t first = block % WORD_BLOCKS;
        uint64_t n = cg_min(count, WORD_BLOCKS - first);
        uint64_t mask = (n == WORD_BLOCKS ? ~UINT64_C(0) : (UINT64_C(1) << 2 * n) - 1) << 2 * first;
        uint64_t i = block % CG_MAP_WINDOW_BLOCKS / WORD_BLOCKS;
        uint64_t old = atomic_load_explicit(&words[i], memory_order_relaxed);
        uint64_t new = (old & ~mask) | (mask & ONES * state);
        if (damaged_pairs(old & mask))
            return cg_error_say(
                err, EIO, "%s.map is damaged: block %llu has no valid state", map->uuid,
                (unsigned long long)(block - first +
                                     (uint64_t)__builtin_ctzll(damaged_pairs(old & mask)) / 2));
        if (new != old) {
            atomic_store(&words[i], new);
            cg_map_mark(map, window * CG_MAP_WINDOW_SECTORS + i / CG_MAP_SECTOR_WORDS);
        }
        block += n;
        count -= n;
    }
    return 0;
}

int cg_map_reserve(struct cg_map *map, uint64_t block, uint64_t count, struct cg_error *err)
{
    uint64_t last = (block + count - 1) / CG_MAP_WINDOW_BLOCKS;

    for (uint64_t w = block / CG_MAP_WINDOW_BLOCKS; w <= last; w++) {
        int r = 0;
        if (atomic_load_explicit(&map->status[w], memory_order_acquire) != CG_MAP_SHARED)
            r = cg_map_share(map, w, err);
        if (r < 0)
            return r;
    }
    return 0;
}

struct cg_work_map *cg_map_work(struct cg_map *map)
{
    return map->work;
}

int cg_map_set(struct cg_map *map, uint64_t block, uint64_t count, enum cg_state state,
               struct cg_error *err)
{
    assert(map->work && block + count <= map->blocks);
    while (count > 0) {
        uint64_t n = cg_min(count, CG_MAP_WINDOW_BLOCKS - block % CG_MAP_WINDOW_BLOCKS);
        int r = set_in_window(map, block, n, state, err);
        if (r < 0)
            return r;
        block += n;
        count -= n;
    }
    return 0;
}

static void copy_sector(struct cg_map *map, uint64_t sector, uint8_t *ret)
{
    _Atomic uint64_t *from = cg_work_map_words(map->work, sector / CG_MAP_WINDOW_SECTORS) +
                             sector % CG_MAP_WINDOW_SECTORS * CG_MAP_SECTOR_WORDS;
    uint64_t words[CG_MAP_SECTOR_WORDS];

    for (size_t i = 0; i < CG_MAP_SECTOR_WORDS; i++)
        words[i] = atomic_load(&from[i]);
    cg_map_file_put_words(ret, words, CG_MAP_SECTOR_WORDS);
}

static int batch_grow(struct cg_map_batch *b, size_t *max)
{
    size_t n = *max ? 2 * *max : 64;
    uint64_t *sector = realloc(b->sector, n * sizeof *sector);

    if (!sector)
        return -ENOMEM;
    b->sector = sector;
    uint8_t *bytes = realloc(b->bytes, n * CG_MAP_SECTOR);
    if (!bytes)
        return -ENOMEM;
    b->bytes = bytes;
    *max = n;
    return 0;
}

static int take_word(struct cg_map *map, uint64_t i, struct cg_map_batch *b, size_t *max)
{
    uint64_t word = atomic_load(&map->dirty[i]);

    while (word) {
        uint64_t bit = word & -word;
        uint64_t sector = 64 * i + (uint64_t)__builtin_ctzll(word);
        if (b->count == *max && batch_grow(b, max) < 0)
            return -ENOMEM;
        word &= ~bit;
        /* First the mark, then the copy: a state set in between is in the copy or marked. */
        atomic_fetch_and(&map->dirty[i], ~bit);
        copy_sector(map, sector, b->bytes + b->count * CG_MAP_SECTOR);
        b->sector[b->count++] = sector;
    }
    return 0;
}

/* They are dirty again. */
static void put_back(struct cg_map *map, const struct cg_map_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        cg_map_mark(map, batch->sector[i]);
}

int cg_map_take(struct cg_map *map, struct cg_map_batch *ret_batch, struct cg_error *err)
{
    struct cg_map_batch b = { .count = 0 };
    size_t max = 0;

    for (uint64_t i = 0; i < cg_map_dirty_words(map); i++) {
        if (take_word(map, i, &b, &max) < 0) {
            put_back(map, &b);
            cg_map_batch_free(&b);
            return cg_error_set(err, ENOMEM, "flush %s.map", map->uuid);
        }
    }
    *ret_batch = b;
    return 0;
}

int cg_map_put(struct cg_map *map, const struct cg_map_batch *batch, struct cg_error *err)
{
    for (size_t i = 0, n; i < batch->count; i += n) {
        for (n = 1; i + n < batch->count && batch->sector[i + n] == batch->sector[i] + n; n++)
            ;
        int r = cg_pwrite_full(map->fd, batch->bytes + i * CG_MAP_SECTOR, n * CG_MAP_SECTOR,
                               CG_MAP_HEADER + batch->sector[i] * CG_MAP_SECTOR);
        if (r < 0) {
            put_back(map, batch);
            return cg_error_set(err, -r, "write %s.map", map->uuid);
        }
    }
    return 0;
}

void cg_map_batch_free(struct cg_map_batch *batch)
{
    free(batch->sector);
    free(batch->bytes);
    *batch = (struct cg_map_batch){ .count = 0 };
}

int cg_map_is_empty(struct cg_map *map, bool *ret_empty, struct cg_error *err)
{
    enum cg_state state;
    uint64_t count;
    int r = cg_map_run(map, 0, map->blocks, &state, &count, err);

    if (r == 0)
        *ret_empty = state == CG_STATE_ABSENT && count == map->blocks;
    return r;
}
