/* The names in a repository's directories: the input is a name a line, which every directory has.
 */
#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/repository.h"
#include "core/backups/repository_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct names_store {
    struct cg_store store;
    const char *names;
    size_t len;
};

static int names_list(struct cg_store *store, const char *path, cg_store_list_fn *fn, void *opaque,
                      struct cg_error *err)
{
    struct names_store *s = (struct names_store *)store;
    const char *p = s->names, *end = p + s->len;
    char name[256];
    int r = 0;

    (void)path;
    while (r == 0 && p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p);
        /* As a file system has them. */
        if (n > 0 && n < sizeof name && !memchr(p, '/', n) && !memchr(p, '\0', n)) {
            memcpy(name, p, n);
            name[n] = '\0';
            r = fn(opaque, name, err);
        }
        p += n + 1;
    }
    return r;
}

static int names_get(struct cg_store *store, const char *path, void *buf, size_t size,
                     size_t *ret_len, uint64_t *ret_total, struct cg_error *err)
{
    static const char keys[] =
        "{\"format\": 1, \"project\": \"acme\", \"keys\": [{\"generation\": 1, \"wrap\": \"none\", "
        "\"key\": \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\", "
        "\"check\": \"7e31e2f39029adc1e4b906d060369a13b62487314e75554a303fe7792bee2e20\"}]}";
    char top[CG_REPOSITORY_JSON_BYTES];
    const char *text = keys;

    (void)store;
    cg_repository_json_encode("00112233-4455-4677-8899-aabbccddeeff", top);
    if (strcmp(path, CG_REPOSITORY_JSON) == 0)
        text = top;
    else if (strcmp(path, "acme/project.json") != 0)
        return cg_error_set(err, ENOENT, "%s", path);
    *ret_len = strlen(text) < size ? strlen(text) : size;
    memcpy(buf, text, *ret_len);
    if (ret_total)
        *ret_total = strlen(text);
    return 0;
}

static void names_close(struct cg_store *store)
{
    (void)store;
}

static const struct cg_store_ops ops = {
    .name = "names",
    .get = names_get,
    .list = names_list,
    .close = names_close,
};

static int check_part(void *opaque, const char *name, struct cg_error *err)
{
    (void)opaque, (void)err;
    if (!cg_name_part_valid(name))
        abort();
    return 0;
}

static int check_point(void *opaque, const char *name, struct cg_error *err)
{
    (void)opaque, (void)err;
    if (!cg_name_point_valid(name))
        abort();
    return 0;
}

static void look(struct cg_project *project, enum cg_object_kind kind)
{
    char path[CG_OBJECT_PATH];
    struct cg_refs *refs;
    struct cg_error err;

    if (cg_project_damaged(project, kind, &refs, &err) < 0)
        abort();
    for (size_t i = 0; i < cg_refs_count(refs); i++)
        cg_object_path("acme", kind, cg_refs_at(refs, i), path);
    cg_refs_free(refs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct names_store store = { { &ops }, (const char *)data, size };
    struct cg_repository *repo;
    struct cg_project *project;
    struct cg_point *latest;
    struct cg_error err;

    if (cg_repository_open_store(&store.store, 0, &repo, &err) < 0 ||
        cg_repository_project(repo, "acme", false, &project, &err) < 0 ||
        cg_repository_projects(repo, check_part, NULL, &err) < 0 ||
        cg_project_volumes(project, check_part, NULL, &err) < 0 ||
        cg_project_points(project, "web", check_point, NULL, &err) < 0)
        abort();
    look(project, CG_OBJECT_CHUNK);
    look(project, CG_OBJECT_PAGE);
    /* None of them can be read: they went between the listing and the look. */
    if (cg_project_latest(project, "web", &latest, &err) != -ENOENT)
        abort();
    cg_repository_close(repo);
    return 0;
}
