#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "core/backups/backups.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/root.h"

#define CONFIG "cowgate.json"
#define CONFIG_MAX (1 << 20)
#define FORMAT 1

#define POOL_WARN 90     /* percent */
#define POOL_INTERVAL 60 /* seconds */

/* The place of the root when nobody says one. */
static int default_path(char *ret, size_t size, struct cg_error *err)
{
    const char *env = getenv("COWGATE_ROOT");
    const char *data = getenv("XDG_DATA_HOME");
    const char *home = getenv("HOME");
    int n;

    if (env && *env)
        n = snprintf(ret, size, "%s", env);
    else if (geteuid() == 0)
        n = snprintf(ret, size, "/var/lib/cowgate");
    else if (data && *data)
        n = snprintf(ret, size, "%s/cowgate", data);
    else if (home && *home)
        n = snprintf(ret, size, "%s/.local/share/cowgate", home);
    else
        return cg_error_say(err, ENOENT, "no root given: use --root DIR or set COWGATE_ROOT");
    if ((size_t)n >= size)
        return cg_error_set(err, ENAMETOOLONG, "root directory");
    return 0;
}

/* The directory of a repository's URL; NULL for a kind that isn't known. */
static const char *repository_path(const char *url)
{
    if (url[0] == '/')
        return url;
    if (strncmp(url, "file:///", 8) == 0)
        return url + 7;
    return NULL;
}

/* Opens the repository, or makes one where there is none. */
static int adopt_repository(const char *path, struct cg_error *err)
{
    struct cg_repository *repository;
    int r = cg_repository_open(path, 0, &repository, err);

    if (r == 0)
        cg_repository_close(repository);
    else if (r == -ENOENT)
        r = cg_repository_create(path, err);
    return r;
}

/* 0 if path is missing or an empty directory. */
static int check_empty(const char *path, struct cg_error *err)
{
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return 0;
    DIR *dir = opendir(path);
    if (!dir)
        return cg_error_set(err, errno, "make a root in %s", path);
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(dir));) {
        if (strcmp(e->d_name, CONFIG) == 0)
            r = cg_error_say(err, EEXIST, "%s is a root already", path);
    }
    rewinddir(dir);
    for (struct dirent *e; r == 0 && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "lost+found"))
            r = cg_error_say(err, ENOTEMPTY, "%s is neither a root nor empty (it has %s)", path,
                             e->d_name);
    }
    closedir(dir);
    return r;
}

/* Writes what makes the directory a root; the configuration comes last. */
static int fill_root(const char *path, const char *repository, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open directory %s", path);
    int r = cg_dir_make(fd, "pool", 0700, err);
    if (r < 0)
        return r;
    char own[PATH_MAX];
    if (!repository && (size_t)snprintf(own, sizeof own, "%s/repo", path) >= sizeof own)
        return cg_error_set(err, ENAMETOOLONG, "%s/repo", path);
    r = adopt_repository(repository ? repository : own, err);
    if (r < 0)
        return r;
    CG_CLEANUP(cg_json_cleanup)
    json_t *config =
        json_pack("{s:i,s:s}", "format", FORMAT, "repository", repository ? repository : "repo");
    CG_CLEANUP(cg_free) char *text = config ? json_dumps(config, JSON_INDENT(2)) : NULL;
    if (!text)
        return cg_error_say(err, EINVAL, "the repository's path %s is not UTF-8",
                            repository ? repository : path);
    return cg_file_create(fd, CONFIG, text, strlen(text), 0600, err);
}

int cg_root_init(const char *path, const char *url, struct cg_error *err)
{
    char place[PATH_MAX], full[PATH_MAX];
    const char *repository = NULL;

    int r = path ? 0 : default_path(place, sizeof place, err);
    if (r == 0 && path && (size_t)snprintf(place, sizeof place, "%s", path) >= sizeof place)
        r = cg_error_set(err, ENAMETOOLONG, "root directory");
    if (r == 0 && url && !(repository = repository_path(url)))
        r = cg_error_say(err, ENOTSUP,
                         "repository %s: write an absolute path or file:///PATH of a directory",
                         url);
    if (r == 0)
        r = check_empty(place, err);
    if (r < 0)
        return r;
    bool made = access(place, F_OK) < 0;
    r = cg_dir_make(AT_FDCWD, place, 0700, err);
    if (r < 0)
        return r;
    if (!realpath(place, full))
        return cg_error_set(err, errno, "resolve %s", place);
    /* Two at once: the second waits, and finds a root. */
    CG_CLEANUP(cg_close) int lock = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) < 0)
        return cg_error_set(err, errno, "lock %s", full);
    r = check_empty(full, err);
    if (r < 0)
        return r;
    r = fill_root(full, repository, err);
    if (r < 0) {
        char part[PATH_MAX + 8];
        snprintf(part, sizeof part, "%s/pool", full);
        cg_tree_remove(AT_FDCWD, part, NULL);
        if (!repository) {
            snprintf(part, sizeof part, "%s/repo", full);
            cg_tree_remove(AT_FDCWD, part, NULL);
        }
        if (made)
            rmdir(full);
    }
    return r;
}

/* The repository's directory from the configuration's value, absolute; NULL if it isn't one. */
static char *absolute_repository(const char *root, const char *value)
{
    char *ret = NULL;

    if (value && strcmp(value, "repo") == 0)
        return asprintf(&ret, "%s/repo", root) < 0 ? NULL : ret;
    const char *path = value ? repository_path(value) : NULL;
    return path ? strdup(path) : NULL;
}

static int read_pool(const char *path, const json_t *pool, struct cg_root *root,
                     struct cg_error *err)
{
    const json_t *warn = json_object_get(pool, "warn");
    const json_t *interval = json_object_get(pool, "interval");

    root->pool_warn = POOL_WARN;
    root->pool_interval = POOL_INTERVAL;
    if (!pool)
        return 0;
    if (warn && json_is_integer(warn) && json_integer_value(warn) >= 1 &&
        json_integer_value(warn) <= 101)
        root->pool_warn = (unsigned)json_integer_value(warn);
    else if (warn)
        return cg_error_say(err, EINVAL, "%s/" CONFIG ": pool.warn is a number from 1 to 101",
                            path);
    if (interval && json_is_integer(interval) && json_integer_value(interval) >= 1 &&
        json_integer_value(interval) <= 86400)
        root->pool_interval = (unsigned)json_integer_value(interval);
    else if (interval)
        return cg_error_say(err, EINVAL, "%s/" CONFIG ": pool.interval is a number from 1 to 86400",
                            path);
    if (!json_is_object(pool))
        return cg_error_say(err, EINVAL, "%s/" CONFIG ": pool is no object", path);
    return 0;
}

int cg_root_decode(const char *path, const char *text, size_t len, struct cg_root *ret,
                   struct cg_error *err)
{
    json_error_t where;
    CG_CLEANUP(cg_json_cleanup) json_t *config = json_loadb(text, len, 0, &where);

    if (!config)
        return cg_error_say(err, EINVAL, "%s/" CONFIG ": line %d: %s", path, where.line,
                            where.text);
    json_int_t format = json_integer_value(json_object_get(config, "format"));
    if (format > FORMAT)
        return cg_error_say(err, ENOTSUP, "root %s has format %lld, this cowgate knows up to %d",
                            path, (long long)format, FORMAT);
    CG_CLEANUP(cg_free)
    char *repository =
        absolute_repository(path, json_string_value(json_object_get(config, "repository")));
    if (format < 1 || !repository)
        return cg_error_say(err, EINVAL, "%s/" CONFIG ": format or repository is missing or wrong",
                            path);
    struct cg_root root = { .path = strdup(path) };
    if (!root.path || asprintf(&root.pool, "%s/pool", path) < 0) {
        free(root.path);
        return cg_error_set(err, ENOMEM, "open root %s", path);
    }
    root.repository = repository;
    repository = NULL;
    root.rbd = json_incref(json_object_get(config, "rbd"));
    const char *advertise = json_string_value(json_object_get(config, "advertise"));
    root.advertise = advertise ? strdup(advertise) : NULL;
    if (advertise && !root.advertise) {
        cg_root_clear(&root);
        return cg_error_set(err, ENOMEM, "open root %s", path);
    }
    int r = read_pool(path, json_object_get(config, "pool"), &root, err);
    if (r < 0) {
        cg_root_clear(&root);
        return r;
    }
    *ret = root;
    return 0;
}

int cg_root_load(const char *path, struct cg_root *ret, struct cg_error *err)
{
    char place[PATH_MAX], full[PATH_MAX], config_path[PATH_MAX + 16];

    if (!path) {
        int r = default_path(place, sizeof place, err);
        if (r < 0)
            return r;
        path = place;
    }
    if (!realpath(path, full)) {
        if (errno == ENOENT)
            return cg_error_say(
                err, ENOENT, "no root at %s: make one with 'cowgate --root %s init'", path, path);
        return cg_error_set(err, errno, "open root %s", path);
    }
    snprintf(config_path, sizeof config_path, "%s/%s", full, CONFIG);
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;
    int r = cg_file_read(AT_FDCWD, config_path, CONFIG_MAX, &text, &len, err);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT,
                            "%s is not a root (no %s): make one with 'cowgate --root %s init'",
                            full, CONFIG, full);
    return r < 0 ? r : cg_root_decode(full, text, len, ret, err);
}

void cg_root_clear(struct cg_root *root)
{
    free(root->path);
    free(root->pool);
    free(root->repository);
    free(root->advertise);
    json_decref(root->rbd);
    *root = (struct cg_root){ 0 };
}
