/* Threads: the session's workers call these, any number at once.  What they share is in struct
 * cg_fs.  The kernel doesn't forget a node while a request on it is under way. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fuse/log.h"
#include "fuse/mountpoint.h"
#include "fuse/ops.h"
#include "fuse/tree.h"

/* From so many requests on that nobody waits for, the kernel reads no further ahead. */
#define BACKGROUND 48

/* How far the kernel reads ahead of a sequential reader, in bytes: some chunks of a point, so that
 * all cores decode. */
#define READ_AHEAD (16u << 20)

void cg_ops_fail(fuse_req_t req, int r, const struct cg_error *err, const char *what,
                 const char *path)
{
    if (r != -ENOENT && r != -EROFS)
        cg_log("%s %s: %s", what, path[0] ? path : "/", err->message);
    /* An errno of our own making that programs don't expect from a file system. */
    fuse_reply_err(req, r == -ENOTSUP ? EOPNOTSUPP : -r);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct cg_fs *fs = userdata;

    /* The size never changes by writing, and whether pages are stale is decided at open. */
    conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
    /* Volumes need every write at once; what was read into a pipe would have to be read out. */
    conn->want &= ~(unsigned)(FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ);
    /* But the kernel doesn't hold any of them back: a RELEASE is one, and an OPEN would pass it
     * (order.h). */
    conn->max_background = UINT16_MAX;
    conn->congestion_threshold = BACKGROUND;
    conn->max_read = fs->max_read; /* libfuse wants both to be the same */
    /* In this order: the kernel takes the lesser of the two. */
    if (cg_mountpoint_read_ahead(fs->mountpoint, READ_AHEAD))
        conn->max_readahead = READ_AHEAD;
}

static void op_destroy(void *userdata)
{
    cg_ops_shutdown(userdata);
}

void cg_ops_shutdown(struct cg_fs *fs)
{
    struct cg_error err;

    for (int r = 0; r != -ENOENT;) {
        r = cg_opens_close_any(fs->opens, &err);
        if (r < 0 && r != -ENOENT)
            cg_log("close: %s", err.message);
    }
}

/* Names */

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *text)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct cg_node *dir = cg_ops_node(fs, parent);
    struct cg_tree_item item;
    struct cg_error err;

    int r = cg_tree_look_up(fs, &dir->name, text, &item, &err);
    if (r < 0) {
        cg_ops_fail(req, r, &err, "look up", text);
        return;
    }
    struct cg_node *node = cg_nodes_look_up(fs->nodes, &item.name, item.kind, &item.identity);
    if (!node) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    struct fuse_entry_param e = {
        .ino = (fuse_ino_t)(uintptr_t)node,
        .generation = node->generation,
        .attr = item.st,
        .attr_timeout = item.timeout,
        .entry_timeout = item.timeout,
    };
    if (fuse_reply_entry(req, &e) == -ENOENT)
        cg_nodes_forget(fs->nodes, node, 1); /* the look-up was interrupted */
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
    struct cg_fs *fs = cg_ops_fs(req);

    if (ino != FUSE_ROOT_ID)
        cg_nodes_forget(fs->nodes, cg_ops_node(fs, ino), count);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct cg_fs *fs = cg_ops_fs(req);

    for (size_t i = 0; i < count; i++) {
        if (forgets[i].ino != FUSE_ROOT_ID)
            cg_nodes_forget(fs->nodes, cg_ops_node(fs, forgets[i].ino), forgets[i].nlookup);
    }
    fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, struct cg_node *node)
{
    struct cg_fs *fs = cg_ops_fs(req);
    char path[CG_NAME_MAX];
    struct cg_error err;
    struct stat st;
    double timeout;

    int r = cg_tree_stat(fs, node, &st, &timeout, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "stat", cg_name_text(&node->name, false, path));
    else
        fuse_reply_attr(req, &st, timeout);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    reply_attr(req, cg_ops_node(cg_ops_fs(req), ino));
}

/* Nothing can be set; but programs that made a file the size it has may go on. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                       struct fuse_file_info *fi)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct cg_node *node = cg_ops_node(fs, ino);
    char path[CG_NAME_MAX];
    struct cg_error err;
    struct stat st;
    double timeout;

    (void)fi;
    int r = cg_tree_stat(fs, node, &st, &timeout, &err);
    if (r < 0) {
        cg_ops_fail(req, r, &err, "stat", cg_name_text(&node->name, false, path));
        return;
    }
    bool size_only = (to_set & FUSE_SET_ATTR_SIZE) &&
                     !(to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID |
                                 FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME));
    if (size_only && attr->st_size == st.st_size)
        fuse_reply_attr(req, &st, timeout);
    else
        fuse_reply_err(req, EPERM);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct cg_node *node = cg_ops_node(fs, ino);
    char target[CG_NAME_MAX], path[CG_NAME_MAX];
    struct cg_error err;

    int r = cg_tree_read_link(fs, &node->name, target, &err);
    if (r < 0)
        cg_ops_fail(req, r, &err, "read", cg_name_text(&node->name, false, path));
    else
        fuse_reply_readlink(req, target);
}

/* Directories: listed once, at opendir. */

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct cg_node *node = cg_ops_node(fs, ino);
    struct cg_tree_list *list;
    char path[CG_NAME_MAX];
    struct cg_error err;

    int r = cg_tree_list(fs, &node->name, &list, &err);
    if (r < 0) {
        cg_ops_fail(req, r, &err, "list", cg_name_text(&node->name, false, path));
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)list;
    if (fuse_reply_open(req, fi) == -ENOENT)
        cg_tree_list_free(list);
}

static mode_t type_of(enum cg_node_kind kind)
{
    if (kind == CG_NODE_DIRECTORY)
        return S_IFDIR;
    return kind == CG_NODE_LINK ? S_IFLNK : S_IFREG;
}

/* Offsets: 0 and 1 are "." and "..", entry i is i + 2; each entry carries the next one's. */
static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    const struct cg_tree_list *list = (struct cg_tree_list *)(uintptr_t)fi->fh;
    char *buf = malloc(size);
    size_t used = 0;

    (void)ino;
    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (uint64_t i = (uint64_t)off; i < list->count + 2; i++) {
        const struct cg_tree_entry *e = i < 2 ? NULL : &list->v[i - 2];
        struct stat st = { .st_mode = e ? type_of(e->kind) : S_IFDIR, .st_ino = e ? e->number : 0 };
        const char *text = e ? e->text : (i == 0 ? "." : "..");
        size_t n = fuse_add_direntry(req, buf + used, size - used, text, &st, (off_t)(i + 1));
        if (n > size - used)
            break;
        used += n;
    }
    fuse_reply_buf(req, buf, used);
    free(buf);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    cg_tree_list_free((struct cg_tree_list *)(uintptr_t)fi->fh);
    fuse_reply_err(req, 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct cg_fs *fs = cg_ops_fs(req);
    struct statvfs st;

    (void)ino;
    /* What the volumes can grow into. */
    if (statvfs(cg_gateway_root(fs->gateway), &st) < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    st.f_namemax = CG_PART_MAX;
    fuse_reply_statfs(req, &st);
}

/* What is made, named or deleted is the command's business: a file's name here is a volume. */

static void refuse(fuse_req_t req)
{
    fuse_reply_err(req, cg_ops_fs(req)->read_only ? EROFS : EPERM);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode,
                      struct fuse_file_info *fi)
{
    (void)parent, (void)text, (void)mode, (void)fi;
    refuse(req);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode, dev_t dev)
{
    (void)parent, (void)text, (void)mode, (void)dev;
    refuse(req);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *text, mode_t mode)
{
    (void)parent, (void)text, (void)mode;
    refuse(req);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *text)
{
    (void)parent, (void)text;
    refuse(req);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *text)
{
    (void)target, (void)parent, (void)text;
    refuse(req);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *text)
{
    (void)ino, (void)parent, (void)text;
    refuse(req);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *text, fuse_ino_t new_parent,
                      const char *new_text, unsigned flags)
{
    (void)parent, (void)text, (void)new_parent, (void)new_text, (void)flags;
    refuse(req);
}

const struct fuse_lowlevel_ops cg_ops = {
    .init = op_init,
    .destroy = op_destroy,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .statfs = op_statfs,
    .create = op_create,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_unlink,
    .symlink = op_symlink,
    .link = op_link,
    .rename = op_rename,
    .open = cg_io_open,
    .read = cg_io_read,
    .write = cg_io_write,
    .flush = cg_io_flush,
    .fsync = cg_io_fsync,
    .fallocate = cg_io_fallocate,
    .lseek = cg_io_lseek,
    .release = cg_io_release,
};
