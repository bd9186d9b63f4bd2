#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/backups/keys.h"
#include "core/backups/project.h"
#include "core/backups/repository.h"
#include "core/backups/repository_json.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/workers.h"

/* Thread model: lock guards the list of projects (which only grows) and the spare codecs; the rest
 * doesn't change after opening.  The pool starts no thread before the first prefetch. */

#define TOP CG_REPOSITORY_JSON
#define CACHE_BYTES (UINT64_C(256) << 20)
#define SPARE_CODECS 8
#define PREFETCH_TASKS 8
#define SMALL_FILE 65536

struct cg_repository {
    struct cg_store *store; /* owned */
    char uuid[CG_UUID_LEN + 1];
    struct cg_cache *cache;
    struct cg_pool *pool;
    pthread_mutex_t lock;
    struct cg_project *projects;          /* guarded by lock */
    struct cg_codec *codec[SPARE_CODECS]; /* guarded by lock */
    unsigned codecs;                      /* guarded by lock */
};

static int is_empty(int fd)
{
    DIR *dir = fdopendir(fd);
    struct dirent *e;
    int n = 0;

    if (!dir)
        return 0;
    while ((e = readdir(dir)))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(dir);
    return n == 0;
}

int cg_repository_create(const char *path, struct cg_error *err)
{
    struct cg_store *store;
    char uuid[CG_UUID_LEN + 1], text[CG_REPOSITORY_JSON_BYTES];

    int r = cg_dir_make(AT_FDCWD, path, 0700, err);
    if (r < 0)
        return r;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open directory %s", path);
    if (faccessat(fd, TOP, F_OK, 0) == 0) {
        close(fd);
        return cg_error_say(err, EEXIST, "%s is a repository already", path);
    }
    if (!is_empty(fd))
        return cg_error_say(err, ENOTEMPTY, "%s is neither empty nor a repository", path);
    r = cg_store_dir_open(path, &store, err);
    if (r < 0)
        return r;
    cg_uuid(uuid);
    cg_repository_json_encode(uuid, text);
    r = store->ops->create(store, TOP, text, strlen(text), err);
    store->ops->close(store);
    return r < 0 ? cg_error_prefix(err, r, "create repository %s", path) : 0;
}

/* Reads repository.json. */
static int read_top(struct cg_repository *repo, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;

    int r = cg_store_read(repo->store, TOP, SMALL_FILE, &text, &len, err);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no repository (no " TOP ")");
    return r < 0 ? r : cg_repository_json_decode(text, len, repo->uuid, err);
}

int cg_repository_open_store(struct cg_store *store, uint64_t cache_bytes,
                             struct cg_repository **ret_repository, struct cg_error *err)
{
    struct cg_repository *repo = calloc(1, sizeof *repo);

    if (!repo) {
        store->ops->close(store);
        return cg_error_set(err, ENOMEM, "open a repository");
    }
    repo->store = store;
    pthread_mutex_init(&repo->lock, NULL);
    repo->cache = cg_cache_new(cache_bytes ? cache_bytes : CACHE_BYTES);
    repo->pool = cg_pool_new(cg_processors() + 1, PREFETCH_TASKS);
    int r = repo->cache && repo->pool ? read_top(repo, err)
                                      : cg_error_set(err, ENOMEM, "open a repository");
    if (r < 0) {
        cg_repository_close(repo);
        return r;
    }
    *ret_repository = repo;
    return 0;
}

int cg_repository_open(const char *path, uint64_t cache_bytes,
                       struct cg_repository **ret_repository, struct cg_error *err)
{
    struct cg_store *store;

    int r = cg_store_dir_open(path, &store, err);
    if (r < 0)
        return r;
    r = cg_repository_open_store(store, cache_bytes, ret_repository, err);
    return r < 0 ? cg_error_prefix(err, r, "open repository %s", path) : 0;
}

void cg_repository_close(struct cg_repository *repo)
{
    if (!repo)
        return;
    cg_pool_free(repo->pool); /* waits for what is being prefetched */
    while (repo->projects) {
        struct cg_project *p = repo->projects;
        repo->projects = p->next;
        cg_project_free(p);
    }
    while (repo->codecs > 0)
        cg_codec_free(repo->codec[--repo->codecs]);
    cg_cache_free(repo->cache);
    pthread_mutex_destroy(&repo->lock);
    repo->store->ops->close(repo->store);
    free(repo);
}

struct cg_store *cg_repository_store(struct cg_repository *repo)
{
    return repo->store;
}

const char *cg_repository_uuid(struct cg_repository *repo)
{
    return repo->uuid;
}

struct cg_cache *cg_repository_cache(struct cg_repository *repo)
{
    return repo->cache;
}

struct cg_codec *cg_repository_codec(struct cg_repository *repo)
{
    {
        CG_LOCK(&repo->lock);
        if (repo->codecs > 0)
            return repo->codec[--repo->codecs];
    }
    return cg_codec_new();
}

void cg_repository_codec_done(struct cg_repository *repo, struct cg_codec *codec)
{
    if (!codec)
        return;
    {
        CG_LOCK(&repo->lock);
        if (repo->codecs < SPARE_CODECS) {
            repo->codec[repo->codecs++] = codec;
            return;
        }
    }
    cg_codec_free(codec);
}

struct prefetch {
    struct cg_project *project;
    struct cg_ref ref;
};

static void prefetch(void *opaque)
{
    struct prefetch *p = opaque;
    struct cg_cached *entry;

    /* Whoever reads it gets the error. */
    if (cg_project_cached(p->project, CG_OBJECT_CHUNK, &p->ref, &entry, NULL) == 0)
        cg_cache_release(cg_project_repository(p->project)->cache, entry);
    free(p);
}

void cg_repository_prefetch(struct cg_repository *repo, struct cg_project *project,
                            const struct cg_ref *ref)
{
    if (cg_ref_is_zero(ref) || cg_cache_has(repo->cache, ref))
        return;
    struct prefetch *p = malloc(sizeof *p);
    if (!p)
        return;
    *p = (struct prefetch){ project, *ref };
    if (!cg_pool_submit(repo->pool, prefetch, p))
        free(p);
}

static struct cg_project *find_locked(struct cg_repository *repo, const char *name)
{
    struct cg_project *p = repo->projects;

    while (p && strcmp(p->name, name) != 0)
        p = p->next;
    return p;
}

int cg_repository_project(struct cg_repository *repo, const char *name, bool create,
                          struct cg_project **ret_project, struct cg_error *err)
{
    {
        CG_LOCK(&repo->lock);
        *ret_project = find_locked(repo, name);
    }
    if (*ret_project)
        return 0;
    struct cg_project *p;
    int r = cg_project_open(repo, name, create, &p, err);
    if (r < 0)
        return r;
    CG_LOCK(&repo->lock);
    *ret_project = find_locked(repo, name);
    if (*ret_project) {
        cg_project_free(p); /* another thread was faster */
        return 0;
    }
    p->next = repo->projects;
    repo->projects = p;
    *ret_project = p;
    return 0;
}

struct project_list {
    struct cg_repository *repo;
    cg_store_list_fn *fn;
    void *opaque;
};

static int list_project(void *opaque, const char *name, struct cg_error *err)
{
    struct project_list *l = opaque;
    char path[CG_PART_MAX + 32], byte;
    size_t len;

    if (!cg_name_part_valid(name) || strcmp(name, TOP) == 0)
        return 0;
    snprintf(path, sizeof path, "%s/" CG_PROJECT_FILE, name);
    int r = l->repo->store->ops->get(l->repo->store, path, &byte, 1, &len, NULL, err);
    if (r == -ENOENT)
        r = cg_project_used(l->repo->store, name, err) == 1 ? 1 : -ENOENT;
    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    /* A project that can't be read is listed all the same: opening it says why. */
    return l->fn(l->opaque, name, err);
}

int cg_repository_projects(struct cg_repository *repo, cg_store_list_fn *fn, void *opaque,
                           struct cg_error *err)
{
    struct project_list l = { repo, fn, opaque };

    return repo->store->ops->list(repo->store, ".", list_project, &l, err);
}
