/* What keeps a snapshot for those who stand on it: volumes of hosts that Ceph knows nothing of, by
 * marks, and clones, which Ceph knows.  A mark is set before the protection is looked at, and the
 * protection is taken away before the marks are looked at again: one of the two sees the other. */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/marks.h"
#include "core/rbd/rbd.h"

int cg_rbd_freeze(void *self, struct cg_name *name, struct cg_error *err)
{
    char uuid[CG_UUID_LEN + 1];
    struct cg_name snapshot = *name;

    if (name->snapshot[0])
        return 0;
    cg_uuid(uuid);
    snprintf(snapshot.snapshot, sizeof snapshot.snapshot, "%s%s", CG_RBD_AUTO, uuid);
    int r = cg_rbd_snapshot(self, &snapshot, 1, err);
    if (r == 0)
        *name = snapshot;
    return r;
}

int cg_rbd_protect(rbd_image_t image, const char *snapshot, struct cg_error *err)
{
    struct cg_rbd_mark mark = { .protection = true };
    int is_protected;

    cg_uuid(mark.uuid);
    int r = rbd_snap_get_id(image, snapshot, &mark.snapshot);
    if (r == 0)
        r = rbd_snap_is_protected(image, snapshot, &is_protected);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no snapshot %s any more", snapshot);
    if (r < 0)
        return cg_rbd_failed(r, err, "look at snapshot %s", snapshot);
    if (is_protected)
        return 0;
    r = cg_rbd_mark_set(image, &mark, err);
    if (r < 0)
        return r;
    r = rbd_snap_protect(image, snapshot);
    if (r == 0)
        return 0;
    if (r == -EBUSY) /* somebody else did meanwhile: it's theirs */
        return cg_rbd_mark_remove(image, &mark, err);
    cg_rbd_mark_remove(image, &mark, NULL);
    if (r == -ENOSYS)
        return cg_error_say(err, ENOTSUP,
                            "the image hasn't the feature layering, so its snapshots can't be "
                            "protected: import it instead");
    return cg_rbd_failed(r, err, "protect snapshot %s", snapshot);
}

/* The name of a snapshot; "" if it's gone. */
static int snapshot_name(rbd_image_t image, uint64_t id, char ret[static CG_RBD_SNAP_MAX],
                         struct cg_error *err)
{
    size_t len = CG_RBD_SNAP_MAX;
    int r = rbd_snap_get_name(image, id, ret, &len);

    if (r == -ENOENT)
        ret[0] = '\0';
    return r < 0 && r != -ENOENT ? cg_rbd_failed(r, err, "look at a snapshot") : 0;
}

/* The snapshot isn't protected by cowgate any more. */
static int remove_protections(rbd_image_t image, const struct cg_rbd_marks *marks, uint64_t id,
                              struct cg_error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < marks->count; i++) {
        if (marks->v[i].protection && marks->v[i].snapshot == id)
            r = cg_rbd_mark_remove(image, &marks->v[i], err);
    }
    return r;
}

/* Takes cowgate's protection away, which before says, unless somebody needs it.  1: it stays. */
static int unprotect(rbd_image_t image, const struct cg_rbd_marks *before, uint64_t id,
                     const char *name, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_marks_clear) struct cg_rbd_marks marks = { 0 };

    int r = rbd_snap_unprotect(image, name);
    if (r == -EBUSY) /* clones of format 1 */
        return 1;
    if (r < 0 && r != -EINVAL)
        return cg_rbd_failed(r, err, "unprotect snapshot %s", name);
    r = cg_rbd_marks_read(image, &marks, err);
    if (r == 0 && cg_rbd_marks_holder(&marks, id)) {
        r = cg_rbd_protect(image, name, err);
        return r < 0 ? r : 1;
    }
    return r < 0 ? r : remove_protections(image, before, id, err);
}

int cg_rbd_tidy(rbd_image_t image, uint64_t id, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_marks_clear) struct cg_rbd_marks marks = { 0 };
    char name[CG_RBD_SNAP_MAX];
    int is_protected = 0;

    int r = cg_rbd_marks_read(image, &marks, err);
    if (r == 0 && cg_rbd_marks_holder(&marks, id))
        return 1;
    if (r == 0)
        r = snapshot_name(image, id, name, err);
    if (r < 0)
        return r;
    bool ours = cg_rbd_marks_protected(&marks, id);
    if (name[0] && rbd_snap_is_protected(image, name, &is_protected) == 0 && is_protected)
        r = ours ? unprotect(image, &marks, id, name, err) : 1;
    else if (ours)
        r = remove_protections(image, &marks, id, err);
    if (r != 0 || strncmp(name, CG_RBD_AUTO, strlen(CG_RBD_AUTO)) != 0)
        return r;
    r = rbd_snap_remove(image, name); /* Ceph keeps what clones of format 2 need of it */
    if (r == -EBUSY)
        return 1;
    return r < 0 && r != -ENOENT ? cg_rbd_failed(r, err, "delete snapshot %s", name) : 0;
}

int cg_rbd_hold(void *self, const struct cg_name *name, const char *uuid, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    struct cg_rbd_mark mark = { 0 };
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    if (!name->snapshot[0])
        return cg_error_say(err, EINVAL, "%s changes; only a snapshot can be held", text);
    if (!cg_uuid_valid(uuid))
        return cg_error_say(err, EINVAL, "hold %s: %s is no uuid", text, uuid);
    strcpy(mark.uuid, uuid);
    int r = cg_rbd_open_head_of(self, name, &im, &mark.snapshot, err);
    if (r < 0)
        return r;
    rbd_image_t image = cg_rbd_image_handle(im);
    r = cg_rbd_mark_set(image, &mark, err);
    if (r == 0) {
        r = cg_rbd_protect(image, name->snapshot, err);
        if (r < 0)
            cg_rbd_mark_remove(image, &mark, NULL);
    }
    return r < 0 ? cg_error_prefix(err, r, "hold %s", text) : 0;
}

/* Removes what uuid holds, by whatever name the snapshot has now. */
static int release_marks(rbd_image_t image, const char *uuid, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_marks_clear) struct cg_rbd_marks marks = { 0 };

    int r = cg_rbd_marks_read(image, &marks, err);
    for (size_t i = 0; r >= 0 && i < marks.count; i++) {
        const struct cg_rbd_mark *m = &marks.v[i];
        if (m->protection || strcmp(m->uuid, uuid) != 0)
            continue;
        r = cg_rbd_mark_remove(image, m, err);
        if (r == 0)
            r = cg_rbd_tidy(image, m->snapshot, err);
    }
    return r < 0 ? r : 0;
}

int cg_rbd_release(void *self, const struct cg_name *name, const char *uuid, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    char text[CG_NAME_MAX];
    uint64_t id;

    int r = cg_rbd_open_head(self, name, &im, err);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    rbd_image_t image = cg_rbd_image_handle(im);
    r = release_marks(image, uuid, err);
    /* One made for a clone that came to nothing has no mark. */
    if (r == 0 && rbd_snap_get_id(image, name->snapshot, &id) == 0)
        r = cg_rbd_tidy(image, id, err);
    return r < 0 ? cg_error_prefix(err, r, "release %s", cg_name_text(name, true, text)) : 0;
}
