#include "config.h"

#include <errno.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"

static void close_image(struct cg_rbd_image **im)
{
    cg_rbd_image_close(*im);
}

int cg_rbd_create(void *self, const struct cg_name *name, uint64_t size, uint64_t original_size,
                  struct cg_error *err)
{
    struct cg_rbd_place p;
    rbd_image_options_t options;

    (void)original_size; /* an image of Ceph knows one size */
    int r = cg_rbd_place(self, name, &p, err);
    if (r < 0)
        return r;
    rbd_image_options_create(&options);
    r = rbd_create4(p.io, p.image, size, options);
    rbd_image_options_destroy(options);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", p.text);
    return r < 0 ? cg_rbd_failed(r, err, "create %s", p.text) : 0;
}

int cg_rbd_snapshot(void *self, const struct cg_name *names, size_t count, struct cg_error *err)
{
    CG_CLEANUP(close_image) struct cg_rbd_image *im = NULL;
    struct cg_name head = names[0];
    char text[CG_NAME_MAX];

    if (count != 1)
        return cg_error_say(err, ENOTSUP, "several RBD images at one moment: not possible yet");
    cg_name_text(names, true, text);
    head.snapshot[0] = '\0';
    int r = cg_rbd_open_once(self, &head, true, &im, err);
    if (r < 0)
        return r;
    r = rbd_snap_create(cg_rbd_image_handle(im), names->snapshot);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", text);
    return r < 0 ? cg_rbd_failed(r, err, "create snapshot %s", text) : 0;
}

int cg_rbd_resize(void *self, const struct cg_name *name, uint64_t size, struct cg_error *err)
{
    CG_CLEANUP(close_image) struct cg_rbd_image *im = NULL;
    char text[CG_NAME_MAX];
    uint64_t now;

    cg_name_text(name, true, text);
    int r = cg_rbd_open_once(self, name, true, &im, err);
    if (r < 0)
        return r;
    r = rbd_get_size(cg_rbd_image_handle(im), &now);
    if (r == 0 && size < now)
        return cg_error_say(err, EINVAL, "%s can only grow", text);
    if (r == 0)
        r = rbd_resize2(cg_rbd_image_handle(im), size, false, NULL, NULL);
    return r < 0 ? cg_rbd_failed(r, err, "resize %s", text) : 0;
}

int cg_rbd_rename(void *self, const struct cg_name *from, const struct cg_name *to,
                  struct cg_error *err)
{
    struct cg_rbd_place f, t;

    int r = cg_rbd_place(self, from, &f, err);
    if (r == 0)
        r = cg_rbd_place(self, to, &t, err);
    if (r < 0)
        return r;
    if (f.io != t.io)
        return cg_error_say(err, EXDEV, "%s and %s are in different pools or namespaces", f.text,
                            t.text);
    r = rbd_rename(f.io, f.image, t.image);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", t.text);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", f.text);
    return r < 0 ? cg_rbd_failed(r, err, "rename %s", f.text) : 0;
}

static int remove_snapshot(struct cg_rbd *rbd, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(close_image) struct cg_rbd_image *im = NULL;
    struct cg_name head = *name;
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    head.snapshot[0] = '\0';
    int r = cg_rbd_open_once(rbd, &head, true, &im, err);
    if (r < 0)
        return r;
    r = rbd_snap_remove(cg_rbd_image_handle(im), name->snapshot);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", text);
    if (r == -EBUSY)
        return cg_error_say(err, EBUSY, "%s is protected: something was cloned from it", text);
    return r < 0 ? cg_rbd_failed(r, err, "delete %s", text) : 0;
}

int cg_rbd_remove(void *self, const struct cg_name *name, unsigned flags, struct cg_error *err)
{
    struct cg_rbd_place p;

    (void)flags;
    if (name->snapshot[0])
        return remove_snapshot(self, name, err);
    int r = cg_rbd_place(self, name, &p, err);
    if (r < 0)
        return r;
    r = rbd_remove(p.io, p.image);
    switch (-r) {
    case ENOENT:
        return cg_error_say(err, ENOENT, "there is no %s", p.text);
    case ENOTEMPTY:
        return cg_error_say(err, ENOTEMPTY, "%s has snapshots", p.text);
    case EBUSY:
        return cg_error_say(err, EBUSY, "%s is open elsewhere", p.text);
    default:
        return r < 0 ? cg_rbd_failed(r, err, "delete %s", p.text) : 0;
    }
}
