#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/holds.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"

#define PATH (3 * (CG_PART_MAX + 1) + 32)
#define SMALL_FILE 65536

static struct cg_store *store_of(struct cg_project *project)
{
    return cg_repository_store(cg_project_repository(project));
}

static void free_json(json_t **doc)
{
    json_decref(*doc);
}

/* A hold's file: {"format": 1, "uuid": …, "point": "VOLUME/POINT"}. */
static int read_hold(struct cg_project *project, const char *uuid, char ret_point[static PATH],
                     struct cg_error *err)
{
    char path[PATH];
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;
    const char *point;

    snprintf(path, sizeof path, "%s/holds/%s", cg_project_name(project), uuid);
    int r = cg_store_read(store_of(project), path, SMALL_FILE, &text, &len, err);
    if (r < 0)
        return r;
    __attribute__((cleanup(free_json))) json_t *doc =
        json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (json_unpack(doc, "{s:s}", "point", &point) < 0 || strlen(point) >= PATH)
        return cg_error_say(err, EIO, "%s isn't a hold", path);
    strcpy(ret_point, point);
    return 0;
}

static int check_uuid(const char *uuid, struct cg_error *err)
{
    if (strlen(uuid) != CG_UUID_LEN || !cg_uuid_valid(uuid))
        return cg_error_say(err, EINVAL, "'%.64s' isn't a uuid", uuid);
    return 0;
}

static int write_hold(struct cg_project *project, const char *wanted, const char *uuid,
                      struct cg_error *err)
{
    char path[PATH], held[PATH];
    __attribute__((cleanup(free_json))) json_t *doc =
        json_pack("{s:i, s:s, s:s}", "format", 1, "uuid", uuid, "point", wanted);
    CG_CLEANUP(cg_free) char *text = doc ? json_dumps(doc, 0) : NULL;

    if (!text)
        return cg_error_set(err, ENOMEM, "hold %s", wanted);
    snprintf(path, sizeof path, "%s/holds/%s", cg_project_name(project), uuid);
    int r = store_of(project)->ops->create(store_of(project), path, text, strlen(text), err);
    if (r != -EEXIST)
        return r;
    r = read_hold(project, uuid, held, err);
    if (r < 0)
        return r;
    if (strcmp(held, wanted) != 0)
        return cg_error_say(err, EEXIST, "%s holds backups/%s/%s already", uuid,
                            cg_project_name(project), held);
    return 0;
}

int cg_point_hold(struct cg_project *project, const char *volume, const char *name,
                  const char *uuid, struct cg_error *err)
{
    char wanted[PATH];
    struct cg_point *head;

    int r = check_uuid(uuid, err);
    if (r < 0)
        return r;
    snprintf(wanted, sizeof wanted, "%s/%s", volume, name);
    r = write_hold(project, wanted, uuid, err);
    if (r < 0)
        return r;
    /* Only a point that is there after the hold is durable is kept by it. */
    r = cg_project_head(project, volume, name, &head, err);
    if (r == 0)
        cg_point_free(head);
    else if (r == -ENOENT)
        cg_point_release(project, volume, name, uuid, NULL);
    return r;
}

int cg_point_release(struct cg_project *project, const char *volume, const char *name,
                     const char *uuid, struct cg_error *err)
{
    char path[PATH], held[PATH], wanted[PATH];

    int r = check_uuid(uuid, err);
    if (r < 0)
        return r;
    r = read_hold(project, uuid, held, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    snprintf(wanted, sizeof wanted, "%s/%s", volume, name);
    if (strcmp(held, wanted) != 0)
        return 0;
    snprintf(path, sizeof path, "%s/holds/%s", cg_project_name(project), uuid);
    return store_of(project)->ops->remove(store_of(project), path, err);
}

struct held {
    struct cg_project *project;
    const char *wanted;
};

static int refuse_held(void *opaque, const char *uuid, struct cg_error *err)
{
    struct held *h = opaque;
    char held[PATH];

    if (!cg_uuid_valid(uuid))
        return 0;
    int r = read_hold(h->project, uuid, held, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
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

int cg_point_trash(struct cg_project *project, const char *volume, const char *name,
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
    return store_of(project)->ops->remove(store_of(project), from, err);
}
