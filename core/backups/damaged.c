#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/backups/repository.h"
#include "core/base/bytes.h"

/* PROJECT/damaged/KIND-ID-ERA: an empty file for each object that verify found damaged;
 * PROJECT/damaged/diff-SESSION: one for each point, by its session, whose source an audit found
 * different from what the diff since it said. */

#define PATH (CG_PART_MAX + 128)

static void damaged_path(struct cg_project *p, enum cg_object_kind kind, const struct cg_ref *ref,
                         char ret[static PATH])
{
    char id[2 * CG_OBJECT_ID + 1];

    cg_hex(id, ref->id, sizeof ref->id);
    snprintf(ret, PATH, "%s/damaged/%s-%s-%08x", cg_project_name(p), cg_object_kind_text(kind), id,
             ref->era);
}

struct collect {
    const char *kind;
    struct cg_refs *refs;
};

/* KIND-ID-ERA */
static bool decode_name(const char *name, const char *kind, struct cg_ref *ret)
{
    char id[2 * CG_OBJECT_ID + 1];
    size_t n = strlen(kind);

    if (strncmp(name, kind, n) != 0 || strlen(name) != n + 1 + 2 * CG_OBJECT_ID + 1 + 8 ||
        name[n] != '-' || name[n + 1 + 2 * CG_OBJECT_ID] != '-')
        return false;
    memcpy(id, name + n + 1, 2 * CG_OBJECT_ID);
    id[2 * CG_OBJECT_ID] = '\0';
    return cg_unhex(ret->id, sizeof ret->id, id) &&
           cg_object_era(name + n + 2 + 2 * CG_OBJECT_ID, &ret->era);
}

static int collect(void *opaque, const char *name, struct cg_error *err)
{
    struct collect *c = opaque;
    struct cg_ref ref = { .len = 1 };

    if (!decode_name(name, c->kind, &ref))
        return 0;
    int r = cg_refs_add(c->refs, &ref, err);
    return r < 0 ? r : 0;
}

int cg_project_damaged(struct cg_project *p, enum cg_object_kind kind, struct cg_refs **ret_refs,
                       struct cg_error *err)
{
    struct cg_store *store = cg_repository_store(cg_project_repository(p));
    struct collect c = { cg_object_kind_text(kind), cg_refs_new(true) };
    char path[CG_PART_MAX + 16];

    if (!c.refs)
        return cg_error_set(err, ENOMEM, "list what is damaged");
    snprintf(path, sizeof path, "%s/damaged", cg_project_name(p));
    int r = store->ops->list(store, path, collect, &c, err);
    if (r < 0 && r != -ENOENT) {
        cg_refs_free(c.refs);
        return r;
    }
    *ret_refs = c.refs;
    return 0;
}

int cg_project_record(struct cg_project *p, enum cg_object_kind kind, const struct cg_ref *ref,
                      struct cg_error *err)
{
    struct cg_store *store = cg_repository_store(cg_project_repository(p));
    char path[PATH];

    damaged_path(p, kind, ref, path);
    int r = store->ops->create(store, path, "", 0, err);
    return r == -EEXIST ? 0 : r;
}

int cg_project_strike(struct cg_project *p, enum cg_object_kind kind, const struct cg_ref *ref,
                      struct cg_error *err)
{
    struct cg_store *store = cg_repository_store(cg_project_repository(p));
    char path[PATH];

    damaged_path(p, kind, ref, path);
    return store->ops->remove(store, path, err);
}

static struct cg_store *distrust_path(struct cg_project *p, const struct cg_point *point,
                                      char ret[static PATH])
{
    snprintf(ret, PATH, "%s/damaged/diff-%s", cg_project_name(p), point->session);
    return cg_repository_store(cg_project_repository(p));
}

int cg_project_distrust(struct cg_project *p, const struct cg_point *point, struct cg_error *err)
{
    char path[PATH];
    struct cg_store *store = distrust_path(p, point, path);
    int r = store->ops->create(store, path, "", 0, err);

    return r == -EEXIST ? 0 : r;
}

int cg_project_forget_distrust(struct cg_project *p, const struct cg_point *point,
                               struct cg_error *err)
{
    char path[PATH];
    struct cg_store *store = distrust_path(p, point, path);

    return store->ops->remove(store, path, err);
}

int cg_project_distrusted(struct cg_project *p, const struct cg_point *point, struct cg_error *err)
{
    char path[PATH];
    struct cg_store *store = distrust_path(p, point, path);
    size_t len;
    int r = store->ops->get(store, path, NULL, 0, &len, NULL, err);

    return r == -ENOENT ? 0 : r < 0 ? r : 1;
}
