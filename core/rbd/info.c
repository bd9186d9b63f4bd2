#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/rbd/rbd.h"

static void identify_parent(rbd_image_t image, char ret[static CG_ID_MAX + 1])
{
    rbd_linked_image_spec_t parent;
    rbd_snap_spec_t snap;
    uint64_t features;

    if (rbd_get_features(image, &features) == 0 && (features & RBD_FEATURE_MIGRATING)) {
        strcpy(ret, "migration");
        return;
    }
    if (rbd_get_parent(image, &parent, &snap) < 0)
        return;
    snprintf(ret, CG_ID_MAX + 1, "%" PRId64 "/%s@%" PRIu64, parent.pool_id, parent.image_id,
             snap.id);
    rbd_linked_image_spec_cleanup(&parent);
    rbd_snap_spec_cleanup(&snap);
}

/* Opens what is named and identifies it.  The pool's number and the image's id are never used
 * again. */
static int open_identified(struct cg_rbd *rbd, const struct cg_name *name,
                           struct cg_rbd_shared **ret_shared, struct cg_identity *ret,
                           struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_unshare_cleanup) struct cg_rbd_shared *shared = NULL;
    struct cg_identity id = { .snapshot = "" };
    char fsid[CG_RBD_FSID + 1], image_id[32];
    struct cg_rbd_place p;
    uint64_t snap;

    int r = cg_rbd_place_to_look(rbd, name, &p, err);
    if (r == 0)
        r = cg_rbd_cluster_fsid(rbd->cluster, fsid, err);
    if (r == 0)
        r = cg_rbd_share(rbd, name, &shared, err);
    if (r < 0)
        return r;
    rbd_image_t image = cg_rbd_shared_handle(shared);
    identify_parent(image, id.parent);
    r = rbd_get_id(image, image_id, sizeof image_id);
    if (r == 0 && name->snapshot[0]) {
        r = rbd_snap_get_id(image, name->snapshot, &snap);
        snprintf(id.snapshot, sizeof id.snapshot, "%" PRIu64, r == 0 ? snap : 0);
    }
    if (r < 0)
        return cg_rbd_failed(r, err, "identify %s", p.text);
    if ((size_t)snprintf(id.image, sizeof id.image, "%s/%" PRId64 "/%s", fsid,
                         rados_ioctx_get_id(p.io), image_id) >= sizeof id.image)
        return cg_error_set(err, EOVERFLOW, "identify %s", p.text);
    *ret = id;
    *ret_shared = shared;
    shared = NULL;
    return 0;
}

int cg_rbd_identify(void *self, const struct cg_name *name, struct cg_identity *ret,
                    struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_unshare_cleanup) struct cg_rbd_shared *shared = NULL;

    return open_identified(self, name, &shared, ret, err);
}

/* What the image and, unless snap is 0, its snapshot are called now. */
static int names_of(rados_ioctx_t io, const char *image_id, uint64_t snap, struct cg_name *name)
{
    char text[CG_RBD_SNAP_MAX], snap_text[CG_RBD_SNAP_MAX] = "";
    size_t len = sizeof text, snap_len = sizeof snap_text;
    rbd_image_t image;

    int r = rbd_open_by_id_read_only(io, image_id, &image, NULL);
    if (r < 0)
        return r;
    r = rbd_get_name(image, text, &len);
    if (r == 0 && snap)
        r = rbd_snap_get_name(image, snap, snap_text, &snap_len);
    cg_rbd_close(image);
    if (r < 0)
        return r;
    if (!cg_name_part_valid(text) || (snap && !cg_name_part_valid(snap_text)))
        return -ENOENT; /* there is no name for it */
    strcpy(name->part[name->parts - 1], text);
    strcpy(name->snapshot, snap_text);
    return 0;
}

int cg_rbd_find(void *self, const struct cg_identity *identity, struct cg_name *name,
                struct cg_error *err)
{
    char of_fsid[CG_RBD_FSID + 1], image_id[32], fsid[CG_RBD_FSID + 1];
    struct cg_rbd *rbd = self;
    struct cg_rbd_place p;
    int64_t pool;

    int r = cg_rbd_place_to_look(rbd, name, &p, err);
    if (r == 0)
        r = cg_rbd_cluster_fsid(rbd->cluster, fsid, err);
    if (r < 0)
        return r;
    if (sscanf(identity->image, "%36[^/]/%" SCNd64 "/%31s", of_fsid, &pool, image_id) == 3 &&
        strcmp(of_fsid, fsid) == 0 && pool == rados_ioctx_get_id(p.io))
        r = names_of(p.io, image_id, strtoull(identity->snapshot, NULL, 10), name);
    else
        r = -ENOENT;
    return r < 0 ? cg_rbd_failed(r, err, "look for what was %s", p.text) : 0;
}

/* "layering, exclusive-lock" as an array. */
static json_t *features_json(uint64_t features)
{
    char text[512];
    size_t size = sizeof text;
    json_t *array = json_array();

    if (rbd_features_to_string(features, text, &size) < 0)
        return array;
    for (char *save, *f = strtok_r(text, ",", &save); f; f = strtok_r(NULL, ",", &save))
        json_array_append_new(array, json_string(f));
    return array;
}

static json_t *parent_json(rbd_image_t image)
{
    rbd_linked_image_spec_t parent;
    rbd_snap_spec_t snap;

    if (rbd_get_parent(image, &parent, &snap) < 0)
        return json_null();
    const char *ns = parent.pool_namespace ? parent.pool_namespace : "";
    json_t *text = json_sprintf("rbd/%s%s%s/%s@%s", parent.pool_name, *ns ? "/" : "", ns,
                                parent.image_name, snap.name);
    rbd_linked_image_spec_cleanup(&parent);
    rbd_snap_spec_cleanup(&snap);
    return text;
}

int cg_rbd_info(void *self, const struct cg_name *name, json_t **ret_info, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_unshare_cleanup) struct cg_rbd_shared *shared = NULL;
    struct cg_identity id;
    rbd_image_info_t stat;
    uint64_t features = 0, flags = 0, snap;
    struct timespec t = { 0 };
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    int r = open_identified(self, name, &shared, &id, err);
    if (r < 0)
        return r;
    rbd_image_t image = cg_rbd_shared_handle(shared);
    r = rbd_stat(image, &stat, sizeof stat);
    if (r == 0)
        r = rbd_get_features(image, &features);
    if (r == 0)
        r = rbd_get_flags(image, &flags);
    if (r == 0 && name->snapshot[0] && rbd_snap_get_id(image, name->snapshot, &snap) == 0)
        r = rbd_snap_get_timestamp(image, snap, &t);
    else if (r == 0)
        r = rbd_get_create_timestamp(image, &t);
    if (r < 0)
        return cg_rbd_failed(r, err, "describe %s", text);
    *ret_info = json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:I, s:o, s:b, s:o, s:b}", "name",
                          text, "type", name->snapshot[0] ? "rbd snapshot" : "rbd image", "size",
                          (json_int_t)cg_round_up(stat.size, CG_SECTOR), "original_size",
                          (json_int_t)stat.size, "created", (json_int_t)t.tv_sec, "image", id.image,
                          "snapshot", id.snapshot, "object_size", (json_int_t)stat.obj_size,
                          "features", features_json(features), "object_map_valid",
                          !(flags & (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID)),
                          "parent", parent_json(image), "read_only", name->snapshot[0] != '\0');
    return *ret_info ? 0 : cg_error_set(err, ENOMEM, "describe %s", text);
}
