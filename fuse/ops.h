/* The operations of libfuse's low-level interface, whose userdata is a struct cg_fs. */
#ifndef CG_FUSE_OPS_H
#define CG_FUSE_OPS_H

#include <fuse_lowlevel.h>

#include "core/base/error.h"
#include "fuse/fs.h"

/* All of them. */
extern const struct fuse_lowlevel_ops cg_ops;

/* Gives all open images back and flushes them, logging what fails; again is fine.  Nothing may be
 * in flight. */
void cg_ops_shutdown(struct cg_fs *fs);

/* The part that reads and writes files (io.c). */
void cg_io_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cg_io_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void cg_io_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                 struct fuse_file_info *fi);
void cg_io_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cg_io_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void cg_io_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                     struct fuse_file_info *fi);
void cg_io_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void cg_io_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

static inline struct cg_fs *cg_ops_fs(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static inline struct cg_node *cg_ops_node(struct cg_fs *fs, fuse_ino_t ino)
{
    return ino == FUSE_ROOT_ID ? &fs->root : (struct cg_node *)(uintptr_t)ino;
}

/* Answers with r (-errno), and logs the message unless it's an ordinary answer: that something
 * isn't there, or can't be written at all. */
void cg_ops_fail(fuse_req_t req, int r, const struct cg_error *err, const char *what,
                 const char *path);

#endif
