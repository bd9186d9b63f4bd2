#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/usage.h"

/* What is in sealed layers stays there when it's overwritten. */
static uint64_t reserve(int dirfd, const struct cg_volume_json *json)
{
    char name[CG_UUID_LEN + 6];
    struct stat st;

    snprintf(name, sizeof name, "%s.data", json->head.uuid[json->head.count - 1]);
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return json->head.size;
    uint64_t taken = 512 * (uint64_t)st.st_blocks;
    return taken < json->head.size ? json->head.size - taken : 0;
}

void cg_usage(int dirfd, const struct cg_volume_json *json, struct cg_usage *ret)
{
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(dirfd, ".", 0);
    struct cg_usage u = { .reserve = reserve(dirfd, json) };
    struct dirent *e;

    while (dir && (e = readdir(dir))) {
        struct stat st;
        if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        *(st.st_nlink > 1 ? &u.shared : &u.used) += 512 * (uint64_t)st.st_blocks;
    }
    *ret = u;
}
