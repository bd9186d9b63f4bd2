#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/backups.h"
#include "core/base/cleanup.h"
#include "core/gateway.h"
#include "core/image/detect.h"
#include "core/image/file.h"
#include "core/image/nbd.h"
#include "core/image/qcow2.h"
#include "core/image/readahead.h"
#include "core/image/window.h"
#include "core/module.h"
#include "core/pool_spare.h"
#include "core/pool_watch.h"
#include "core/root.h"
#include "core/volumes/volumes.h"

/* Thread model: everything is set when the gateway is made, except what lock guards. */
struct cg_gateway {
    struct cg_root root;
    char *project; /* NULL: all */
    char **only;   /* NULL: all */
    bool read_only, serving, detect_zeros;
    struct cg_space *volumes;
    struct cg_pool_watch *watch; /* set before others use the gateway; may be NULL */
    pthread_mutex_t lock;
    struct cg_repository *repository; /* guarded by lock; NULL until it's needed */
    struct cg_space *backups;         /* guarded by lock; NULL until it's needed */
    struct cg_space *rbd;             /* guarded by lock; NULL until it's needed */
};

int cg_gateway_init(const char *root, const char *repository, struct cg_error *err)
{
    return cg_root_init(root, repository, err);
}

const char *cg_gateway_root(struct cg_gateway *g)
{
    return g->root.path;
}

const char *cg_gateway_advertise(struct cg_gateway *g)
{
    return g->root.advertise;
}

bool cg_gateway_pool_full(struct cg_gateway *g, char *ret_text, size_t size)
{
    return cg_pool_full(g->root.pool, g->root.pool_warn, ret_text, size);
}

int cg_gateway_pool_info(struct cg_gateway *g, json_t **ret_info, struct cg_error *err)
{
    return cg_pool_info(g->root.pool, g->root.pool_warn, g->volumes, ret_info, err);
}

int cg_gateway_watch_pool(struct cg_gateway *g, void (*say)(const char *message),
                          struct cg_error *err)
{
    return cg_pool_watch_start(g->root.pool, g->root.pool_warn, g->root.pool_interval, say,
                               &g->watch, err);
}

void cg_gateway_look_at_pool(struct cg_gateway *g)
{
    cg_pool_watch_look(g->watch);
}

bool cg_gateway_use_spare(struct cg_gateway *g)
{
    return cg_pool_spare_use(g->root.pool);
}

const char *cg_gateway_project(struct cg_gateway *g)
{
    return g->project;
}

bool cg_gateway_excludes(struct cg_gateway *g, const char *name, bool prefix)
{
    size_t len = strlen(name);

    for (char **only = g->only; only && *only; only++) {
        if (strncmp(*only, name, len) == 0 &&
            ((*only)[len] == '\0' || (prefix && (len == 0 || (*only)[len] == '/'))))
            return false;
    }
    return g->only != NULL;
}

/* Opens the repository and its space; lock is held. */
static int open_repository_locked(struct cg_gateway *g, struct cg_error *err)
{
    if (g->backups)
        return 0;
    struct cg_repository *repository;
    int r = cg_repository_open(g->root.repository, 0, &repository, err);
    if (r < 0)
        return r;
    r = cg_backups_space(repository, &g->backups, err);
    if (r < 0) {
        cg_repository_close(repository);
        return r;
    }
    g->repository = repository;
    return 0;
}

/* Loads the module for rbd/; lock is held. */
static int open_rbd_locked(struct cg_gateway *g, struct cg_error *err)
{
    const struct cg_module *module;

    if (g->rbd)
        return 0;
    int r = cg_module_load("rbd", &module, err);
    return r < 0 ? r : module->open(g->root.rbd, &g->rbd, err);
}

bool cg_gateway_has(struct cg_gateway *g, enum cg_name_space space)
{
    return space != CG_NAME_RBD || g->root.rbd;
}

size_t cg_gateway_hidden(struct cg_gateway *g)
{
    CG_LOCK(&g->lock);
    return g->rbd ? cg_space_hidden(g->rbd) : 0;
}

int cg_gateway_repository(struct cg_gateway *g, struct cg_repository **ret_repository,
                          struct cg_error *err)
{
    CG_LOCK(&g->lock);
    int r = open_repository_locked(g, err);
    if (r == 0)
        *ret_repository = g->repository;
    return r;
}

/* The space of a name, whatever the project. */
static int any_space(struct cg_gateway *g, const struct cg_name *name, struct cg_space **ret,
                     struct cg_error *err)
{
    if (name->space == CG_NAME_VOLUMES) {
        *ret = g->volumes;
        return 0;
    }
    if (name->space == CG_NAME_BACKUPS) {
        CG_LOCK(&g->lock);
        int r = open_repository_locked(g, err);
        if (r == 0)
            *ret = g->backups;
        return r;
    }
    if (name->space == CG_NAME_RBD) {
        CG_LOCK(&g->lock);
        int r = open_rbd_locked(g, err);
        if (r == 0)
            *ret = g->rbd;
        return r;
    }
    return cg_error_say(err, ENOENT, "%s/: there is no such space in this root",
                        cg_name_space_text(name->space));
}

static int space_of(struct cg_gateway *g, const struct cg_name *name, bool prefix,
                    struct cg_space **ret_space, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    cg_name_text(name, false, text);
    if (g->serving && !cg_gateway_has(g, name->space))
        return cg_error_say(err, ENOENT, "%s/: this root's configuration has no such space",
                            cg_name_space_text(name->space));
    if (cg_gateway_excludes(g, text, prefix))
        return cg_error_say(err, ENOENT, "%s isn't served here", text);
    int r = any_space(g, name, ret_space, err);
    if (r == 0 && g->project && name->parts > 0 &&
        !cg_space_in_project(*ret_space, name, prefix, g->project))
        return cg_error_say(err, ENOENT, "%s: only project %s is served here", text, g->project);
    return r;
}

int cg_gateway_space(struct cg_gateway *g, const struct cg_name *name, struct cg_space **ret_space,
                     struct cg_error *err)
{
    return space_of(g, name, false, ret_space, err);
}

int cg_gateway_space_below(struct cg_gateway *g, const struct cg_name *prefix,
                           struct cg_space **ret_space, struct cg_error *err)
{
    return space_of(g, prefix, true, ret_space, err);
}

/* Lays an image that tells zeros over one that can't change while it's open: a volume's head is as
 * it was when it was opened if nothing of this gateway writes. */
static int detect_zeros(struct cg_gateway *g, const struct cg_name *name, struct cg_image **image,
                        struct cg_error *err)
{
    struct cg_image *below = *image;

    if (!cg_image_immutable(below) && !(g->read_only && name->space == CG_NAME_VOLUMES))
        return 0;
    int r = cg_detect_open(below, image, err);
    if (r == 0)
        cg_image_unref(below);
    return r;
}

/* Lays reading ahead over an image that can't change while it's open and waits for another machine,
 * for clients who wait for one read before they ask for the next.  Jobs read in parallel by
 * themselves. */
static int read_ahead(struct cg_gateway *g, struct cg_image **image, struct cg_error *err)
{
    struct cg_image *below = *image;

    if (!g->serving || !cg_image_remote(below))
        return 0;
    /* Zeros are looked for where a client will read soon: librbd asks about 10 objects of 4 MiB,
     * and then reads them. */
    uint64_t keep = g->detect_zeros ? CG_READAHEAD_KEEP_MAX : UINT64_C(8) << 20;
    int r = cg_readahead_open(below, keep, image, err);
    if (r == 0)
        cg_image_unref(below);
    return r;
}

/* What is laid over the image that a name's space opens: a window if a partition is meant, or
 * SNAPSHOT.qcow2. */
static int lay_over(const struct cg_name *name, struct cg_image *image, struct cg_image **ret_image,
                    struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *file = NULL;
    char text[CG_NAME_MAX];
    int r = 0;

    if (name->qcow2 && name->space != CG_NAME_BACKUPS) {
        r = cg_qcow2_open(image, &file, err);
        image = file;
    }
    if (r == 0 && name->partition)
        r = cg_window_open_partition(image, name->partition, ret_image, err);
    else if (r == 0)
        *ret_image = cg_image_ref(image);
    return r < 0 ? cg_error_prefix(err, r, "%s", cg_name_text(name, false, text)) : 0;
}

/* Opens name in its space, with what is laid over it. */
static int open_in_space(struct cg_gateway *g, struct cg_space *space, const struct cg_name *name,
                         unsigned flags, struct cg_image **ret_image, struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    int r = cg_space_open(space, name, flags, &image, err);

    if (r == 0 && cg_image_immutable(image))
        r = read_ahead(g, &image, err);
    return r < 0 ? r : lay_over(name, image, ret_image, err);
}

int cg_gateway_open(struct cg_gateway *g, const struct cg_name *name, unsigned flags,
                    struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_space *space;
    int r = cg_gateway_space(g, name, &space, err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    if (g->read_only)
        flags = CG_OPEN_READ;
    r = open_in_space(g, space, name, flags, &image, err);
    if (r == 0 && g->detect_zeros)
        r = detect_zeros(g, name, &image, err);
    if (r == 0) {
        *ret_image = image;
        image = NULL;
    }
    return r;
}

int cg_gateway_open_any(struct cg_gateway *g, const char *text, unsigned flags,
                        struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_name name;
    bool write = !g->read_only && (flags & CG_OPEN_WRITE);

    switch (cg_arg_kind(text)) {
    case CG_ARG_PATH:
        return cg_file_open(text, write, ret_image, err);
    case CG_ARG_URI:
        return cg_nbd_open(text, write, ret_image, err);
    case CG_ARG_NAME:
        break;
    }
    int r = cg_name_parse(text, &name, err);
    return r < 0 ? r : cg_gateway_open(g, &name, flags, ret_image, err);
}

/* What identifies an image's content, in one line. */
static int identity_of(struct cg_space *space, const struct cg_name *name,
                       char ret[static CG_NAME_MAX], struct cg_error *err)
{
    struct cg_identity id;
    int r = cg_space_identify(space, name, &id, err);

    if (r == 0)
        snprintf(ret, CG_NAME_MAX, "%s %s", id.image, id.snapshot);
    return r;
}

int cg_gateway_identify(struct cg_gateway *g, struct cg_name *name,
                        char ret_identity[static CG_NAME_MAX], struct cg_error *err)
{
    struct cg_space *space;
    int r = cg_gateway_space(g, name, &space, err);

    if (r == 0)
        r = cg_space_resolve(space, name, err);
    return r < 0 ? r : identity_of(space, name, ret_identity, err);
}

int cg_gateway_image_id(struct cg_gateway *g, const struct cg_name *name,
                        char ret_id[static CG_NAME_MAX], struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_name whole = *name;
    struct cg_identity id;
    struct cg_space *space;
    uint64_t off = 0, len = 0;
    char part[64] = "";
    int r = cg_gateway_space(g, name, &space, err);

    whole.partition = 0;
    if (r == 0)
        r = cg_space_identify(space, name, &id, err);
    if (r == 0 && name->partition) {
        r = open_in_space(g, space, &whole, CG_OPEN_READ, &image, err);
        if (r == 0)
            r = cg_window_find_partition(image, name->partition, &off, &len, err);
        snprintf(part, sizeof part, ":%llu+%llu", (unsigned long long)off, (unsigned long long)len);
    }
    if (r == 0)
        snprintf(ret_id, CG_NAME_MAX, "%s%s%s%s", id.image, id.snapshot[0] ? "@" : "", id.snapshot,
                 part);
    return r;
}

static int parent_resolve(void *opaque, const char *text, char ret_ref[static CG_NAME_MAX],
                          char ret_identity[static CG_NAME_MAX], struct cg_error *err)
{
    struct cg_gateway *g = opaque;
    struct cg_space *space;
    struct cg_name name;

    if (strlen(text) >= CG_NAME_MAX)
        return cg_error_set(err, ENAMETOOLONG, "%.100s…", text);
    ret_identity[0] = '\0';
    if (cg_arg_kind(text) == CG_ARG_PATH) {
        CG_CLEANUP(cg_free) char *full = realpath(text, NULL);
        if (!full)
            return cg_error_set(err, errno, "open %s", text);
        if (strlen(full) >= CG_NAME_MAX)
            return cg_error_set(err, ENAMETOOLONG, "%.100s…", full);
        strcpy(ret_ref, full);
        return cg_file_identity(full, ret_identity, err);
    }
    if (cg_arg_kind(text) == CG_ARG_URI) {
        strcpy(ret_ref, text);
        return 0;
    }
    int r = cg_name_parse(text, &name, err);
    if (r == 0)
        r = cg_gateway_space(g, &name, &space, err);
    if (r == 0)
        r = cg_space_resolve(space, &name, err);
    if (r == 0)
        r = cg_space_freeze(space, &name, err);
    if (r < 0)
        return r;
    cg_name_text(&name, false, ret_ref);
    return identity_of(space, &name, ret_identity, err);
}

/* An export that a volume stands on: to see to it that it doesn't change is the user's. */
static int open_export(struct cg_gateway *g, const char *uri, struct cg_image **ret_image,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    int r = cg_nbd_open(uri, false, &image, err);

    if (r == 0)
        r = read_ahead(g, &image, err);
    if (r == 0) {
        *ret_image = image;
        image = NULL;
    }
    return r;
}

static int changed(const char *ref, struct cg_error *err)
{
    return cg_error_say(err, ESTALE, "%s has changed since a volume was cloned from it", ref);
}

/* The name by which what a volume stands on is known now, if that isn't the one it had any more:
 * Ceph's own tools rename an image also while it's held. */
static int locate(struct cg_space *space, struct cg_name *name, const char *identity,
                  struct cg_error *err)
{
    struct cg_identity id = { .snapshot = "" };
    char now[CG_NAME_MAX];
    struct cg_error why;

    int r = identity[0] ? identity_of(space, name, now, err) : 0;
    if (!identity[0] || (r < 0 && r != -ENOENT) || (r == 0 && strcmp(identity, now) == 0))
        return r;
    if (sscanf(identity, "%64s %64s", id.image, id.snapshot) >= 1 &&
        cg_space_find(space, &id, name, &why) == 0)
        return 0;
    return r;
}

/* Opens what name says.  -ESTALE: it isn't what identity says. */
static int open_identified(struct cg_gateway *g, struct cg_space *space, const struct cg_name *name,
                           const char *identity, struct cg_image **ret_image, struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    char now[CG_NAME_MAX] = "";

    int r = open_in_space(g, space, name, CG_OPEN_READ, &image, err);
    if (r == 0 && identity[0])
        r = identity_of(space, name, now, err);
    if (r == 0 && strcmp(identity, now) != 0)
        r = changed(cg_name_text(name, false, now), err);
    if (r < 0)
        return r;
    *ret_image = image;
    image = NULL;
    return 0;
}

static int open_named(struct cg_gateway *g, const char *ref, const char *identity,
                      struct cg_image **ret_image, struct cg_error *err)
{
    struct cg_space *space;
    struct cg_name name;

    int r = cg_name_parse(ref, &name, err);
    if (r == 0)
        r = any_space(g, &name, &space, err);
    if (r < 0)
        return r;
    r = open_identified(g, space, &name, identity, ret_image, err);
    if ((r == -ENOENT || r == -ESTALE) && locate(space, &name, identity, NULL) == 0)
        r = open_identified(g, space, &name, identity, ret_image, err);
    return r;
}

static int open_file(const char *path, const char *identity, struct cg_image **ret_image,
                     struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    char now[CG_NAME_MAX] = "";

    int r = cg_file_open(path, false, &image, err);
    if (r == 0 && identity[0])
        r = cg_file_identity(path, now, err);
    if (r == 0 && strcmp(identity, now) != 0)
        r = changed(path, err);
    if (r < 0)
        return r;
    *ret_image = image;
    image = NULL;
    return 0;
}

static int parent_open(void *opaque, const char *ref, const char *identity,
                       struct cg_image **ret_image, struct cg_error *err)
{
    switch (cg_arg_kind(ref)) {
    case CG_ARG_URI:
        return open_export(opaque, ref, ret_image, err);
    case CG_ARG_PATH:
        return open_file(ref, identity, ret_image, err);
    case CG_ARG_NAME:
        break;
    }
    return open_named(opaque, ref, identity, ret_image, err);
}

/* Holds or releases what a volume stands on; files and exports can't be held. */
static int parent_keep(struct cg_gateway *g, const char *ref, const char *identity,
                       const char *uuid, bool hold, struct cg_error *err)
{
    struct cg_space *space;
    struct cg_name name;

    if (cg_arg_kind(ref) != CG_ARG_NAME)
        return 0;
    int r = cg_name_parse(ref, &name, err);
    if (r == 0)
        r = any_space(g, &name, &space, err);
    if (r < 0)
        return r;
    if (name.space != CG_NAME_BACKUPS) /* points aren't renamed, and can be too damaged to tell */
        r = locate(space, &name, identity, err);
    if (r < 0 && (hold || r != -ENOENT))
        return r;
    return hold ? cg_space_hold(space, &name, uuid, err)
                : cg_space_release(space, &name, uuid, err);
}

static int parent_hold(void *opaque, const char *ref, const char *identity, const char *uuid,
                       struct cg_error *err)
{
    return parent_keep(opaque, ref, identity, uuid, true, err);
}

static int parent_release(void *opaque, const char *ref, const char *identity, const char *uuid,
                          struct cg_error *err)
{
    return parent_keep(opaque, ref, identity, uuid, false, err);
}

/* Copies the names, each as cg_name_text writes it. */
static int set_only(struct cg_gateway *g, const char *const *only, struct cg_error *err)
{
    struct cg_name name;
    char text[CG_NAME_MAX];
    size_t count = 0;

    while (only[count])
        count++;
    g->only = calloc(count + 1, sizeof *g->only);
    if (!g->only)
        return cg_error_set(err, ENOMEM, "open the root");
    for (size_t i = 0; i < count; i++) {
        int r = cg_name_parse(only[i], &name, err);
        if (r < 0)
            return r;
        g->only[i] = strdup(cg_name_text(&name, false, text));
        if (!g->only[i])
            return cg_error_set(err, ENOMEM, "open the root");
    }
    return 0;
}

int cg_gateway_new(const struct cg_gateway_options *options, struct cg_gateway **ret_gateway,
                   struct cg_error *err)
{
    if (options->project && !cg_name_part_valid(options->project))
        return cg_error_say(err, EINVAL, "'%s' is not the name of a project", options->project);
    struct cg_gateway *g = calloc(1, sizeof *g);
    if (!g)
        return cg_error_set(err, ENOMEM, "open the root");
    pthread_mutex_init(&g->lock, NULL);
    g->read_only = options->read_only;
    g->serving = options->serving;
    g->detect_zeros = options->detect_zeros;
    int r = cg_root_load(options->root, &g->root, err);
    if (r < 0)
        goto fail;
    if (options->project && !(g->project = strdup(options->project))) {
        r = cg_error_set(err, ENOMEM, "open the root");
        goto fail;
    }
    r = options->only ? set_only(g, options->only, err) : 0;
    if (r < 0)
        goto fail;
    const struct cg_parents parents = {
        .opaque = g,
        .resolve = parent_resolve,
        .open = parent_open,
        .hold = parent_hold,
        .release = parent_release,
    };
    r = cg_volumes_open(g->root.pool, &parents, &g->volumes, err);
    if (r < 0)
        goto fail;
    *ret_gateway = g;
    return 0;

fail:
    cg_gateway_free(g);
    return r;
}

void cg_gateway_free(struct cg_gateway *g)
{
    if (!g)
        return;
    cg_pool_watch_stop(g->watch);
    cg_space_free(g->volumes);
    cg_space_free(g->backups);
    cg_space_free(g->rbd);
    cg_repository_close(g->repository);
    pthread_mutex_destroy(&g->lock);
    cg_root_clear(&g->root);
    free(g->project);
    for (char **only = g->only; only && *only; only++)
        free(*only);
    free(g->only);
    free(g);
}
