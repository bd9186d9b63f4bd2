/* Thread model.  Any number of threads read and write.  Each change of a block's state happens
 * under the stripe of the block's word of states, with the state looked at again; a write to blocks
 * that have data takes no lock: a trim that comes at the same time may win.  Stripes are taken in
 * ascending order.  One flusher at a time; who comes meanwhile waits for the next round.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/base/bulk.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/image/image.h"
#include "core/volumes/layer.h"
#include "core/volumes/map.h"
#include "core/volumes/marks.h"
#include "core/volumes/rewrite.h"

#ifdef __SANITIZE_THREAD__
#define STRIPES 32u /* it knows no more than 64 locks that a thread holds */
#else
#define STRIPES 64u
#endif
#define STRIPE_BLOCKS 32u /* the blocks of a word of states */

struct cg_layer {
    char uuid[CG_UUID_LEN + 1];
    atomic_uint refs;
    int fd; /* the data file */
    struct cg_bulk *bulk;
    struct cg_map *map;
    bool begun;           /* changed only while nobody else uses the layer */
    atomic_bool unsynced; /* the data file has writes that no fdatasync covers */
    atomic_bool failed;   /* an fsync failed, or what one left in doubt couldn't be written */
    pthread_mutex_t stripe[STRIPES];

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t round_done;
    bool flushing;
    uint64_t begun_rounds, done_rounds;
    uint64_t bad_round; /* the last that failed, with its result */
    int result;
    struct cg_error error;
};

static void data_name(char ret[static CG_UUID_LEN + 6], const char *uuid)
{
    snprintf(ret, CG_UUID_LEN + 6, "%s.data", uuid);
}

static void map_name(char ret[static CG_UUID_LEN + 6], const char *uuid)
{
    snprintf(ret, CG_UUID_LEN + 6, "%s.map", uuid);
}

static int create_data(int dirfd, const char *name, uint64_t size, struct cg_error *err)
{
    CG_CLEANUP(cg_close)
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return cg_error_set(err, errno, "create %s", name);
    /* At full length from the start: a file system that can't hold it says so now. */
    if (ftruncate(fd, (off_t)cg_round_up(size, CG_BLOCK)) < 0 || fsync(fd) < 0) {
        int r = cg_error_set(err, errno, "make %s of %llu bytes", name, (unsigned long long)size);
        unlinkat(dirfd, name, 0);
        return r;
    }
    return 0;
}

int cg_layer_create(int dirfd, const char *uuid, uint64_t size, struct cg_error *err)
{
    char data[CG_UUID_LEN + 6], map[CG_UUID_LEN + 6];
    struct cg_map_header header = { .size = size };

    snprintf(header.uuid, sizeof header.uuid, "%s", uuid);
    data_name(data, uuid);
    map_name(map, uuid);
    int r = create_data(dirfd, data, size, err);
    if (r < 0)
        return r;
    r = cg_map_file_create(dirfd, map, &header, err);
    if (r < 0)
        unlinkat(dirfd, data, 0);
    return r;
}

void cg_layer_remove(int dirfd, const char *uuid, const char *run)
{
    char data[CG_UUID_LEN + 6], map[CG_UUID_LEN + 6];

    data_name(data, uuid);
    map_name(map, uuid);
    if (run)
        cg_map_forget(dirfd, uuid, run);
    unlinkat(dirfd, map, 0);
    unlinkat(dirfd, data, 0);
}

int cg_layer_open(int dirfd, const char *uuid, struct cg_layer **ret_layer, struct cg_error *err)
{
    char name[CG_UUID_LEN + 6];
    struct cg_layer *layer = calloc(1, sizeof *layer);

    if (!layer)
        return cg_error_set(err, ENOMEM, "open layer %s", uuid);
    atomic_init(&layer->refs, 1);
    layer->fd = -1;
    snprintf(layer->uuid, sizeof layer->uuid, "%s", uuid);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&layer->stripe[i], NULL);
    pthread_mutex_init(&layer->lock, NULL);
    pthread_cond_init(&layer->round_done, NULL);
    data_name(name, uuid);
    int r = cg_map_open(dirfd, uuid, &layer->map, err);
    if (r < 0)
        goto fail;
    layer->fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);
    if (layer->fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM))
        layer->fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (layer->fd < 0) {
        r = cg_error_set(err, errno, "open %s", name);
        goto fail;
    }
    layer->bulk = cg_bulk_new(layer->fd);
    if (!layer->bulk) {
        r = cg_error_set(err, ENOMEM, "open %s", name);
        goto fail;
    }
    *ret_layer = layer;
    return 0;

fail:
    cg_layer_unref(layer);
    return r;
}

struct cg_layer *cg_layer_ref(struct cg_layer *layer)
{
    atomic_fetch_add(&layer->refs, 1);
    return layer;
}

void cg_layer_unref(struct cg_layer *layer)
{
    if (!layer || atomic_fetch_sub(&layer->refs, 1) != 1)
        return;
    cg_map_close(layer->map);
    cg_bulk_free(layer->bulk);
    if (layer->fd >= 0)
        close(layer->fd);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&layer->stripe[i]);
    pthread_mutex_destroy(&layer->lock);
    pthread_cond_destroy(&layer->round_done);
    free(layer);
}

const char *cg_layer_uuid(struct cg_layer *layer)
{
    return layer->uuid;
}

uint64_t cg_layer_size(struct cg_layer *layer)
{
    return cg_map_size(layer->map);
}

int cg_layer_lock(struct cg_layer *layer, int operation, struct cg_error *err)
{
    while (flock(cg_map_fd(layer->map), operation) < 0)
        if (errno != EINTR)
            return cg_error_set(err, errno, "lock %s.map", layer->uuid);
    return 0;
}

bool cg_layer_claim(struct cg_layer *layer)
{
    struct cg_error ignored;

    if (cg_layer_lock(layer, LOCK_EX | LOCK_NB, &ignored) == 0)
        return true;
    cg_layer_lock(layer, LOCK_SH, &ignored); /* the attempt let go of it */
    return false;
}

int cg_layer_lock_data(struct cg_layer *layer, struct cg_error *err)
{
    while (flock(layer->fd, LOCK_EX | LOCK_NB) < 0)
        if (errno != EINTR)
            return cg_error_set(err, errno, "lock %s.data", layer->uuid);
    return 0;
}

int cg_layer_follow(struct cg_layer *layer, const char *run, bool *ret_found, struct cg_error *err)
{
    return cg_map_follow(layer->map, run, ret_found, err);
}

bool cg_layer_left(struct cg_layer *layer, const char *run)
{
    return cg_map_left(layer->map, run);
}

static int check_failed(struct cg_layer *layer, struct cg_error *err)
{
    if (atomic_load_explicit(&layer->failed, memory_order_relaxed))
        return cg_error_say(err, EIO,
                            "layer %s takes no writes since a flush failed: open the volume again",
                            layer->uuid);
    return 0;
}

int cg_layer_begin(struct cg_layer *layer, const char *run, struct cg_error *err)
{
    bool adopted;
    int r = check_failed(layer, err);

    if (r == 0)
        r = cg_map_begin(layer->map, run, &adopted, err);
    if (r < 0)
        return r;
    if (adopted) {
        r = cg_rewrite_unsure(layer->map, layer->fd, layer->uuid, err);
        if (r < 0) { /* the map can't begin twice */
            atomic_store(&layer->failed, true);
            return r;
        }
        atomic_store(&layer->unsynced, true);
    }
    layer->begun = true;
    return 0;
}

int cg_layer_mark_all(struct cg_layer *layer, struct cg_error *err)
{
    return cg_map_mark_all(layer->map, err);
}

int cg_layer_end(struct cg_layer *layer, struct cg_error *err)
{
    if (!layer->begun)
        return 0;
    int r = cg_layer_flush(layer, err);
    return r < 0 ? r : cg_map_end(layer->map, err);
}

int cg_layer_settle(int dirfd, const char *uuid, const char *run, struct cg_error *err)
{
    struct cg_layer *layer;
    int r = cg_layer_open(dirfd, uuid, &layer, err);

    if (r < 0)
        return r;
    if (cg_map_left(layer->map, run)) {
        r = cg_layer_begin(layer, run, err);
        if (r == 0)
            r = cg_layer_flush(layer, err);
    }
    cg_layer_unref(layer);
    return r;
}

int cg_layer_run(struct cg_layer *layer, uint64_t block, uint64_t max, enum cg_state *ret_state,
                 uint64_t *ret_count, struct cg_error *err)
{
    return cg_map_run(layer->map, block, max, ret_state, ret_count, err);
}

int cg_layer_words(struct cg_layer *layer, uint64_t window, size_t first, size_t count,
                   uint64_t *ret, bool *ret_any, struct cg_error *err)
{
    return cg_map_words(layer->map, window, first, count, ret, ret_any, err);
}

int cg_layer_read(struct cg_layer *layer, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    int r = cg_pread_full(layer->fd, buf, len, off);

    if (r == -ENODATA)
        return cg_error_say(err, EIO, "%s.data is damaged: it ends within the block at %llu",
                            layer->uuid, (unsigned long long)off);
    if (r < 0)
        return cg_error_set(err, -r, "read %s.data at %llu", layer->uuid, (unsigned long long)off);
    return 0;
}

static int check_writable(struct cg_layer *layer, struct cg_error *err)
{
    assert(layer->begun);
    return check_failed(layer, err);
}

/* After each write to the data file, before it's acknowledged: first the marks, then the word that
 * there are any. */
static void written(struct cg_layer *layer, uint64_t block, uint64_t count)
{
    cg_marks_written(cg_map_work(layer->map), block, count);
    if (!atomic_load(&layer->unsynced))
        atomic_store(&layer->unsynced, true);
}

static int write_failed(struct cg_layer *layer, int r, uint64_t off, struct cg_error *err)
{
    return cg_error_set(err, -r, "write %s.data at %llu", layer->uuid, (unsigned long long)off);
}

static int write_data(struct cg_layer *layer, const void *buf, size_t len, uint64_t off,
                      unsigned flags)
{
    return flags & CG_BULK ? cg_bulk_pwrite(layer->bulk, buf, len, off)
                           : cg_pwrite_full(layer->fd, buf, len, off);
}

int cg_layer_overwrite(struct cg_layer *layer, const void *buf, size_t len, uint64_t off,
                       unsigned flags, struct cg_error *err)
{
    uint64_t first = off / CG_BLOCK, count = (off + len - 1) / CG_BLOCK - first + 1;
    int r = check_writable(layer, err);

    if (r == 0)
        r = cg_map_reserve(layer->map, first, count, err);
    if (r < 0)
        return r;
    r = write_data(layer, buf, len, off, flags);
    written(layer, first, count);
    return r < 0 ? write_failed(layer, r, off, err) : 0;
}

/* The stripes of a range of blocks, as bits. */
static uint64_t stripes_of(uint64_t first, uint64_t last)
{
    uint64_t a = first / STRIPE_BLOCKS, b = last / STRIPE_BLOCKS, bits = 0;

    if (b - a >= STRIPES - 1)
        return ~UINT64_C(0) >> (64 - STRIPES);
    for (; a <= b; a++)
        bits |= UINT64_C(1) << (a % STRIPES);
    return bits;
}

static void lock_stripes(struct cg_layer *layer, uint64_t bits)
{
    for (; bits; bits &= bits - 1)
        pthread_mutex_lock(&layer->stripe[__builtin_ctzll(bits)]);
}

static void unlock_stripes(struct cg_layer *layer, uint64_t bits)
{
    for (; bits; bits &= bits - 1)
        pthread_mutex_unlock(&layer->stripe[__builtin_ctzll(bits)]);
}

static int pwritev_full(int fd, struct iovec *iov, int count, uint64_t off)
{
    while (count > 0) {
        ssize_t n = count == 1 ? pwrite(fd, iov->iov_base, iov->iov_len, (off_t)off)
                               : pwritev(fd, iov, count, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        off += (uint64_t)n;
        while (count > 0 && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

/* What belongs around a partial write of a block: NULL if its data file has it already. */
static int fill_of(struct cg_layer *layer, uint64_t block, const uint8_t *below,
                   const uint8_t **ret_fill, struct cg_error *err)
{
    static const uint8_t zeros[CG_BLOCK];
    enum cg_state state;
    uint64_t n;
    int r = cg_map_run(layer->map, block, 1, &state, &n, err);

    if (r < 0)
        return r;
    assert(state != CG_STATE_ABSENT || below);
    *ret_fill = state == CG_STATE_DATA ? NULL : state == CG_STATE_ZERO ? zeros : below;
    return 0;
}

static int write_locked(struct cg_layer *layer, const void *buf, size_t len, uint64_t off,
                        unsigned flags, const uint8_t *head, const uint8_t *tail,
                        struct cg_error *err)
{
    uint64_t first = off / CG_BLOCK, last = (off + len - 1) / CG_BLOCK;
    size_t before = off % CG_BLOCK, end = (off + len) % CG_BLOCK;
    const uint8_t *head_fill = NULL, *tail_fill = NULL;
    struct iovec iov[3];
    int count = 0, r = 0;

    if (before)
        r = fill_of(layer, first, head, &head_fill, err);
    if (r == 0 && end)
        r = fill_of(layer, last, tail, &tail_fill, err);
    if (r == 0)
        r = cg_map_reserve(layer->map, first, last - first + 1, err);
    if (r < 0)
        return r;
    if (head_fill)
        iov[count++] = (struct iovec){ (void *)head_fill, before };
    iov[count++] = (struct iovec){ (void *)buf, len };
    if (tail_fill)
        iov[count++] = (struct iovec){ (void *)(tail_fill + end), CG_BLOCK - end };
    if (count == 1)
        r = write_data(layer, buf, len, off, flags);
    else
        r = pwritev_full(layer->fd, iov, count, off - (head_fill ? before : 0));
    written(layer, first, last - first + 1);
    if (r < 0)
        return write_failed(layer, r, off, err);
    return cg_map_set(layer->map, first, last - first + 1, CG_STATE_DATA, err);
}

int cg_layer_write(struct cg_layer *layer, const void *buf, size_t len, uint64_t off,
                   unsigned flags, const uint8_t *head, const uint8_t *tail, struct cg_error *err)
{
    int r = check_writable(layer, err);

    if (r < 0)
        return r;
    uint64_t stripes = stripes_of(off / CG_BLOCK, (off + len - 1) / CG_BLOCK);
    lock_stripes(layer, stripes);
    r = write_locked(layer, buf, len, off, flags, head, tail, err);
    unlock_stripes(layer, stripes);
    return r;
}

static int punch(struct cg_layer *layer, uint64_t block, uint64_t count, struct cg_error *err)
{
    uint64_t off = block * CG_BLOCK;

    while (fallocate(layer->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
                     (off_t)(count * CG_BLOCK)) < 0) {
        /* Without it the blocks are zero all the same; only their space stays. */
        if (errno == EOPNOTSUPP)
            return 0;
        if (errno != EINTR)
            return cg_error_set(err, errno, "give back space of %s.data at %llu", layer->uuid,
                                (unsigned long long)off);
    }
    written(layer, block, count);
    return 0;
}

static int zero_locked(struct cg_layer *layer, uint64_t block, uint64_t count, struct cg_error *err)
{
    uint64_t first = 0, end = 0, n;

    /* Where there is data to give back: absent and zero blocks between may be punched too. */
    for (uint64_t at = block; at < block + count; at += n) {
        enum cg_state state;
        int r = cg_map_run(layer->map, at, block + count - at, &state, &n, err);
        if (r < 0)
            return r;
        if (state != CG_STATE_DATA)
            continue;
        if (end == 0)
            first = at;
        end = at + n;
    }
    int r = cg_map_set(layer->map, block, count, CG_STATE_ZERO, err);
    if (r == 0 && end > 0)
        r = punch(layer, first, end - first, err);
    return r;
}

int cg_layer_zero(struct cg_layer *layer, uint64_t block, uint64_t count, struct cg_error *err)
{
    int r = check_writable(layer, err);

    while (r == 0 && count > 0) {
        uint64_t n = cg_min(count, CG_MAP_WINDOW_BLOCKS - block % CG_MAP_WINDOW_BLOCKS);
        uint64_t stripes = stripes_of(block, block + n - 1);
        lock_stripes(layer, stripes);
        r = zero_locked(layer, block, n, err);
        unlock_stripes(layer, stripes);
        block += n;
        count -= n;
    }
    return r;
}

static int sync_failed(struct cg_layer *layer, const char *what, struct cg_error *err)
{
    int errnum = errno;

    atomic_store(&layer->failed, true);
    return cg_error_set(err, errnum, "flush %s.%s", layer->uuid, what);
}

/* A state may reach the disk only after its data. */
static int flush_batch(struct cg_layer *layer, struct cg_map_batch *batch, struct cg_error *err)
{
    bool unsynced = atomic_exchange(&layer->unsynced, false);

    if (unsynced || batch->count) {
        cg_marks_sync_begin(cg_map_work(layer->map));
        if (fdatasync(layer->fd) < 0)
            return sync_failed(layer, "data", err);
        cg_marks_sync_end(cg_map_work(layer->map));
    }
    int r = cg_map_put(layer->map, batch, err);
    if (r < 0)
        return r;
    if (batch->count && fdatasync(cg_map_fd(layer->map)) < 0)
        return sync_failed(layer, "map", err);
    return 0;
}

static int flush_once(struct cg_layer *layer, struct cg_error *err)
{
    struct cg_map_batch batch;
    int r = check_writable(layer, err);

    if (r == 0)
        r = cg_map_take(layer->map, &batch, err);
    if (r < 0)
        return r;
    r = flush_batch(layer, &batch, err);
    cg_map_batch_free(&batch);
    return r;
}

/* Leads a round.  Called and returns with the lock held, lets go of it in between. */
static void flush_round_locked(struct cg_layer *layer)
{
    struct cg_error error = { .message = "" };

    layer->flushing = true;
    uint64_t round = ++layer->begun_rounds;
    pthread_mutex_unlock(&layer->lock);
    int r = flush_once(layer, &error);
    pthread_mutex_lock(&layer->lock);
    layer->flushing = false;
    layer->done_rounds = round;
    if (r < 0) {
        layer->bad_round = round;
        layer->result = r;
        layer->error = error;
    }
    pthread_cond_broadcast(&layer->round_done);
}

int cg_layer_flush(struct cg_layer *layer, struct cg_error *err)
{
    if (!layer->begun)
        return 0;
    CG_LOCK(&layer->lock);
    uint64_t mine = layer->begun_rounds + 1; /* the running one began before this call */

    while (layer->done_rounds < mine) {
        if (layer->flushing)
            pthread_cond_wait(&layer->round_done, &layer->lock);
        else
            flush_round_locked(layer);
    }
    if (layer->bad_round >= mine) {
        if (err)
            *err = layer->error;
        return layer->result;
    }
    return 0;
}

int cg_layer_is_empty(struct cg_layer *layer, bool *ret_empty, struct cg_error *err)
{
    return cg_map_is_empty(layer->map, ret_empty, err);
}

bool cg_layer_shared(struct cg_layer *layer)
{
    struct stat data, map;

    return fstat(layer->fd, &data) < 0 || fstat(cg_map_fd(layer->map), &map) < 0 ||
           data.st_nlink > 1 || map.st_nlink > 1;
}
