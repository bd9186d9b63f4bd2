/* The space rbd/: Ceph RBD images and their snapshots. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/module.h"
#include "core/rbd/rbd.h"

int cg_rbd_allowed(struct cg_rbd *rbd, const char *pool, const char *namespace,
                   struct cg_error *err)
{
    if (cg_rbd_config_allows(&rbd->config, pool, namespace, NULL))
        return 0;
    return cg_error_say(err, EACCES,
                        "pool %s%s%s isn't among those that this root may use (rbd.pools in "
                        "cowgate.json)",
                        pool, namespace && *namespace ? "/" : "", namespace ? namespace : "");
}

static int place(struct cg_rbd *rbd, const struct cg_name *name, enum cg_rbd_purpose purpose,
                 struct cg_rbd_place *ret, struct cg_error *err)
{
    struct cg_rbd_place p = {
        .pool = name->part[0],
        .namespace = name->parts == 3 ? name->part[1] : "",
    };

    cg_name_text(name, true, p.text);
    if (name->parts < 2)
        return cg_error_say(err, EINVAL, "%s names no image: write rbd/POOL[/NAMESPACE]/IMAGE",
                            p.text);
    int r = cg_rbd_allowed(rbd, p.pool, p.namespace, err);
    if (r < 0)
        return cg_error_prefix(err, r, "%s", p.text);
    snprintf(p.image, sizeof p.image, "%s%s", name->draft ? CG_RBD_DRAFT : "",
             name->part[name->parts - 1]);
    r = cg_rbd_cluster_pool(rbd->cluster, purpose, p.pool, p.namespace, &p.io, err);
    if (r < 0)
        return cg_error_prefix(err, r, "%s", p.text);
    *ret = p;
    return 0;
}

int cg_rbd_place(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_place *ret,
                 struct cg_error *err)
{
    return place(rbd, name, CG_RBD_CHANGE, ret, err);
}

int cg_rbd_place_to_look(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_place *ret,
                         struct cg_error *err)
{
    return place(rbd, name, CG_RBD_LOOK, ret, err);
}

int cg_rbd_place_to_fill(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_place *ret,
                         struct cg_error *err)
{
    return place(rbd, name, CG_RBD_FILL, ret, err);
}

int cg_rbd_place_head(struct cg_rbd *rbd, const struct cg_name *name, const char *what,
                      struct cg_rbd_place *ret, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    if (name->snapshot[0])
        return cg_error_say(err, EINVAL, "%s %s: it is a snapshot, not an image", what,
                            cg_name_text(name, true, text));
    return cg_rbd_place(rbd, name, ret, err);
}

int cg_rbd_open_once(struct cg_rbd *rbd, const struct cg_name *name, bool write,
                     struct cg_rbd_image **ret_image, struct cg_error *err)
{
    struct cg_rbd_place p;

    write = write && !name->snapshot[0];
    for (unsigned attempt = 0;; attempt++) {
        int r = place(rbd, name, write ? CG_RBD_CHANGE : CG_RBD_LOOK, &p, err);
        if (r < 0)
            return r;
        r = cg_rbd_image_open(rbd->cluster, &rbd->config, p.io, p.image, name->snapshot, write,
                              p.text, ret_image, err);
        /* That the cluster has shut this client out shows here first: again, by a new connection.
         */
        if (r != -EIO || attempt > 0 || !cg_rbd_cluster_is_shut_out(rbd->cluster, p.io))
            return r;
    }
}

int cg_rbd_open_head(struct cg_rbd *rbd, const struct cg_name *name,
                     struct cg_rbd_image **ret_image, struct cg_error *err)
{
    struct cg_name head = *name;

    head.snapshot[0] = '\0';
    return cg_rbd_open_once(rbd, &head, true, ret_image, err);
}

int cg_rbd_open_head_of(struct cg_rbd *rbd, const struct cg_name *snapshot,
                        struct cg_rbd_image **ret_image, uint64_t *ret_id, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    char text[CG_NAME_MAX];

    int r = cg_rbd_open_head(rbd, snapshot, &im, err);
    if (r < 0)
        return r;
    r = rbd_snap_get_id(cg_rbd_image_handle(im), snapshot->snapshot, ret_id);
    cg_name_text(snapshot, true, text);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", text);
    if (r < 0)
        return cg_rbd_failed(r, err, "look for %s", text);
    *ret_image = im;
    im = NULL;
    return 0;
}

static bool rbd_in_project(void *self, const struct cg_name *name, bool prefix, const char *project)
{
    struct cg_rbd *rbd = self;
    const char *namespace = name->parts == 3 ? name->part[1] : "";

    /* Two components are an image of the default namespace, or, before more, a namespace. */
    if (prefix && name->parts == 2 &&
        cg_rbd_config_allows(&rbd->config, name->part[0], name->part[1], project))
        return true;
    return cg_rbd_config_allows(&rbd->config, name->part[0], name->parts == 1 ? NULL : namespace,
                                project);
}

static double rbd_audit(void *self)
{
    struct cg_rbd *rbd = self;

    return rbd->config.audit;
}

static size_t rbd_hidden(void *self)
{
    struct cg_rbd *rbd = self;

    return atomic_load(&rbd->hidden);
}

static void rbd_space_close(void *self)
{
    struct cg_rbd *rbd = self;

    cg_rbd_opens_free(rbd->opens);
    cg_rbd_cluster_free(rbd->cluster);
    cg_rbd_config_clear(&rbd->config);
    free(rbd);
}

static const struct cg_space_ops rbd_ops = {
    .in_project = rbd_in_project,
    .audit = rbd_audit,
    .hidden = rbd_hidden,
    .list = cg_rbd_list,
    .open = cg_rbd_open,
    .identify = cg_rbd_identify,
    .info = cg_rbd_info,
    .create = cg_rbd_create,
    .snapshot = cg_rbd_snapshot,
    .clone = cg_rbd_clone,
    .rollback = cg_rbd_rollback,
    .flatten = cg_rbd_flatten,
    .resize = cg_rbd_resize,
    .rename = cg_rbd_rename,
    .remove = cg_rbd_remove,
    .diff = cg_rbd_diff,
    .freeze = cg_rbd_freeze,
    .find = cg_rbd_find,
    .hold = cg_rbd_hold,
    .release = cg_rbd_release,
    .migrate_stream = cg_rbd_migrate_stream,
    .migrate_prepare = cg_rbd_migrate_prepare,
    .migrate_step = cg_rbd_migrate_step,
    .migrate_status = cg_rbd_migrate_status,
    .close = rbd_space_close,
};

static int rbd_space_open(const json_t *config, struct cg_space **ret_space, struct cg_error *err)
{
    struct cg_rbd *rbd = calloc(1, sizeof *rbd);

    if (!rbd)
        return cg_error_set(err, ENOMEM, "open rbd/");
    int r = cg_rbd_config_read(config, &rbd->config, err);
    if (r == 0) {
        rbd->cluster = cg_rbd_cluster_new(&rbd->config);
        rbd->opens = cg_rbd_opens_new();
        *ret_space = rbd->cluster && rbd->opens ? cg_space_new(CG_NAME_RBD, &rbd_ops, rbd) : NULL;
        if (!*ret_space)
            r = cg_error_set(err, ENOMEM, "open rbd/");
    }
    if (r < 0)
        rbd_space_close(rbd);
    return r;
}

__attribute__((visibility("default"))) extern const struct cg_module cowgate_module;

const struct cg_module cowgate_module = {
    .version = CG_MODULE_VERSION,
    .open = rbd_space_open,
};
