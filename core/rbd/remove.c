#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/marks.h"
#include "core/rbd/rbd.h"
#include "core/rbd/users.h"

static int held(const struct cg_rbd_mark *m, const char *what, struct cg_error *err)
{
    return cg_error_say(err, EBUSY,
                        "%s is needed by a volume of host %s (uuid %s) that was cloned from it: "
                        "flatten or delete that first",
                        what, m->host, m->uuid);
}

static int needed(const char *what, const char *children, struct cg_error *err)
{
    return cg_error_say(
        err, EBUSY, "%s is needed by what was cloned from it (%s): flatten or delete that first",
        what, children);
}

/* Says why a snapshot can't be unprotected. */
static int protected(rbd_image_t image, const char *snapshot, const char *what,
                     struct cg_error *err)
{
    char children[CG_RBD_USERS_TEXT];
    size_t count;

    int r = rbd_snap_set(image, snapshot);
    if (r < 0)
        return cg_rbd_failed(r, err, "look at %s", what);
    r = cg_rbd_children(image, &count, children, err);
    rbd_snap_set(image, NULL);
    if (r < 0)
        return r;
    if (count > 0)
        return needed(what, children, err);
    return cg_error_say(err, EBUSY, "%s is protected: say 'rbd snap unprotect' first", what);
}

/* Nobody needs it, but for clones of format 2, which Ceph lets keep what they need; what protects
 * it is cowgate's and can go.  id, name: of the snapshot; what: in a message. */
static int check_snapshot(rbd_image_t image, const struct cg_rbd_marks *marks, uint64_t id,
                          const char *name, const char *what, struct cg_error *err)
{
    const struct cg_rbd_mark *holder = cg_rbd_marks_holder(marks, id);
    int is_protected = 0;

    if (holder)
        return held(holder, what, err);
    int r = rbd_snap_is_protected(image, name, &is_protected);
    if (r < 0)
        return cg_rbd_failed(r, err, "look at %s", what);
    return is_protected && !cg_rbd_marks_protected(marks, id) ? protected(image, name, what, err)
                                                              : 0;
}

static int remove_checked(rbd_image_t image, uint64_t id, const char *name, const char *what,
                          struct cg_error *err)
{
    int r = cg_rbd_tidy(image, id, err);

    if (r < 0)
        return r;
    if (r == 0)
        r = rbd_snap_remove(image, name);
    if (r == 1 || r == -EBUSY)
        return protected(image, name, what, err);
    return r < 0 && r != -ENOENT ? cg_rbd_failed(r, err, "delete %s", what) : 0;
}

static int remove_snapshot(struct cg_rbd *rbd, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    CG_CLEANUP(cg_rbd_marks_clear) struct cg_rbd_marks marks = { 0 };
    char text[CG_NAME_MAX];
    uint64_t id;

    cg_name_text(name, true, text);
    int r = cg_rbd_open_head_of(rbd, name, &im, &id, err);
    if (r < 0)
        return r;
    rbd_image_t image = cg_rbd_image_handle(im);
    r = cg_rbd_marks_read(image, &marks, err);
    if (r == 0)
        r = check_snapshot(image, &marks, id, name->snapshot, text, err);
    return r < 0 ? r : remove_checked(image, id, name->snapshot, text, err);
}

/* An image that is to go. */
struct removal {
    const struct cg_rbd_place *place;
    struct cg_rbd_snaps snaps;
    struct cg_rbd_marks marks;
    struct cg_rbd_parent parent;
};

static void clear(struct removal *rm)
{
    cg_rbd_snaps_clear(&rm->snaps);
    cg_rbd_marks_clear(&rm->marks);
}

static int check_writers(rbd_image_t image, const char *text, struct cg_error *err)
{
    char who[CG_RBD_USERS_TEXT];
    size_t count;

    int r = cg_rbd_writers(image, &count, who, err);
    if (r == 0 && count > 0)
        return cg_error_say(err, EBUSY,
                            "%s is open elsewhere for writing, by %s (one that died is forgotten "
                            "after half a minute)",
                            text, who);
    return r;
}

/* Nothing is done unless all of it can be. */
static int check_snapshots(rbd_image_t image, const struct removal *rm, unsigned flags,
                           struct cg_error *err)
{
    char children[CG_RBD_USERS_TEXT], what[CG_NAME_MAX + CG_RBD_SNAP_MAX];
    size_t count;
    int people = 0;

    int r = cg_rbd_children(image, &count, children, err);
    if (r == 0 && count > 0)
        return needed(rm->place->text, children, err);
    for (int i = 0; r == 0 && i < rm->snaps.count; i++) {
        const rbd_snap_info_t *s = &rm->snaps.v[i];
        snprintf(what, sizeof what, "%s@%s", rm->place->text, s->name);
        r = check_snapshot(image, &rm->marks, s->id, s->name, what, err);
        people += !cg_name_own_snapshot(s->name);
    }
    if (r == 0 && people > 0 && !(flags & CG_REMOVE_SNAPSHOTS))
        return cg_error_say(err, ENOTEMPTY, "%s has %d snapshot%s", rm->place->text, people,
                            people == 1 ? "" : "s");
    return r;
}

static int remove_snapshots(struct cg_rbd *rbd, const struct cg_name *name,
                            const struct removal *rm, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    char what[CG_NAME_MAX + CG_RBD_SNAP_MAX];

    if (rm->snaps.count == 0)
        return 0;
    int r = cg_rbd_open_once(rbd, name, true, &im, err);
    for (int i = 0; r == 0 && i < rm->snaps.count; i++) {
        const rbd_snap_info_t *s = &rm->snaps.v[i];
        snprintf(what, sizeof what, "%s@%s", rm->place->text, s->name);
        r = remove_checked(cg_rbd_image_handle(im), s->id, s->name, what, err);
    }
    return r;
}

static int look(struct cg_rbd *rbd, const struct cg_name *name, unsigned flags, struct removal *rm,
                struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;

    int r = cg_rbd_open_once(rbd, name, false, &im, err);
    if (r < 0)
        return r;
    rbd_image_t image = cg_rbd_image_handle(im);
    r = check_writers(image, rm->place->text, err);
    if (r == 0)
        r = cg_rbd_snaps_read(image, &rm->snaps, err);
    if (r == 0)
        r = cg_rbd_marks_read(image, &rm->marks, err);
    if (r == 0)
        r = cg_rbd_parent(rbd, image, CG_RBD_CHANGE, &rm->parent, err);
    return r < 0 ? r : check_snapshots(image, rm, flags, err);
}

static int remove_image(const struct cg_rbd_place *p, struct cg_error *err)
{
    int r = rbd_remove(p->io, p->image);

    switch (-r) {
    case ENOENT:
        return cg_error_say(err, ENOENT, "there is no %s", p->text);
    case ENOTEMPTY:
        return cg_error_say(err, EBUSY, "%s has snapshots that others still need", p->text);
    case EBUSY:
        return cg_error_say(err, EBUSY, "%s is open elsewhere", p->text);
    default:
        return r < 0 ? cg_rbd_failed(r, err, "delete %s", p->text) : 0;
    }
}

int cg_rbd_remove(void *self, const struct cg_name *name, unsigned flags, struct cg_error *err)
{
    struct cg_rbd_place p;
    CG_CLEANUP(clear) struct removal rm = { .place = &p };

    if (name->snapshot[0])
        return remove_snapshot(self, name, err);
    int r = cg_rbd_place(self, name, &p, err);
    if (r == 0)
        r = look(self, name, flags, &rm, err);
    if (r == 0)
        r = remove_snapshots(self, name, &rm, err);
    if (r == 0)
        r = remove_image(&p, err);
    if (r == 0)
        cg_rbd_parent_left(&rm.parent);
    return r;
}
