#include "config.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "tests/unit/fake-space.h"

/* Blocks are numbers of places in an arena; 0 is a hole.  Nothing is ever freed.
 *
 * Several threads may make backups of different volumes: what snapshots there are is guarded by a
 * lock, which isn't in the memory that a child may be killed with. */
static pthread_mutex_t snapshots_lock = PTHREAD_MUTEX_INITIALIZER;

#define VOLUMES 4
#define SNAPSHOTS 12
#define BLOCKS (1u << 21) /* of a volume: 2 TiB */
#define ARENA 2048        /* blocks: 2 GiB, of which only what is touched takes memory */

struct map {
    char name[CG_PART_MAX + 1]; /* "" for none, or a free place */
    bool used;
    uint64_t id, size;
    uint32_t block[BLOCKS];
};

struct volume {
    char name[CG_PART_MAX + 1];
    uint64_t id;
    struct map head, snapshot[SNAPSHOTS];
};

struct fake_space {
    struct fake_faults *faults;
    _Atomic uint64_t bytes_read, ids;
    uint64_t shrink;
    bool lie;
    uint32_t next;
    struct volume volume[VOLUMES];
    uint8_t arena[ARENA][FAKE_BLOCK];
};

struct fake_space *fake_space_new(struct fake_faults *faults)
{
    struct fake_space *f = mmap(NULL, sizeof *f, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    assert(f != MAP_FAILED);
    f->faults = faults;
    f->shrink = UINT64_MAX;
    f->next = 1;
    return f;
}

void fake_space_free(struct fake_space *f)
{
    munmap(f, sizeof *f);
}

static int call(struct fake_space *f, const char *what, struct cg_error *err)
{
    if (!f->faults)
        return 0;
    unsigned n = atomic_fetch_add(&f->faults->calls, 1) + 1;
    if (n == f->faults->fail_at)
        return cg_error_say(err, EIO, "fault %u injected: %s", n, what);
    return 0;
}

static struct volume *find(struct fake_space *f, const char *name)
{
    for (unsigned i = 0; i < VOLUMES; i++) {
        if (strcmp(f->volume[i].name, name) == 0)
            return &f->volume[i];
    }
    return NULL;
}

static struct map *find_map(struct fake_space *f, const struct cg_name *name, struct cg_error *err)
{
    struct volume *v = name->parts == 2 ? find(f, name->part[1]) : NULL;

    if (v && !name->snapshot[0])
        return &v->head;
    CG_LOCK(&snapshots_lock);
    for (unsigned i = 0; v && i < SNAPSHOTS; i++) {
        if (v->snapshot[i].used && strcmp(v->snapshot[i].name, name->snapshot) == 0)
            return &v->snapshot[i];
    }
    cg_error_say(err, ENOENT, "there is no such volume or snapshot");
    return NULL;
}

void fake_space_add(struct fake_space *f, const char *name, uint64_t size)
{
    struct volume *v = find(f, "");

    assert(v && size <= (uint64_t)BLOCKS * FAKE_BLOCK);
    snprintf(v->name, sizeof v->name, "%s", name);
    v->id = ++f->ids;
    v->head.size = size;
}

void fake_space_grow(struct fake_space *f, const char *name, uint64_t size)
{
    find(f, name)->head.size = size;
}

void fake_space_renew(struct fake_space *f, const char *name)
{
    struct volume *v = find(f, name);

    v->id = ++f->ids;
    for (unsigned i = 0; i < SNAPSHOTS; i++)
        v->snapshot[i].used = false;
}

void fake_space_shrink(struct fake_space *f, uint64_t at)
{
    f->shrink = at;
}

void fake_space_lie(struct fake_space *f, bool lie)
{
    f->lie = lie;
}

void fake_space_write(struct fake_space *f, const char *name, const void *buf, size_t len,
                      uint64_t off)
{
    struct map *m = &find(f, name)->head;
    const uint8_t *from = buf;

    assert(off + len <= m->size);
    while (len > 0) {
        uint64_t b = off / FAKE_BLOCK, in = off % FAKE_BLOCK;
        size_t n = (size_t)cg_min(len, FAKE_BLOCK - in);
        assert(f->next < ARENA);
        memcpy(f->arena[f->next], f->arena[m->block[b]], FAKE_BLOCK);
        memcpy(f->arena[f->next] + in, from, n);
        m->block[b] = f->next++;
        from += n;
        off += n;
        len -= n;
    }
}

void fake_space_punch(struct fake_space *f, const char *name, uint64_t len, uint64_t off)
{
    struct map *m = &find(f, name)->head;

    for (uint64_t b = off / FAKE_BLOCK; b < (off + len) / FAKE_BLOCK; b++)
        m->block[b] = 0;
}

unsigned fake_space_snapshots(struct fake_space *f, const char *name)
{
    unsigned n = 0;

    for (unsigned i = 0; i < SNAPSHOTS; i++)
        n += find(f, name)->snapshot[i].used;
    return n;
}

uint64_t fake_space_bytes_read(struct fake_space *f)
{
    return f->bytes_read;
}

struct opened {
    struct fake_space *f;
    struct map *map;
};

static int image_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct opened *o = self;
    uint8_t *to = buf;
    int r = call(o->f, "pread", err);

    if (r < 0)
        return r;
    if (off + len > o->f->shrink)
        return cg_error_say(err, EIO, "the source shrank while it was read");
    atomic_fetch_add(&o->f->bytes_read, len);
    while (len > 0) {
        uint64_t in = off % FAKE_BLOCK;
        size_t n = (size_t)cg_min(len, FAKE_BLOCK - in);
        memcpy(to, o->f->arena[o->map->block[off / FAKE_BLOCK]] + in, n);
        to += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int image_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    struct opened *o = self;
    int r = call(o->f, "extents", err);

    for (uint64_t b = e->start / FAKE_BLOCK; r == 0 && !cg_extents_full(e); b++)
        r = cg_extents_to(e, (b + 1) * FAKE_BLOCK, o->map->block[b] ? CG_DATA : CG_HOLE, err);
    return r;
}

static uint64_t image_size(void *self)
{
    struct opened *o = self;

    return o->map->size;
}

static void image_close(void *self)
{
    free(self);
}

static const struct cg_image_ops image_ops = {
    .name = "fake volume",
    .pread = image_pread,
    .extents = image_extents,
    .size = image_size,
    .close = image_close,
};

static int space_open(void *self, const struct cg_name *name, unsigned flags,
                      struct cg_image **ret_image, struct cg_error *err)
{
    struct fake_space *f = self;
    int r = call(f, "open", err);
    struct map *map = r < 0 ? NULL : find_map(f, name, err);

    (void)flags;
    if (!map)
        return r < 0 ? r : -ENOENT;
    struct opened *o = malloc(sizeof *o);
    assert(o);
    *o = (struct opened){ f, map };
    *ret_image = cg_image_new(&image_ops, o, true);
    assert(*ret_image);
    return 0;
}

static int space_list(void *self, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
                      struct cg_error *err)
{
    struct fake_space *f = self;
    char name[2 * CG_PART_MAX + 2];
    int r = call(f, "list", err);

    assert(prefix->parts == 1);
    for (struct volume *v = f->volume; v < f->volume + VOLUMES; v++) {
        for (unsigned i = 0; r == 0 && i < SNAPSHOTS; i++) {
            struct cg_entry entry = { .name = name };
            pthread_mutex_lock(&snapshots_lock);
            bool used = v->snapshot[i].used;
            if (used) {
                snprintf(name, sizeof name, "%.128s@%.128s", v->name, v->snapshot[i].name);
                entry.size = v->snapshot[i].size;
            }
            pthread_mutex_unlock(&snapshots_lock);
            if (used)
                r = fn(opaque, &entry, err);
        }
    }
    return r;
}

static int space_identify(void *self, const struct cg_name *name, struct cg_identity *ret,
                          struct cg_error *err)
{
    struct fake_space *f = self;
    int r = call(f, "identify", err);
    struct map *map = r < 0 ? NULL : find_map(f, name, err);

    if (!map)
        return r < 0 ? r : -ENOENT;
    *ret = (struct cg_identity){ .snapshot = "" };
    snprintf(ret->image, sizeof ret->image, "volume-%llu",
             (unsigned long long)find(f, name->part[1])->id);
    if (map->id)
        snprintf(ret->snapshot, sizeof ret->snapshot, "snapshot-%llu", (unsigned long long)map->id);
    return 0;
}

static int space_snapshot(void *self, const struct cg_name *names, size_t count,
                          struct cg_error *err)
{
    struct fake_space *f = self;
    int r = call(f, "snapshot", err);
    struct volume *v = find(f, names->part[1]);

    assert(count == 1);
    if (r < 0 || !v)
        return r < 0 ? r : cg_error_say(err, ENOENT, "there is no such volume");
    CG_LOCK(&snapshots_lock);
    for (struct map *m = v->snapshot; m < v->snapshot + SNAPSHOTS; m++) {
        if (m->used)
            continue;
        memcpy(m->block, v->head.block, cg_round_up(v->head.size, FAKE_BLOCK) / FAKE_BLOCK * 4);
        snprintf(m->name, sizeof m->name, "%s", names->snapshot);
        m->size = v->head.size;
        m->id = ++f->ids;
        m->used = true;
        return 0;
    }
    return cg_error_say(err, ENOSPC, "too many snapshots");
}

static int space_remove(void *self, const struct cg_name *name, unsigned flags,
                        struct cg_error *err)
{
    struct fake_space *f = self;
    int r = call(f, "remove", err);
    struct map *map = r < 0 ? NULL : find_map(f, name, err);

    (void)flags;
    if (!map)
        return r < 0 ? r : -ENOENT;
    assert(name->snapshot[0]);
    CG_LOCK(&snapshots_lock);
    map->used = false;
    return 0;
}

static int space_diff(void *self, const struct cg_name *from, const struct cg_name *to,
                      cg_extent_fn *fn, void *opaque, struct cg_error *err)
{
    struct fake_space *f = self;
    int r = call(f, "diff", err);
    struct map *a = r < 0 ? NULL : find_map(f, from, err);
    struct map *b = a ? find_map(f, to, err) : NULL;

    if (!b)
        return r < 0 ? r : -ENOENT;
    for (uint64_t i = 0; r == 0 && i * FAKE_BLOCK < b->size; i++) {
        if (f->lie || a->block[i] == b->block[i])
            continue;
        struct cg_extent e = { i * FAKE_BLOCK, cg_min(FAKE_BLOCK, b->size - i * FAKE_BLOCK),
                               b->block[i] ? CG_DATA : CG_HOLE };
        r = fn(opaque, &e, err);
    }
    return r;
}

static void space_close(void *self)
{
    (void)self;
}

static const struct cg_space_ops space_ops = {
    .list = space_list,
    .open = space_open,
    .identify = space_identify,
    .snapshot = space_snapshot,
    .remove = space_remove,
    .diff = space_diff,
    .close = space_close,
};

struct cg_space *fake_space_open(struct fake_space *f)
{
    return cg_space_new(CG_NAME_VOLUMES, &space_ops, f);
}
