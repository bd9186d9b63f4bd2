#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/parent.h"

#define NOWHERE UINT64_MAX

#define QUIET 2     /* ms without a client's read after which they make a pause */
#define PATIENCE 50 /* ms that one gives way for at most */

struct cg_parent {
    atomic_uint refs;
    atomic_uint reading;     /* clients' reads under way */
    atomic_uint reads;       /* those that have ended */
    _Atomic uint64_t recent; /* where one began; NOWHERE if that was asked for */
    unsigned way_given;      /* reads, when way was given last; of the one who fills */
    struct cg_image *image;
    int lock_fd;          /* -1 for none */
    struct cg_parent *of; /* whose lock it is kept by, if that isn't NULL */
};

int cg_parent_lock(int dirfd, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = openat(dirfd, "parent", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EROFS) { /* nobody flattens it either */
        *ret_fd = -1;
        return 0;
    }
    if (fd < 0)
        return cg_error_set(err, errno, "open the lock of its parent");
    while (flock(fd, LOCK_SH) < 0)
        if (errno != EINTR)
            return cg_error_set(err, errno, "lock its parent");
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int check_size(struct cg_image *image, const struct cg_volume_json *json,
                      struct cg_error *err)
{
    uint64_t size = cg_image_size(image);

    if (size == json->parent_size)
        return 0;
    return cg_error_say(err, ESTALE, "it has %llu bytes, and had %llu when it was cloned",
                        (unsigned long long)size, (unsigned long long)json->parent_size);
}

static struct cg_parent *new_parent(struct cg_image *image, int lock_fd, struct cg_parent *of)
{
    struct cg_parent *parent = malloc(sizeof *parent);

    if (!parent)
        return NULL;
    atomic_init(&parent->refs, 1);
    atomic_init(&parent->reading, 0);
    atomic_init(&parent->reads, 0);
    atomic_init(&parent->recent, NOWHERE);
    parent->way_given = 0;
    parent->image = image;
    parent->lock_fd = lock_fd;
    parent->of = of;
    return parent;
}

int cg_parent_open(struct cg_volumes *space, const struct cg_volume_json *json, int lock_fd,
                   struct cg_parent **ret_parent, struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_parent *parent = NULL;
    int r = space->parents.open(space->parents.opaque, json->parent, json->parent_identity, &image,
                                err);

    if (r == 0)
        r = check_size(image, json, err);
    if (r == 0 && !(parent = new_parent(image, lock_fd, NULL)))
        r = cg_error_set(err, ENOMEM, "open an image");
    if (r < 0)
        return cg_error_prefix(err, r, "open its parent %s", json->parent);
    image = NULL;
    *ret_parent = parent;
    return 0;
}

struct cg_parent *cg_parent_aside(struct cg_parent *parent)
{
    struct cg_parent *aside = new_parent(parent->image, -1, parent);

    if (aside) {
        cg_image_ref(parent->image);
        cg_parent_ref(parent);
    }
    return aside;
}

struct cg_parent *cg_parent_ref(struct cg_parent *parent)
{
    atomic_fetch_add(&parent->refs, 1);
    return parent;
}

void cg_parent_unref(struct cg_parent *parent)
{
    if (!parent || atomic_fetch_sub(&parent->refs, 1) != 1)
        return;
    cg_image_unref(parent->image);
    cg_close(&parent->lock_fd);
    cg_parent_unref(parent->of);
    free(parent);
}

struct cg_image *cg_parent_image(struct cg_parent *parent)
{
    return parent->image;
}

int cg_parent_read(struct cg_parent *parent, void *buf, size_t len, uint64_t off,
                   struct cg_error *err)
{
    atomic_fetch_add(&parent->reading, 1);
    int r = cg_image_pread(parent->image, buf, len, off, err);
    atomic_store(&parent->recent, off);
    atomic_fetch_add(&parent->reads, 1);
    atomic_fetch_sub(&parent->reading, 1);
    return r;
}

/* Looked at from here, so that reading costs clients nothing. */
bool cg_parent_give_way(struct cg_parent *parent)
{
    const struct timespec ms = { .tv_nsec = 1000000 };
    unsigned quiet = 0, seen = atomic_load(&parent->reads);

    if (!atomic_load(&parent->reading) && seen == parent->way_given)
        return true;
    for (unsigned i = 0; i < PATIENCE && quiet < QUIET; i++) {
        nanosleep(&ms, NULL);
        unsigned reads = atomic_load(&parent->reads);
        quiet = atomic_load(&parent->reading) || reads != seen ? 0 : quiet + 1;
        seen = reads;
    }
    parent->way_given = seen;
    return false;
}

bool cg_parent_recent(struct cg_parent *parent, uint64_t *ret_off)
{
    uint64_t off = atomic_exchange(&parent->recent, NOWHERE);

    if (off == NOWHERE)
        return false;
    *ret_off = off;
    return true;
}

bool cg_parent_unused(int dirfd)
{
    CG_CLEANUP(cg_close) int fd = openat(dirfd, "parent", O_RDONLY | O_CLOEXEC);

    return fd < 0 ? errno == ENOENT : flock(fd, LOCK_EX | LOCK_NB) == 0;
}

int cg_parent_release(struct cg_volumes *space, const struct cg_volume_json *json,
                      struct cg_error *err)
{
    if (!*json->release)
        return 0;
    int r = space->parents.release(space->parents.opaque, json->release, json->release_identity,
                                   json->release_uuid, err);
    return r < 0 ? cg_error_prefix(err, r, "release %s", json->release) : 0;
}
