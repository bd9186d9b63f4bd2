#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/pool_spare.h"

#define SPARE ((off_t)4 << 20)     /* new layers and new volume.jsons of some snapshots */
#define MUCH ((uint64_t)128 << 20) /* that is to be free */

static int open_spare(const char *pool, int flags)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s/.spare", pool) >= sizeof path)
        return -1;
    return open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
}

void cg_pool_spare_keep(const char *pool, uint64_t room)
{
    struct stat st;

    if (room < MUCH)
        return;
    CG_CLEANUP(cg_close) int fd = open_spare(pool, O_CREAT);
    if (fd >= 0 && fstat(fd, &st) == 0 && 512 * (off_t)st.st_blocks < SPARE)
        (void)!fallocate(fd, 0, 0, SPARE); /* else there is none */
}

bool cg_pool_spare_use(const char *pool)
{
    CG_CLEANUP(cg_close) int fd = open_spare(pool, 0);
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && st.st_blocks > 0 && ftruncate(fd, 0) == 0;
}
