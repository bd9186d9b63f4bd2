/* A regular file or a block device as an image. */
#ifndef CG_IMAGE_FILE_H
#define CG_IMAGE_FILE_H

#include "core/base/name.h"
#include "core/image/image.h"

/* Opens path (read-only unless write).  A file whose size isn't a multiple of 512 reads as if zeros
 * followed up to the next one, and can't be opened for writing.  Extents come from
 * SEEK_DATA/SEEK_HOLE and, for devices, are data.  A file that shrinks while it is open gives -EIO
 * with a message that says so. */
int cg_file_open(const char *path, bool write, struct cg_image **ret_image, struct cg_error *err);

/* As cg_file_open for writing a regular file that the caller has opened (O_RDWR): fd is the image's
 * on success; a lock (flock) that the caller took with it stays.  path is for messages. */
int cg_file_adopt(int fd, const char *path, struct cg_image **ret_image, struct cg_error *err);

/* "INODE:SIZE:MTIME-NS" of a file: changes when its content may have. */
int cg_file_identity(const char *path, char ret[static CG_NAME_MAX], struct cg_error *err);

#endif
