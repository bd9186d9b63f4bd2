#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/hold_file.h"
#include "core/backups/holds.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"

#define PATH (3 * (CG_PART_MAX + 1) + 32)
#define SMALL_FILE 65536

static struct cg_store *store_of(struct cg_project *project)
{
    return cg_repository_store(cg_project_repository(project));
}

static int read_hold(struct cg_project *project, const char *uuid,
                     char ret_point[static CG_HOLD_POINT], struct cg_error *err)
{
    char path[PATH];
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;

    snprintf(path, sizeof path, "%s/holds/%s", cg_project_name(project), uuid);
    int r = cg_store_read(store_of(project), path, SMALL_FILE, &text, &len, err);
    if (r < 0)
        return r;
    r = cg_hold_file_decode(uuid, text, len, ret_point, err);
    return r < 0 ? cg_error_prefix(err, r, "%s", path) : 0;
}

int cg_point_lock_names(struct cg_project *project, const char *volume, struct cg_error *err)
{
    char path[PATH];

    /* No volume's name begins with a dot: it's not the lock of a running backup. */
    snprintf(path, sizeof path, "%s/locks/.%s", cg_project_name(project), volume);
    return store_of(project)->ops->lock(store_of(project), path, err);
}

int cg_point_in_trash(struct cg_project *project, const char *volume, const char *name,
                      struct cg_error *err)
{
    char path[PATH], byte;
    size_t len;

    snprintf(path, sizeof path, "%s/trash/%s/%s", cg_project_name(project), volume, name);
    int r = store_of(project)->ops->get(store_of(project), path, &byte, 1, &len, NULL, err);
    return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

static int check_uuid(const char *uuid, struct cg_error *err)
{
    if (!cg_uuid_valid(uuid))
        return cg_error_say(err, EINVAL, "'%.64s' isn't a uuid", uuid);
    return 0;
}

static int remove_hold(struct cg_project *project, const char *uuid, struct cg_error *err)
{
    char path[PATH];

    snprintf(path, sizeof path, "%s/holds/%s", cg_project_name(project), uuid);
    return store_of(project)->ops->remove(store_of(project), path, err);
}

/* 1 if it's written, 0 if it was there. */
static int write_hold(struct cg_project *project, const char *wanted, const char *uuid,
                      struct cg_error *err)
{
    char path[PATH], held[CG_HOLD_POINT];
    CG_CLEANUP(cg_free) char *text = cg_hold_file_encode(uuid, wanted);

    if (!text)
        return cg_error_set(err, ENOMEM, "hold %s", wanted);
    snprintf(path, sizeof path, "%s/holds/%s", cg_project_name(project), uuid);
    int r = store_of(project)->ops->create(store_of(project), path, text, strlen(text), err);
    if (r != -EEXIST)
        return r < 0 ? r : 1;
    r = read_hold(project, uuid, held, err);
    if (r < 0)
        return r;
    if (strcmp(held, wanted) != 0)
        return cg_error_say(err, EEXIST, "%s holds backups/%s/%s already", uuid,
                            cg_project_name(project), held);
    return 0;
}

/* Whether the point is there and nobody is removing it. */
static int check_live(struct cg_project *project, const char *volume, const char *name,
                      struct cg_error *err)
{
    struct cg_point *head;

    /* The trash first: it's emptied only of points that are gone, and then the second look says
     * so. */
    int r = cg_point_in_trash(project, volume, name, err);
    if (r < 0)
        return r;
    bool trash = r == 1;
    r = cg_project_head(project, volume, name, &head, err);
    if (r < 0)
        return r;
    cg_point_free(head);
    if (trash)
        return cg_error_say(err, EBUSY, "backups/%s/%s/%s is being deleted",
                            cg_project_name(project), volume, name);
    return 0;
}

int cg_point_hold(struct cg_project *project, const char *volume, const char *name,
                  const char *uuid, struct cg_error *err)
{
    char wanted[CG_HOLD_POINT];

    int r = check_uuid(uuid, err);
    if (r < 0)
        return r;
    snprintf(wanted, sizeof wanted, "%s/%s", volume, name);
    int written = write_hold(project, wanted, uuid, err);
    if (written < 0)
        return written;
    /* Only a point that is there, and not in the trash, after the hold is durable is kept by it:
     * who removes one looks at the holds again when its trash is durable, so that one of the two
     * always sees the other. */
    r = check_live(project, volume, name, err);
    if (r == -ENOENT || (r < 0 && written))
        remove_hold(project, uuid, NULL);
    return r;
}

int cg_point_release(struct cg_project *project, const char *volume, const char *name,
                     const char *uuid, struct cg_error *err)
{
    char held[CG_HOLD_POINT], wanted[CG_HOLD_POINT];

    int r = check_uuid(uuid, err);
    if (r < 0)
        return r;
    r = read_hold(project, uuid, held, err);
    if (r == -ENOENT)
        return 0;
    if (r < 0 && r != -EIO && r != -EFBIG)
        return r;
    snprintf(wanted, sizeof wanted, "%s/%s", volume, name);
    if (r == 0 && strcmp(held, wanted) != 0)
        return 0;
    return remove_hold(project, uuid, err);
}

struct held {
    struct cg_project *project;
    const char *wanted;
};

static int refuse_held(void *opaque, const char *uuid, struct cg_error *err)
{
    struct held *h = opaque;
    char held[CG_HOLD_POINT];
    struct cg_error why;

    if (!cg_uuid_valid(uuid))
        return 0;
    int r = read_hold(h->project, uuid, held, &why);
    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return cg_error_say(err, -r,
                            "%s: it may hold backups/%s/%s; it goes when the clone with that uuid"
                            " is flattened or deleted",
                            why.message, cg_project_name(h->project), h->wanted);
    if (strcmp(held, h->wanted) != 0)
        return 0;
    return cg_error_say(err, EBUSY, "backups/%s/%s is held by %s, which stands on it",
                        cg_project_name(h->project), h->wanted, uuid);
}

static int check_holds(struct cg_project *project, const char *wanted, struct cg_error *err)
{
    struct held h = { project, wanted };
    char path[PATH];

    snprintf(path, sizeof path, "%s/holds", cg_project_name(project));
    int r = store_of(project)->ops->list(store_of(project), path, refuse_held, &h, err);
    return r == -ENOENT ? 0 : r;
}

/* Copies the point's file into the trash.  One that is there with the same bytes was left by an
 * interrupted removal. */
static int copy_to_trash(struct cg_project *project, const char *from, const char *to,
                         struct cg_error *err)
{
    struct cg_store *store = store_of(project);
    CG_CLEANUP(cg_free) char *text = NULL;
    CG_CLEANUP(cg_free) char *old = NULL;
    size_t len, old_len;

    int r = cg_store_read(store, from, CG_POINT_BYTES_MAX, &text, &len, err);
    if (r < 0)
        return r;
    r = store->ops->create(store, to, text, len, err);
    if (r != -EEXIST)
        return r;
    r = cg_store_read(store, to, CG_POINT_BYTES_MAX, &old, &old_len, err);
    if (r < 0)
        return r;
    if (len != old_len || memcmp(text, old, len) != 0)
        return cg_error_say(err, EEXIST, "%s holds another point of that name", to);
    return 0;
}

static int trash_locked(struct cg_project *project, const char *volume, const char *name,
                        struct cg_error *err)
{
    char from[2 * PATH], to[2 * PATH], wanted[PATH];

    snprintf(wanted, sizeof wanted, "%s/%s", volume, name);
    snprintf(from, sizeof from, "%s/points/%s", cg_project_name(project), wanted);
    snprintf(to, sizeof to, "%s/trash/%s", cg_project_name(project), wanted);
    int r = check_holds(project, wanted, err);
    if (r < 0)
        return r;
    r = copy_to_trash(project, from, to, err);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no backups/%s/%s", cg_project_name(project),
                            wanted);
    if (r < 0)
        return r;
    /* Someone who looked at the trash before it had the point has a durable hold by now. */
    r = check_holds(project, wanted, err);
    if (r < 0) {
        store_of(project)->ops->remove(store_of(project), to, NULL);
        return r;
    }
    return store_of(project)->ops->remove(store_of(project), from, err);
}

int cg_point_trash(struct cg_project *project, const char *volume, const char *name,
                   struct cg_error *err)
{
    int lock = cg_point_lock_names(project, volume, err);

    if (lock < 0)
        return lock;
    int r = trash_locked(project, volume, name, err);
    store_of(project)->ops->unlock(store_of(project), lock);
    return r;
}
