/* The tree that the mount shows, from names and what the gateway says of them. */
#ifndef CG_FUSE_TREE_H
#define CG_FUSE_TREE_H

#include <sys/stat.h>

#include "fuse/fs.h"

/* What a path of the tree is. */
struct cg_tree_item {
    struct cg_name name;
    enum cg_node_kind kind;
    struct cg_identity identity;
    struct stat st;
    double timeout; /* for how many seconds the kernel may believe it */
};

/* What is called text in the directory dir.  -ENOENT: nothing is.  Any thread. */
int cg_tree_look_up(struct cg_fs *fs, const struct cg_name *dir, const char *text,
                    struct cg_tree_item *ret, struct cg_error *err);

/* The attributes of what was looked up before.  Any thread. */
int cg_tree_stat(struct cg_fs *fs, const struct cg_node *node, struct stat *ret_st,
                 double *ret_timeout, struct cg_error *err);

/* One entry of a listed directory. */
struct cg_tree_entry {
    char *text;
    enum cg_node_kind kind;
    uint64_t number;
};

struct cg_tree_list {
    struct cg_tree_entry *v;
    size_t count, allocated;
};

/* What is in the directory dir; partitions aren't listed.  The caller frees it with
 * cg_tree_list_free.  Any thread. */
int cg_tree_list(struct cg_fs *fs, const struct cg_name *dir, struct cg_tree_list **ret_list,
                 struct cg_error *err);
void cg_tree_list_free(struct cg_tree_list *list);

/* What a link ("latest") points to: a name in the same directory.  Any thread. */
int cg_tree_read_link(struct cg_fs *fs, const struct cg_name *link, char ret[static CG_NAME_MAX],
                      struct cg_error *err);

#endif
