#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/map_file.h"
#include "core/volumes/work_map.h"

/* The file: a page that says what it is, the bits of the windows, their marks, the windows, each in
 * whole pages.  Marks have memory where their window has.  It never leaves the host, so words are
 * in the host's order; the fixed page isn't for people either. */
#define PAGE 4096u
enum {
    AT_MAGIC = 0,
    AT_UUID = 8,
    AT_DEV = 48,
    AT_INODE = 56,
    AT_WINDOWS = 64,
    ID_LEN = 72,
    AT_UNSURE = 128, /* changes, so it isn't part of what the file is known by */
};

static const uint8_t magic[8] = { 'C', 'O', 'W', 'G', 'W', 'R', 'K', '2' };

struct cg_work_map {
    char path[PATH_MAX];
    int fd;
    uint64_t windows, length;
    uint8_t *base; /* mapped: length bytes */
    _Atomic uint64_t *bits;
    struct cg_work_marks *marks;
    uint8_t *words;
};

static uint64_t bits_length(uint64_t windows)
{
    return cg_round_up((windows + 7) / 8, PAGE);
}

static uint64_t marks_at(uint64_t windows)
{
    return PAGE + bits_length(windows);
}

static uint64_t words_at(uint64_t windows)
{
    return marks_at(windows) + cg_round_up(windows * sizeof(struct cg_work_marks), PAGE);
}

static void encode_id(uint8_t ret[static ID_LEN], const struct cg_work_map_id *id)
{
    memset(ret, 0, ID_LEN);
    memcpy(ret + AT_MAGIC, magic, sizeof magic);
    memcpy(ret + AT_UUID, id->uuid, CG_UUID_LEN);
    cg_put_le64(ret + AT_DEV, id->dev);
    cg_put_le64(ret + AT_INODE, id->inode);
    cg_put_le64(ret + AT_WINDOWS, id->windows);
}

static int path_of(const struct cg_work_map_id *id, char ret[static PATH_MAX], struct cg_error *err)
{
    char boot[37];
    int r = cg_boot_id(boot, err);

    if (r < 0)
        return r;
    if (snprintf(ret, PATH_MAX, "%s/map-%s-%llx-%llx-%s", id->run, id->uuid,
                 (unsigned long long)id->dev, (unsigned long long)id->inode, boot) >= PATH_MAX)
        return cg_error_set(err, ENAMETOOLONG, "working map in %s", id->run);
    return 0;
}

/* Makes the file under another name first: under its own it is whole. */
static int create(const struct cg_work_map_id *id, const char *path, uint64_t length,
                  struct cg_error *err)
{
    char tmp[PATH_MAX + 4];
    uint8_t head[ID_LEN];

    snprintf(tmp, sizeof tmp, "%s.new", path);
    CG_CLEANUP(cg_close) int fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return cg_error_set(err, errno, "create working map %s", tmp);
    encode_id(head, id);
    int r = cg_pwrite_full(fd, head, sizeof head, 0);
    if (r == 0 && (fallocate(fd, 0, 0, (off_t)marks_at(id->windows)) < 0 ||
                   ftruncate(fd, (off_t)length) < 0 || rename(tmp, path) < 0))
        r = -errno;
    if (r < 0) {
        unlink(tmp);
        return cg_error_set(err, -r, "create working map %s", path);
    }
    return 0;
}

static int check(struct cg_work_map *map, const struct cg_work_map_id *id, struct cg_error *err)
{
    uint8_t want[ID_LEN], have[ID_LEN];
    struct stat st;

    encode_id(want, id);
    if (fstat(map->fd, &st) < 0)
        return cg_error_set(err, errno, "stat working map %s", map->path);
    int r = cg_pread_full(map->fd, have, sizeof have, 0);
    if (r < 0 || memcmp(want, have, sizeof want) != 0 || (uint64_t)st.st_size != map->length)
        return cg_error_say(err, EIO, "working map %s is damaged", map->path);
    return 0;
}

static int map_memory(struct cg_work_map *map, bool writable, struct cg_error *err)
{
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *base = mmap(NULL, map->length, prot, MAP_SHARED, map->fd, 0);

    if (base == MAP_FAILED)
        return cg_error_set(err, errno, "map working map %s", map->path);
    map->base = base;
    map->bits = (_Atomic uint64_t *)(map->base + PAGE);
    map->marks = (struct cg_work_marks *)(map->base + marks_at(map->windows));
    map->words = map->base + words_at(map->windows);
    return 0;
}

int cg_work_map_open(const struct cg_work_map_id *id, bool make, bool *ret_created,
                     struct cg_work_map **ret_map, struct cg_error *err)
{
    struct cg_work_map *map = calloc(1, sizeof *map);
    bool created = false;

    if (!map)
        return cg_error_set(err, ENOMEM, "open a working map");
    map->fd = -1;
    map->windows = id->windows;
    map->length = words_at(id->windows) + id->windows * CG_MAP_WINDOW;
    int r = path_of(id, map->path, err);
    if (r < 0)
        goto fail;
    map->fd = open(map->path, (make ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (map->fd < 0 && errno == ENOENT && make) {
        r = create(id, map->path, map->length, err);
        if (r < 0)
            goto fail;
        created = true;
        map->fd = open(map->path, O_RDWR | O_CLOEXEC);
    }
    if (map->fd < 0) {
        r = cg_error_set(err, errno, "open working map %s", map->path);
        goto fail;
    }
    r = check(map, id, err);
    if (r == 0)
        r = map_memory(map, make, err);
    if (r < 0)
        goto fail;
    if (ret_created)
        *ret_created = created;
    *ret_map = map;
    return 0;

fail:
    cg_work_map_close(map);
    return r;
}

void cg_work_map_close(struct cg_work_map *map)
{
    if (!map)
        return;
    if (map->base)
        munmap(map->base, map->length);
    if (map->fd >= 0)
        close(map->fd);
    free(map);
}

int cg_work_map_unlink(struct cg_work_map *map, struct cg_error *err)
{
    if (unlink(map->path) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove working map %s", map->path);
    return 0;
}

uint64_t cg_work_map_windows(struct cg_work_map *map)
{
    return map->windows;
}

bool cg_work_map_has(struct cg_work_map *map, uint64_t window)
{
    return atomic_load(&map->bits[window / 64]) >> (window % 64) & 1;
}

_Atomic uint64_t *cg_work_map_words(struct cg_work_map *map, uint64_t window)
{
    return (_Atomic uint64_t *)(map->words + window * CG_MAP_WINDOW);
}

static int reserve(struct cg_work_map *map, uint64_t off, uint64_t len, struct cg_error *err)
{
    while (fallocate(map->fd, 0, (off_t)off, (off_t)len) < 0)
        if (errno != EINTR)
            return cg_error_set(err, errno, "grow working map %s", map->path);
    return 0;
}

int cg_work_map_reserve(struct cg_work_map *map, uint64_t window, struct cg_error *err)
{
    uint64_t marks = marks_at(map->windows) + window * sizeof *map->marks;
    int r = reserve(map, marks, sizeof *map->marks, err);

    if (r < 0)
        return r;
    return reserve(map, words_at(map->windows) + window * CG_MAP_WINDOW, CG_MAP_WINDOW, err);
}

struct cg_work_marks *cg_work_map_marks(struct cg_work_map *map, uint64_t window)
{
    return &map->marks[window];
}

_Atomic uint64_t *cg_work_map_unsure(struct cg_work_map *map)
{
    return (_Atomic uint64_t *)(map->base + AT_UNSURE);
}

void cg_work_map_publish(struct cg_work_map *map, uint64_t window)
{
    atomic_fetch_or(&map->bits[window / 64], UINT64_C(1) << (window % 64));
}

bool cg_work_map_exists(const struct cg_work_map_id *id)
{
    char path[PATH_MAX];

    return path_of(id, path, NULL) < 0 || access(path, F_OK) == 0;
}

void cg_work_map_forget(const struct cg_work_map_id *id)
{
    char path[PATH_MAX];

    if (path_of(id, path, NULL) == 0)
        unlink(path);
}

void cg_work_map_clean(const char *run)
{
    CG_CLEANUP(cg_closedir) DIR *dir = opendir(run);
    struct dirent *e;
    char boot[37];

    if (!dir || cg_boot_id(boot, NULL) < 0)
        return;
    while ((e = readdir(dir)))
        if (strncmp(e->d_name, "map-", 4) == 0 && !strstr(e->d_name, boot))
            unlinkat(dirfd(dir), e->d_name, 0);
}
