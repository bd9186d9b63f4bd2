#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/rbd/rbd_image.h"

struct locking {
    struct cg_rbd_doing doing;
    uint64_t own;     /* this client's number */
    char holder[128]; /* the address of another that has the image open for writing */
};

/* Whoever has an image open for writing watches it. */
static int find_other(struct locking *l, rbd_image_t image)
{
    rbd_image_watcher_t *watchers = NULL;
    size_t count = 16;
    int r;

    do {
        free(watchers);
        watchers = calloc(count, sizeof *watchers);
        if (!watchers)
            return -ENOMEM;
        r = rbd_watchers_list(image, watchers, &count);
    } while (r == -ERANGE);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if ((uint64_t)watchers[i].id != l->own)
            strncpy(l->holder, watchers[i].addr, sizeof l->holder - 1);
    }
    if (r == 0)
        rbd_watchers_list_cleanup(watchers, count);
    free(watchers);
    return r;
}

static int lock_run(void *arg, rbd_image_t image)
{
    struct locking *l = arg;

    int r = find_other(l, image);
    if (r < 0 || l->holder[0])
        return r < 0 ? r : -EBUSY;
    r = rbd_lock_acquire(image, RBD_LOCK_MODE_EXCLUSIVE);
    return r == -EINVAL ? 0 : r; /* an image without the feature has no lock */
}

int cg_rbd_image_lock(struct cg_rbd_image *im, struct cg_error *err)
{
    struct locking *l = calloc(1, sizeof *l);
    int r;

    if (!l)
        return cg_rbd_image_failed(im, -ENOMEM, "lock", err);
    l->doing = (struct cg_rbd_doing){ .run = lock_run, .free = free };
    l->own = cg_rbd_image_client(im);
    if (!cg_rbd_image_limited(im, &l->doing, &r))
        return cg_rbd_image_failed(im, -ETIMEDOUT, "lock", err);
    if (r == -EBUSY && l->holder[0])
        r = cg_error_say(err, EBUSY,
                         "%s is open elsewhere for writing, by the client at %s (one that died is "
                         "forgotten after half a minute)",
                         cg_rbd_image_text(im), l->holder);
    else if (r == -EBUSY || r == -EROFS)
        r = cg_error_say(err, EBUSY, "%s is being written by another client",
                         cg_rbd_image_text(im));
    else if (r < 0)
        r = cg_rbd_image_failed(im, r, "lock", err);
    free(l);
    return r;
}
