/* The states in a map file and in the working map that a killed writer left: the input is a byte
 * for the layer's size, one for how much of the rest is the map file's, and one for which windows
 * are in the working map. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/map.h"
#include "core/volumes/marks.h"
#include "core/volumes/work_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define UUID "00112233-4455-4677-8899-aabbccddeeff"

static char dir[64];

static void remove_dir(void)
{
    cg_tree_remove(AT_FDCWD, dir, NULL);
}

static int open_dir(void)
{
    struct stat st;

    if (!*dir) {
        snprintf(dir, sizeof dir, "%s/cowgate-fuzz.XXXXXX",
                 stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(dir))
            abort();
        atexit(remove_dir);
    }
    return open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* What is left of the input. */
struct input {
    const uint8_t *data;
    size_t size;
};

/* The next bytes, zeros behind the end. */
static void take(struct input *in, void *ret, size_t len)
{
    size_t n = in->size < len ? in->size : len;

    memset(ret, 0, len);
    if (n > 0)
        memcpy(ret, in->data, n);
    in->data += n;
    in->size -= n;
}

static void make_map_file(int dirfd, uint8_t size, uint8_t states, struct input *in,
                          struct stat *ret)
{
    /* From a part of a block to some windows, with a part of a block at the end. */
    struct cg_map_header header = {
        .uuid = UUID, .size = 512 + (uint64_t)size * (1 << 20) + (uint64_t)(size & 7) * 512
    };
    uint8_t buf[256 * 16];
    struct cg_error err;

    unlinkat(dirfd, UUID ".map", 0);
    if (cg_map_file_create(dirfd, UUID ".map", &header, &err) < 0)
        abort();
    CG_CLEANUP(cg_close) int fd = openat(dirfd, UUID ".map", O_RDWR | O_CLOEXEC);
    size_t n = (size_t)cg_min((uint64_t)states * 16, in->size);
    take(in, buf, n);
    if (n > 0 && cg_pwrite_full(fd, buf, n, CG_MAP_HEADER) < 0)
        abort();
    if (fstat(fd, ret) < 0)
        abort();
}

static void make_work_map(const struct stat *st, uint64_t windows, uint8_t there, struct input *in)
{
    struct cg_work_map_id id = {
        .run = dir, .uuid = UUID, .dev = st->st_dev, .inode = st->st_ino, .windows = windows
    };
    struct cg_work_map *work;
    struct cg_error err;
    uint64_t words[64];

    if (cg_work_map_open(&id, true, NULL, &work, &err) < 0)
        abort();
    take(in, words, 8);
    atomic_store(cg_work_map_unsure(work), words[0]);
    for (uint64_t w = 0; w < windows; w++) {
        if (!(there >> w & 1) || cg_work_map_reserve(work, w, &err) < 0)
            continue;
        take(in, words, 16);
        atomic_store(&cg_work_map_marks(work, w)->written, words[0]);
        atomic_store(&cg_work_map_marks(work, w)->syncing, words[1]);
        take(in, words, sizeof words);
        for (size_t i = 0; i < 64; i++)
            atomic_store(&cg_work_map_words(work, w)[i], words[i]);
        cg_work_map_publish(work, w);
    }
    cg_work_map_close(work);
}

/* All runs: without gaps, each of the state that it says, up to the end. */
static void walk(struct cg_map *map)
{
    uint64_t blocks = (cg_map_size(map) + CG_BLOCK - 1) / CG_BLOCK;
    enum cg_state state;
    uint64_t count;
    struct cg_error err;

    for (uint64_t block = 0; block < blocks; block += count) {
        if (cg_map_run(map, block, blocks - block, &state, &count, &err) < 0)
            count = 1;
        else if (count == 0 || count > blocks - block || state == CG_STATE_DAMAGED)
            abort();
    }
}

/* A writer goes on with the working map: what is flushed then reads the same. */
static void go_on(int dirfd, struct cg_map *map)
{
    struct cg_map_batch batch;
    uint64_t block = 0, count;
    struct cg_error err;
    bool adopted;

    if (cg_map_begin(map, dir, &adopted, &err) < 0)
        abort();
    cg_marks_unsure(cg_map_work(map));
    for (unsigned i = 0; i < 4096 && cg_marks_next_unsure(cg_map_work(map), &block, &count); i++)
        block += count;
    if (cg_map_take(map, &batch, &err) < 0 || cg_map_put(map, &batch, &err) < 0)
        abort();
    cg_map_batch_free(&batch);
    struct cg_map *flushed;
    if (cg_map_open(dirfd, UUID, &flushed, &err) < 0)
        abort();
    uint64_t blocks = (cg_map_size(map) + CG_BLOCK - 1) / CG_BLOCK, n;
    enum cg_state a, b;
    for (block = 0; block < blocks; block += count) {
        int r = cg_map_run(map, block, blocks - block, &a, &count, &err);
        if (r != cg_map_run(flushed, block, blocks - block, &b, &n, &err) ||
            (r == 0 && (a != b || count != n)))
            abort();
        count = r < 0 ? 1 : count;
    }
    cg_map_close(flushed);
    if (cg_map_end(map, &err) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct cg_map *map;
    struct cg_error err;
    uint8_t how[3];
    struct stat st;
    bool found;

    CG_CLEANUP(cg_close) int dirfd = open_dir();
    take(&in, how, sizeof how);
    make_map_file(dirfd, how[0], how[1], &in, &st);
    if (cg_map_open(dirfd, UUID, &map, &err) < 0)
        abort();
    walk(map);
    make_work_map(&st, cg_map_file_windows(cg_map_size(map)), how[2], &in);
    if (cg_map_follow(map, dir, &found, &err) < 0 || !found)
        abort();
    walk(map);
    cg_map_close(map);
    if (cg_map_open(dirfd, UUID, &map, &err) < 0)
        abort();
    go_on(dirfd, map);
    cg_map_close(map);
    return 0;
}
