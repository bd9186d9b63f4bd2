/* The map's working map: made, taken over from who died, given up (see map_inside.h). */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/map_inside.h"

/* Of a window that is CG_MAP_SHARED by now, so that a map takes its memory once. */
static void give_back_own(struct cg_map *map, uint64_t window)
{
    if (sysconf(_SC_PAGESIZE) <= (long)CG_MAP_WINDOW)
        madvise((void *)cg_map_own_words(map, window), CG_MAP_WINDOW,
                MADV_DONTNEED); /* only a wish */
}

static struct cg_work_map_id work_id(struct cg_map *map, const char *run, const struct stat *st)
{
    return (struct cg_work_map_id){ .run = run,
                                    .uuid = map->uuid,
                                    .dev = st->st_dev,
                                    .inode = st->st_ino,
                                    .windows = map->windows };
}

int cg_map_follow(struct cg_map *map, const char *run, bool *ret_found, struct cg_error *err)
{
    struct stat st;

    if (fstat(map->fd, &st) < 0)
        return cg_error_set(err, errno, "stat %s.map", map->uuid);
    struct cg_work_map_id id = work_id(map, run, &st);
    struct cg_work_map *work;
    int r = cg_work_map_open(&id, false, NULL, &work, err);
    *ret_found = r != -ENOENT;
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    CG_LOCK(&map->load);
    for (uint64_t w = 0; w < map->windows; w++) {
        if (!cg_work_map_has(work, w))
            continue;
        _Atomic uint64_t *from = cg_work_map_words(work, w);
        for (size_t i = 0; i < CG_MAP_WORDS; i++)
            atomic_store(&cg_map_own_words(map, w)[i], atomic_load(&from[i]));
        atomic_store(&map->status[w], CG_MAP_OWN);
    }
    cg_work_map_close(work);
    return 0;
}

/* The working map of a dead writer is the truth.  All of it is written by the next flush, also
 * where the map file reads the same: that may be what was written and not synced, or what a sync
 * failed for. */
static int adopt_window(struct cg_map *map, struct cg_work_map *work, uint64_t window,
                        struct cg_error *err)
{
    uint64_t disk[CG_MAP_WORDS];
    _Atomic uint64_t *words = cg_work_map_words(work, window);
    int r = cg_map_read_window(map, window, disk, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < CG_MAP_WORDS; i++)
        if (atomic_load(&words[i]) != 0 || disk[i] != 0)
            cg_map_mark(map, window * CG_MAP_WINDOW_SECTORS + i / CG_MAP_SECTOR_WORDS);
    return 0;
}

static int adopt(struct cg_map *map, struct cg_work_map *work, struct cg_error *err)
{
    CG_LOCK(&map->load);
    for (uint64_t w = 0; w < map->windows; w++) {
        int r = cg_work_map_has(work, w) ? adopt_window(map, work, w, err) : 0;
        if (r < 0)
            return r;
    }
    map->work = work;
    for (uint64_t w = 0; w < map->windows; w++)
        if (cg_work_map_has(work, w) &&
            atomic_exchange(&map->status[w], CG_MAP_SHARED) == CG_MAP_OWN)
            give_back_own(map, w);
    return 0;
}

int cg_map_begin(struct cg_map *map, const char *run, bool *ret_adopted, struct cg_error *err)
{
    struct cg_work_map *work = NULL;
    bool created = false;
    struct stat st;

    assert(!map->dirty);
    if (fstat(map->fd, &st) < 0)
        return cg_error_set(err, errno, "stat %s.map", map->uuid);
    struct cg_work_map_id id = work_id(map, run, &st);
    map->dirty = calloc(cg_map_dirty_words(map), sizeof *map->dirty);
    if (!map->dirty)
        return cg_error_set(err, ENOMEM, "write %s.map", map->uuid);
    int r = cg_work_map_open(&id, true, &created, &work, err);
    if (r == 0)
        r = adopt(map, work, err);
    if (r < 0) {
        cg_work_map_close(work);
        free((void *)map->dirty);
        map->dirty = NULL;
        return r;
    }
    *ret_adopted = !created;
    return 0;
}

bool cg_map_left(struct cg_map *map, const char *run)
{
    struct stat st;

    if (fstat(map->fd, &st) < 0)
        return true;
    struct cg_work_map_id id = work_id(map, run, &st);
    return cg_work_map_exists(&id);
}

int cg_map_end(struct cg_map *map, struct cg_error *err)
{
    return map->work ? cg_work_map_unlink(map->work, err) : 0;
}

void cg_map_forget(int dirfd, const char *uuid, const char *run)
{
    char name[CG_UUID_LEN + 5];
    struct stat st;

    snprintf(name, sizeof name, "%s.map", uuid);
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    struct cg_work_map_id id = { .run = run, .uuid = uuid, .dev = st.st_dev, .inode = st.st_ino };
    cg_work_map_forget(&id);
}

/* Gives the window a place in the working map. */
int cg_map_share(struct cg_map *map, uint64_t window, struct cg_error *err)
{
    CG_LOCK(&map->load);
    uint8_t status = atomic_load(&map->status[window]);
    int r = 0;

    if (status == CG_MAP_SHARED)
        return 0;
    if (status == CG_MAP_UNKNOWN)
        r = cg_map_load_locked(map, window, err);
    if (r == 0)
        r = cg_work_map_reserve(map->work, window, err);
    if (r < 0)
        return r;
    _Atomic uint64_t *to = cg_work_map_words(map->work, window);
    bool own = atomic_load(&map->status[window]) == CG_MAP_OWN;
    for (size_t i = 0; i < CG_MAP_WORDS; i++)
        atomic_store_explicit(&to[i], own ? cg_map_own_words(map, window)[i] : 0,
                              memory_order_relaxed);
    cg_work_map_publish(map->work, window);
    atomic_store(&map->status[window], CG_MAP_SHARED);
    if (own)
        give_back_own(map, window);
    return 0;
}

static int mark_window(struct cg_map *map, uint64_t window, struct cg_error *err)
{
    const _Atomic uint64_t *words;
    int r = cg_map_look(map, window, &words, err);

    if (r < 0 || !words)
        return r;
    r = cg_map_share(map, window, err);
    if (r < 0)
        return r;
    words = cg_work_map_words(map->work, window);
    for (size_t i = 0; i < CG_MAP_WORDS; i++)
        if (atomic_load(&words[i]) != 0)
            cg_map_mark(map, window * CG_MAP_WINDOW_SECTORS + i / CG_MAP_SECTOR_WORDS);
    return 0;
}

int cg_map_mark_all(struct cg_map *map, struct cg_error *err)
{
    int r = 0;

    for (uint64_t w = 0; r == 0 && w < map->windows; w++)
        r = mark_window(map, w, err);
    return r;
}
