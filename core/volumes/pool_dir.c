#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/holders.h"
#include "core/volumes/parent.h"
#include "core/volumes/pool_dir.h"
#include "core/volumes/volume.h"
#include "core/volumes/writer.h"

int cg_pool_dir_lock(struct cg_volumes *space, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = openat(space->fd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return cg_error_set(err, errno, "open the pool's lock");
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return cg_error_set(err, errno, "lock the pool");
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int cg_pool_dir_make(struct cg_volumes *space, const char *project,
                     char ret_path[static CG_NAME_MAX], int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int names = -1;
    char uuid[CG_UUID_LEN + 1];
    int r = cg_pool_dir_lock(space, &names, err);

    if (r == 0)
        r = cg_dir_make(space->fd, project, 0700, err);
    if (r < 0)
        return r;
    cg_uuid(uuid);
    snprintf(ret_path, CG_NAME_MAX, "%s/.new-%s", project, uuid);
    if (mkdirat(space->fd, ret_path, 0700) < 0)
        return cg_error_set(err, errno, "create a volume in %s", project);
    int fd = openat(space->fd, ret_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0) {
        r = cg_error_set(err, errno, "create a volume in %s", project);
        cg_close(&fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

static int exists(const struct cg_name *name, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    return cg_error_say(err, EEXIST, "there is a volume %s already",
                        cg_name_text(name, true, text));
}

int cg_pool_dir_check_free(struct cg_volumes *space, const struct cg_name *name,
                           struct cg_error *err)
{
    char path[CG_NAME_MAX];
    struct stat st;

    cg_volume_dir_name(name, path);
    if (fstatat(space->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return exists(name, err);
    return errno == ENOENT ? 0 : cg_error_set(err, errno, "look for %s", path);
}

static int sync_project(struct cg_volumes *space, const char *path, struct cg_error *err)
{
    char project[CG_NAME_MAX];

    snprintf(project, sizeof project, "%.*s", (int)strcspn(path, "/"), path);
    return cg_dir_sync(space->fd, project, err);
}

/* Renames a directory to a name that nobody has; -EEXIST.  NFS and many FUSE file systems can't do
 * that in one step: there a look is as good, since with the lock of the pool nobody else gives
 * names. */
static int rename_new_locked(struct cg_volumes *space, const char *from, const char *to)
{
    struct stat st;

    if (renameat2(space->fd, from, space->fd, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return -errno;
    if (fstatat(space->fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return errno == ENOENT && renameat(space->fd, from, space->fd, to) == 0 ? 0 : -errno;
}

/* After a rename from one to the other. */
static int sync_projects(struct cg_volumes *space, const char *path, const char *final,
                         struct cg_error *err)
{
    int r = sync_project(space, final, err);

    if (r == 0 && strncmp(path, final, strcspn(final, "/") + 1) != 0)
        r = sync_project(space, path, err);
    return r;
}

/* The project that path lies in, if that was its last volume; with the lock of the pool, so that
 * nobody is about to make one. */
static void remove_project_locked(struct cg_volumes *space, const char *path)
{
    char project[CG_NAME_MAX];

    snprintf(project, sizeof project, "%.*s", (int)strcspn(path, "/"), path);
    unlinkat(space->fd, project, AT_REMOVEDIR);
}

int cg_pool_dir_publish(struct cg_volumes *space, const char *path, const struct cg_name *name,
                        struct cg_error *err)
{
    CG_CLEANUP(cg_close) int names = -1;
    char final[CG_NAME_MAX], text[CG_NAME_MAX];
    int r = cg_pool_dir_lock(space, &names, err);

    cg_volume_dir_name(name, final);
    if (r == 0)
        r = cg_dir_make(space->fd, name->part[0], 0700, err);
    if (r < 0)
        return r;
    r = rename_new_locked(space, path, final);
    if (r < 0)
        return r == -EEXIST ? exists(name, err)
                            : cg_error_set(err, -r, "rename %s to %s", path, final);
    r = sync_projects(space, path, final, err);
    if (r == 0) {
        remove_project_locked(space, path);
        return 0;
    }
    if (rename_new_locked(space, final, path) < 0)
        return cg_error_prefix(err, r, "%s is there, but may be gone after a crash of the host",
                               cg_name_text(name, true, text));
    sync_projects(space, path, final, NULL);
    return r;
}

/* Whoever writes it has it open too. */
static int in_use(int fd, struct cg_error *err)
{
    char who[512];
    pid_t pid = cg_writer_alive(fd);

    cg_holders(fd, who, sizeof who);
    if (pid)
        return cg_error_say(err, EBUSY,
                            "it is being written by process %ld: disconnect its clients, or end "
                            "it; open in %s",
                            (long)pid, who);
    return cg_error_say(err, EBUSY, "it is open for reading in %s: close it there, or end that",
                        who);
}

/* Nobody has it open: *ret_fd holds it for us alone. */
static int claim(struct cg_volumes *space, const char *path, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close)
    int fd = openat(space->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return cg_error_say(err, ENOENT, "there is no such volume");
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return cg_error_set(err, errno, "lock %s", path);
        return in_use(fd, err);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static void forget_layers(int dirfd)
{
    struct cg_volume_json json;
    char run[PATH_MAX];
    bool left;

    if (cg_writer_run_dir(dirfd, run, &left, NULL) < 0 ||
        cg_volume_json_read(dirfd, &json, NULL, NULL) < 0)
        return;
    /* Sealed layers have no working map; a hard link of one may live on in a clone. */
    cg_layer_remove(dirfd, json.head.uuid[json.head.count - 1], run);
    cg_volume_json_clear(&json);
}

static int release_parent(struct cg_volumes *space, int dirfd, struct cg_error *err)
{
    struct cg_volume_json json;

    int r = cg_volume_json_read(dirfd, &json, NULL, err);

    if (r == -ENOENT || r == -EIO || r == -ENOTSUP)
        return 0; /* never finished, damaged, newer: nothing says what to release */
    if (r < 0)
        return r;
    r = cg_parent_release(space, &json, err);
    if (r == 0 && *json.parent) {
        strcpy(json.release, json.parent);
        strcpy(json.release_identity, json.parent_identity);
        strcpy(json.release_uuid, json.uuid);
        r = cg_parent_release(space, &json, err);
    }
    cg_volume_json_clear(&json);
    return r;
}

/* Removes what takes room: all but volume.json, which says what is still to be released. */
static int remove_content(int dirfd, struct cg_error *err)
{
    struct dirent *e;

    forget_layers(dirfd);
    cg_writer_forget_socket(dirfd);
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(dirfd, ".", 0);
    while (dir && (errno = 0, e = readdir(dir))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            strcmp(e->d_name, "volume.json") == 0)
            continue;
        int r = cg_tree_remove(dirfd, e->d_name, err);
        if (r < 0)
            return r;
    }
    return errno ? cg_error_set(err, errno, "list a volume") : 0;
}

static int discard(struct cg_volumes *space, const char *path, struct cg_error *err)
{
    CG_CLEANUP(cg_close)
    int fd = openat(space->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? 0 : cg_error_set(err, errno, "open %s", path);
    /* That it has no name is durable before anything of it goes; volume.json says what to release,
     * so it goes after that, which may have to wait until a repository is there again. */
    int r = sync_project(space, path, err);
    if (r == 0)
        r = remove_content(fd, err);
    if (r == 0)
        r = release_parent(space, fd, err);
    return r < 0 ? r : cg_tree_remove(space->fd, path, err);
}

static int take_name(struct cg_volumes *space, const struct cg_name *name,
                     char ret_trash[static CG_NAME_MAX], int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int names = -1;
    CG_CLEANUP(cg_close) int fd = -1;
    char path[CG_NAME_MAX], uuid[CG_UUID_LEN + 1];
    int r = cg_pool_dir_lock(space, &names, err);

    if (r < 0)
        return r;
    cg_volume_dir_name(name, path);
    r = claim(space, path, &fd, err);
    if (r < 0)
        return r;
    cg_uuid(uuid);
    snprintf(ret_trash, CG_NAME_MAX, "%s/.trash-%s", name->part[0], uuid);
    r = rename_new_locked(space, path, ret_trash);
    if (r < 0)
        return cg_error_set(err, -r, "rename %s", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static void remove_project(struct cg_volumes *space, const char *project)
{
    CG_CLEANUP(cg_close) int names = -1;

    if (cg_pool_dir_lock(space, &names, NULL) == 0)
        remove_project_locked(space, project);
}

int cg_pool_dir_remove(struct cg_volumes *space, const struct cg_name *name, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1; /* holds it, so that nobody else deletes it */
    char trash[CG_NAME_MAX], text[CG_NAME_MAX];
    int r = take_name(space, name, trash, &fd, err);

    if (r < 0)
        return cg_error_prefix(err, r, "delete %s", cg_name_text(name, true, text));
    r = discard(space, trash, err);
    if (r < 0)
        return cg_error_prefix(err, r, "%s has no name any more, but could not be deleted whole",
                               cg_name_text(name, true, text));
    remove_project(space, name->part[0]);
    return 0;
}

/* With the lock of the pool: who makes a directory holds it before letting that go. */
static int claim_left(struct cg_volumes *space, const char *path, int *ret_fd)
{
    CG_CLEANUP(cg_close) int names = -1;
    int r = cg_pool_dir_lock(space, &names, NULL);

    return r < 0 ? r : claim(space, path, ret_fd, NULL);
}

static void clean_project(struct cg_volumes *space, const char *project)
{
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(space->fd, project, O_NOFOLLOW);
    struct dirent *e;

    while (dir && (e = readdir(dir))) {
        CG_CLEANUP(cg_close) int fd = -1;
        char path[CG_NAME_MAX];
        bool left = strncmp(e->d_name, ".new-", 5) == 0 || strncmp(e->d_name, ".trash-", 7) == 0;
        if (!left ||
            (size_t)snprintf(path, sizeof path, "%s/%s", project, e->d_name) >= sizeof path)
            continue;
        if (claim_left(space, path, &fd) == 0 && discard(space, path, NULL) == 0)
            remove_project(space, project);
    }
}

void cg_pool_dir_clean(struct cg_volumes *space)
{
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(space->fd, ".", 0);
    struct dirent *e;

    while (dir && (e = readdir(dir)))
        if (cg_name_part_valid(e->d_name))
            clean_project(space, e->d_name);
}
