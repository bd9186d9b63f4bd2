/* Whole-file and directory steps that the formats are built from.  All paths are relative to
 * dirfd as for openat; errors name the path. */
#ifndef CG_BASE_FILES_H
#define CG_BASE_FILES_H

#include <dirent.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>

#include "core/base/error.h"

/* Reads or writes exactly len bytes at off, going on after short counts and EINTR.  Returns 0 or
 * -errno; a read past the end of the file is -ENODATA.  No message: the caller knows the path. */
int cg_pread_full(int fd, void *buf, size_t len, uint64_t off);
int cg_pwrite_full(int fd, const void *buf, size_t len, uint64_t off);

/* Reads a whole file of at most max bytes into memory that the caller frees; a NUL follows the
 * bytes.  -ENOENT is an ordinary answer (the message is set all the same); -EFBIG for more. */
int cg_file_read(int dirfd, const char *path, size_t max, char **ret_buf, size_t *ret_len,
                 struct cg_error *err);

/* Replaces path by these bytes, durably and atomically: a temporary file beside it, fsync, rename,
 * fsync of the directory.  After a failure the old file is there unchanged. */
int cg_file_replace(int dirfd, const char *path, const void *buf, size_t len, mode_t mode,
                    struct cg_error *err);

/* Creates path with these bytes, durably and exclusively: -EEXIST if something is there. */
int cg_file_create(int dirfd, const char *path, const void *buf, size_t len, mode_t mode,
                   struct cg_error *err);

/* fsync of the directory path ("." for dirfd itself). */
int cg_dir_sync(int dirfd, const char *path, struct cg_error *err);

/* Makes path and its parents, durably where they are new.  A directory that is there is fine. */
int cg_dir_make(int dirfd, const char *path, mode_t mode, struct cg_error *err);

/* Opens the directory path to read what is in it; flags: O_NOFOLLOW or 0.  NULL with errno set. */
DIR *cg_dir_open(int dirfd, const char *path, int flags);
void cg_closedir(DIR **dir); /* for CG_CLEANUP */

/* Removes path with all that is in it; nothing there is fine.  Follows no symbolic links. */
int cg_tree_remove(int dirfd, const char *path, struct cg_error *err);

/* The directory for sockets and working maps, made if missing (0700): $COWGATE_RUN, else
 * /run/cowgate for root if /run is a tmpfs, else $XDG_RUNTIME_DIR/cowgate if that is one, else
 * /dev/shm/cowgate-UID.  Always on tmpfs, so that it ends with the boot; -ENOTSUP if it isn't,
 * -EINVAL if it isn't an absolute path. ret has room for the 107 bytes of a unix socket's path and
 * more. */
int cg_run_dir(char *ret, size_t size, struct cg_error *err);

/* The file that a FUSE face over the directory mountpoint (a real path) holds a flock on for as
 * long as it runs: below cg_run_dir. */
int cg_run_mount_path(const char *mountpoint, char *ret, size_t size, struct cg_error *err);

/* Raises the limit of open files to what this process may have: an open volume takes two for each
 * layer.  Keeps quiet if it can't. */
void cg_files_raise_limit(void);

/* The kernel's boot id (random per boot) as text. */
int cg_boot_id(char ret[static 37], struct cg_error *err);

#endif
