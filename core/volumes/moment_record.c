#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/volumes/moment_record.h"
#include "core/volumes/pool_dir.h"

#define PREFIX ".moment-"
#define RECORD_MAX ((size_t)16 << 20)

/* With the lock of the pool, so that nobody sees it before it's held. */
static int create_locked(struct cg_volumes *space, const char *text,
                         struct cg_moment_record *record, struct cg_error *err)
{
    int r = cg_file_create(space->fd, record->path, text, strlen(text), 0600, err);

    if (r < 0)
        return r;
    record->fd = openat(space->fd, record->path, O_RDONLY | O_CLOEXEC);
    if (record->fd >= 0 && flock(record->fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    r = cg_error_set(err, errno, "hold %s", record->path);
    unlinkat(space->fd, record->path, 0);
    cg_close(&record->fd);
    return r;
}

int cg_moment_record_create(struct cg_volumes *space, const json_t *snapshots,
                            struct cg_moment_record *ret, struct cg_error *err)
{
    struct cg_moment_record record = { .fd = -1 };
    char uuid[CG_UUID_LEN + 1];
    CG_CLEANUP(cg_close) int names = -1;
    CG_CLEANUP(cg_free) char *text = json_dumps(snapshots, JSON_COMPACT);

    if (!text)
        return cg_error_set(err, ENOMEM, "snapshot");
    cg_uuid(uuid);
    snprintf(record.path, sizeof record.path, PREFIX "%s", uuid);
    int r = cg_pool_dir_lock(space, &names, err);
    if (r == 0)
        r = create_locked(space, text, &record, err);
    if (r == 0)
        *ret = record;
    return r;
}

int cg_moment_record_remove(struct cg_volumes *space, struct cg_moment_record *record,
                            struct cg_error *err)
{
    if (unlinkat(space->fd, record->path, 0) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove %s", record->path);
    return cg_dir_sync(space->fd, ".", err);
}

void cg_moment_record_close(struct cg_moment_record *record)
{
    cg_close(&record->fd);
    record->fd = -1;
}

/* *ret_fd holds it; -1 if somebody else does. */
static int claim(struct cg_volumes *space, const char *path, int *ret_fd)
{
    CG_CLEANUP(cg_close) int names = -1;
    int r = cg_pool_dir_lock(space, &names, NULL);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_close) int fd = openat(space->fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return -errno;
    *ret_fd = fd;
    fd = -1;
    return 0;
}

void cg_moment_record_each_left(struct cg_volumes *space,
                                int (*fn)(struct cg_volumes *space, const json_t *snapshots))
{
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(space->fd, ".", 0);
    struct dirent *e;

    while (dir && (e = readdir(dir))) {
        struct cg_moment_record record = { .fd = -1 };
        CG_CLEANUP(cg_json_cleanup) json_t *snapshots = NULL;
        CG_CLEANUP(cg_free) char *text = NULL;
        size_t len;
        if (strncmp(e->d_name, PREFIX, strlen(PREFIX)) != 0 ||
            strlen(e->d_name) >= sizeof record.path)
            continue;
        strcpy(record.path, e->d_name);
        int r = claim(space, record.path, &record.fd);
        if (r == 0)
            r = cg_file_read(space->fd, record.path, RECORD_MAX, &text, &len, NULL);
        if (r == 0) /* one that isn't whole is of somebody who hadn't begun */
            snapshots = json_loadb(text, len, 0, NULL);
        if (r == 0 && fn(space, snapshots) == 0)
            cg_moment_record_remove(space, &record, NULL);
        cg_moment_record_close(&record);
    }
}
