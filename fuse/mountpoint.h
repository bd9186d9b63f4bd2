/* The directory that is mounted on: found out, freed from a dead mount, locked, tuned. */
#ifndef CG_FUSE_MOUNTPOINT_H
#define CG_FUSE_MOUNTPOINT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

/* The type of our mounts in the kernel's table. */
#define CG_MOUNTPOINT_TYPE "fuse.cowgate-fuse"

/* The real path of dir, which is a directory.  A mount of ours on it whose process is gone
 * ("transport endpoint is not connected") is detached first.  -EBUSY: a living one is there. */
int cg_mountpoint_prepare(const char *dir, char ret_path[static PATH_MAX], struct cg_error *err);

/* Takes the lock that says that a process serves path (cg_run_mount_path), waiting for one that has
 * been unmounted but still flushes.  *ret_fd is inherited by fork and not by exec; the lock goes
 * with the last process that has it.  -EBUSY: path has been mounted meanwhile. */
int cg_mountpoint_lock(const char *path, int *ret_fd, struct cg_error *err);

/* Gives the lock back; -1 is fine. */
void cg_mountpoint_unlock(const char *path, int fd);

/* Lets the kernel read ahead that many bytes in files of the mount on path.  False if this process
 * isn't allowed to: reading is slower then, nothing else. */
bool cg_mountpoint_read_ahead(const char *path, uint64_t bytes);

#endif
