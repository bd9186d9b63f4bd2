#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/base/workers.h"
#include "core/rbd/rbd.h"
#include "core/rbd/users.h"

/* Thread model: images are opened by a few threads at once, each into its own item. */

#define OPENERS 8

/* An image and its snapshots. */
struct item {
    char *name;
    bool there; /* false: gone meanwhile */
    uint64_t size;
    time_t time;
    bool clone, draft;
    bool writers; /* somebody has it open for writing */
    struct cg_rbd_snaps snaps;
    time_t *snap_times;
    struct cg_error why; /* it can't be opened: shown instead of what it is */
};

struct listing {
    struct cg_rbd *rbd;
    struct cg_name place; /* of the images: the prefix without an image, draft false */
    bool drafts;          /* are told too */
    bool self;            /* the prefix is an image */
    size_t count;
    struct item *items;
};

static void clear_item(struct item *it)
{
    free(it->snap_times);
    cg_rbd_snaps_clear(&it->snaps);
}

static void clear(struct listing *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->items[i].name);
        clear_item(&l->items[i]);
    }
    free(l->items);
}

/* True if the name is such as ours; others are only counted. */
static bool is_ours(struct cg_rbd *rbd, const char *name)
{
    if (cg_name_part_valid(name))
        return true;
    if (strncmp(name, CG_RBD_DRAFT, strlen(CG_RBD_DRAFT)) != 0)
        atomic_fetch_add(&rbd->hidden, 1);
    return false;
}

static int list_snapshots(rbd_image_t image, struct item *it, struct cg_error *err)
{
    int r = cg_rbd_snaps_read(image, &it->snaps, err);

    if (r < 0)
        return r;
    it->snap_times = calloc((size_t)it->snaps.count + 1, sizeof *it->snap_times);
    if (!it->snap_times)
        return cg_error_set(err, ENOMEM, "list snapshots");
    for (int i = 0; i < it->snaps.count; i++) {
        struct timespec t;
        if (rbd_snap_get_timestamp(image, it->snaps.v[i].id, &t) == 0)
            it->snap_times[i] = t.tv_sec;
    }
    return 0;
}

static int describe(struct item *it, rbd_image_t image, struct cg_error *err)
{
    char who[CG_RBD_USERS_TEXT];
    rbd_image_info_t info;
    struct timespec t;
    uint64_t overlap;
    size_t writers = 0;

    int r = rbd_stat(image, &info, sizeof info);
    if (r < 0)
        return cg_rbd_failed(r, err, "look into the image");
    r = it->draft ? cg_rbd_writers(image, &writers, who, err) : list_snapshots(image, it, err);
    if (r < 0)
        return r;
    it->size = cg_round_up(info.size, CG_SECTOR);
    it->writers = writers > 0;
    it->clone = rbd_get_overlap(image, &overlap) == 0 && overlap > 0;
    if (rbd_get_create_timestamp(image, &t) == 0)
        it->time = t.tv_sec;
    return 0;
}

static int look(void *opaque, uint64_t index, unsigned worker, struct cg_error *err)
{
    struct listing *l = opaque;
    struct item *it = &l->items[index];
    struct cg_name name = l->place;
    struct cg_rbd_image *im;

    (void)worker, (void)err;
    strcpy(name.part[name.parts++], it->name);
    name.draft = it->draft;
    int r = cg_rbd_open_once(l->rbd, &name, false, &im, &it->why);
    it->there = r != -ENOENT;
    if (r < 0)
        return 0;
    if (describe(it, cg_rbd_image_handle(im), &it->why) == 0)
        it->why.message[0] = '\0';
    cg_rbd_image_close(im);
    return 0;
}

static const char *description(const struct item *it)
{
    if (it->why.message[0])
        return it->why.message;
    if (it->draft && it->writers)
        return "unfinished: a client is filling it, or did half a minute ago";
    if (it->draft)
        return "unfinished: run its import or restore again, or delete it";
    return it->clone ? "rbd image, a clone" : "rbd image";
}

static int tell(const struct listing *l, const struct item *it, cg_entry_fn *fn, void *opaque,
                struct cg_error *err)
{
    struct cg_entry head = { .name = it->name,
                             .self = l->self,
                             .size = it->size,
                             .time = it->time,
                             .draft = it->draft,
                             .description = description(it) };

    if (!it->there)
        return 0;
    int r = fn(opaque, &head, err);
    for (int i = 0; r == 0 && i < it->snaps.count; i++) {
        const rbd_snap_info_t *s = &it->snaps.v[i];
        char text[2 * CG_PART_MAX + 2];
        if (!is_ours(l->rbd, s->name))
            continue;
        snprintf(text, sizeof text, "%s@%s", it->name, s->name);
        struct cg_entry e = { .name = text,
                              .self = l->self,
                              .size = cg_round_up(s->size, CG_SECTOR),
                              .time = it->snap_times[i],
                              .description = "rbd snapshot" };
        r = fn(opaque, &e, err);
    }
    return r;
}

/* Takes over the names that our grammar has. */
static int take(struct listing *l, const rbd_image_spec_t *specs, size_t count,
                struct cg_error *err)
{
    l->items = calloc(count + 1, sizeof *l->items);
    if (!l->items)
        return cg_error_set(err, ENOMEM, "list a pool");
    for (size_t i = 0; i < count; i++) {
        struct item *it = &l->items[l->count];
        const char *name = specs[i].name;
        it->draft = l->drafts && strncmp(name, CG_RBD_DRAFT, strlen(CG_RBD_DRAFT)) == 0;
        if (it->draft)
            name += strlen(CG_RBD_DRAFT);
        if (!is_ours(l->rbd, name))
            continue;
        it->name = strdup(name);
        l->count++;
        if (!it->name)
            return cg_error_set(err, ENOMEM, "list a pool");
    }
    return 0;
}

static int list_images(struct listing *l, rados_ioctx_t io, cg_entry_fn *fn, void *opaque,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_free) rbd_image_spec_t *specs = NULL;
    size_t count = 256;
    int r;

    do {
        free(specs);
        specs = calloc(count, sizeof *specs);
        if (!specs)
            return cg_error_set(err, ENOMEM, "list a pool");
        r = rbd_list2(io, specs, &count);
    } while (r == -ERANGE);
    if (r < 0)
        return cg_rbd_failed(r, err, "list pool %s", l->place.part[0]);
    r = take(l, specs, count, err);
    rbd_image_spec_list_cleanup(specs, count);
    if (r == 0)
        r = cg_parallel(l->count, OPENERS, look, l, err);
    for (size_t i = 0; r == 0 && i < l->count; i++)
        r = tell(l, &l->items[i], fn, opaque, err);
    return r;
}

static int list_namespaces(struct listing *l, rados_ioctx_t io, cg_entry_fn *fn, void *opaque,
                           struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *buf = NULL;
    size_t size = 1024;
    int r;

    do {
        free(buf);
        buf = calloc(1, size + 1);
        if (!buf)
            return cg_error_set(err, ENOMEM, "list namespaces");
        r = rbd_namespace_list(io, buf, &size);
    } while (r == -ERANGE);
    if (r < 0)
        return cg_rbd_failed(r, err, "list namespaces");
    for (const char *p = buf; p < buf + size && *p; p += strlen(p) + 1) {
        struct cg_entry e = { .name = p, .directory = true };
        if (!cg_rbd_config_allows(&l->rbd->config, l->place.part[0], p, NULL) ||
            !is_ours(l->rbd, p))
            continue;
        r = fn(opaque, &e, err);
        if (r != 0)
            return r;
    }
    return 0;
}

struct pools {
    struct cg_rbd *rbd;
    cg_entry_fn *fn;
    void *opaque;
};

static int tell_pool(void *opaque, const char *pool, struct cg_error *err)
{
    struct pools *p = opaque;
    struct cg_entry e = { .name = pool, .directory = true };

    if (pool[0] == '.') /* .mgr and the like: Ceph's own, without images */
        return 0;
    if (!cg_rbd_config_allows(&p->rbd->config, pool, NULL, NULL) || !is_ours(p->rbd, pool))
        return 0;
    return p->fn(p->opaque, &e, err);
}

/* A whole name: the image and its snapshots, or the one snapshot. */
static int list_one(struct cg_rbd *rbd, const struct cg_name *name, cg_entry_fn *fn, void *opaque,
                    struct cg_error *err)
{
    struct item it = { .name = (char *)name->part[name->parts - 1] };
    struct listing l = { .rbd = rbd, .place = *name, .self = true, .count = 1, .items = &it };

    l.place.parts--;
    l.place.snapshot[0] = '\0';
    l.place.draft = false;
    look(&l, 0, 0, err);
    if (!it.there && name->draft) {
        it.draft = true;
        look(&l, 0, 0, err);
    }
    int r =
        it.there ? tell(&l, &it, fn, opaque, err) : cg_error_say(err, ENOENT, "%s", it.why.message);
    clear_item(&it);
    return r;
}

static int list_pool(struct cg_rbd *rbd, const struct cg_name *prefix, cg_entry_fn *fn,
                     void *opaque, struct cg_error *err)
{
    const char *namespace = prefix->parts == 2 ? prefix->part[1] : "";
    struct listing l = { .rbd = rbd, .place = *prefix, .drafts = prefix->draft };
    rados_ioctx_t io;

    l.place.draft = false;
    int r = cg_rbd_cluster_pool(rbd->cluster, CG_RBD_LOOK, prefix->part[0], namespace, &io, err);
    if (r == 0 && prefix->parts == 1)
        r = list_namespaces(&l, io, fn, opaque, err);
    if (r == 0 && cg_rbd_config_allows(&rbd->config, prefix->part[0], namespace, NULL))
        r = list_images(&l, io, fn, opaque, err);
    clear(&l);
    return r;
}

/* Two components may be a pool and its namespace, or an image. */
static int is_namespace(struct cg_rbd *rbd, const struct cg_name *prefix, bool *ret,
                        struct cg_error *err)
{
    rados_ioctx_t io;

    *ret = false;
    if (prefix->parts != 2 || prefix->snapshot[0])
        return 0;
    int r = cg_rbd_cluster_pool(rbd->cluster, CG_RBD_LOOK, prefix->part[0], "", &io, err);
    if (r < 0)
        return r;
    r = rbd_namespace_exists(io, prefix->part[1], ret);
    return r < 0 ? cg_rbd_failed(r, err, "look for namespace %s", prefix->part[1]) : 0;
}

int cg_rbd_list(void *self, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
                struct cg_error *err)
{
    struct cg_rbd *rbd = self;
    struct pools pools = { rbd, fn, opaque };
    bool namespace;

    if (prefix->parts == 0)
        return cg_rbd_cluster_pools(rbd->cluster, tell_pool, &pools, err);
    int r = cg_rbd_allowed(rbd, prefix->part[0], prefix->parts == 3 ? prefix->part[1] : NULL, err);
    if (r == 0)
        r = is_namespace(rbd, prefix, &namespace, err);
    if (r < 0)
        return r;
    if (prefix->parts == 1 || namespace)
        return list_pool(rbd, prefix, fn, opaque, err);
    return list_one(rbd, prefix, fn, opaque, err);
}
