#include "config.h"

#include <errno.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"

static int snapshot_one(struct cg_rbd *rbd, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    int r = cg_rbd_open_head(rbd, name, &im, err);
    if (r < 0)
        return r;
    r = rbd_snap_create(cg_rbd_image_handle(im), name->snapshot);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", text);
    return r < 0 ? cg_rbd_failed(r, err, "create snapshot %s", text) : 0;
}

int cg_rbd_snapshot(void *self, const struct cg_name *names, size_t count, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    for (size_t i = 0; i < count; i++) {
        if (!names[i].snapshot[0])
            return cg_error_say(err, EINVAL, "snapshot %s: it is an image, write IMAGE@SNAPSHOT",
                                cg_name_text(&names[i], true, text));
    }
    return count == 1 ? snapshot_one(self, names, err)
                      : cg_rbd_snapshot_moment(self, names, count, err);
}
