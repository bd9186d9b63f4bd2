/*   /volumes/PROJECT/VOLUME, VOLUME@SNAPSHOT       files
 *   /backups/PROJECT/VOLUME/POINT                  files
 *                          /latest                 a symbolic link to the newest point
 *   ANY-FILE.pN, latest.pN                         found on look-up, not listed
 *
 * latest is a link, so that however a point is reached it is one inode with one page cache, which
 * stays right when latest moves on.  Heads of volumes and directories change behind our back, so
 * the kernel may believe them only shortly; snapshots and points are what they are.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/array.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/base/size.h"
#include "core/image/image.h"
#include "fuse/tree.h"

#define TIMEOUT_CHANGING 1.0
#define TIMEOUT_FIXED 60.0

#define LATEST "latest"

static int no_such(const char *text, struct cg_error *err)
{
    return cg_error_set(err, ENOENT, "%.200s", text);
}

static bool is_latest(const struct cg_name *name)
{
    return name->space == CG_NAME_BACKUPS && name->parts == 3 && strcmp(name->part[2], LATEST) == 0;
}

/* How many components a file's name has; an RBD image may lie in a namespace, too. */
static unsigned parts_of_file(enum cg_name_space space)
{
    switch (space) {
    case CG_NAME_ROOT:
        return 1;
    case CG_NAME_VOLUMES:
    case CG_NAME_RBD:
        return 2;
    case CG_NAME_BACKUPS:
        return 3;
    }
    return 1;
}

/* The name of text in dir, by its form. */
static int child_name(const struct cg_name *dir, const char *text, struct cg_name *ret,
                      struct cg_error *err)
{
    char path[CG_NAME_MAX], full[2 * CG_NAME_MAX];

    cg_name_text(dir, false, path);
    if ((size_t)snprintf(full, sizeof full, "%s%s%s", path, path[0] ? "/" : "", text) >=
            sizeof full ||
        cg_name_parse_prefix(full, ret, err) < 0)
        return no_such(text, err);
    bool whole = !ret->snapshot[0] && !ret->partition && !ret->qcow2;
    if (ret->parts < parts_of_file(ret->space) && !whole)
        return no_such(text, err);
    return 0;
}

/* Directories */

static int one_is_enough(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    (void)opaque, (void)entry, (void)err;
    return 1;
}

static void common_stat(const struct cg_fs *fs, const struct cg_name *name, struct stat *st)
{
    char path[CG_NAME_MAX];

    memset(st, 0, sizeof *st);
    st->st_ino = cg_nodes_number(cg_name_text(name, false, path));
    st->st_uid = fs->uid;
    st->st_gid = fs->gid;
    st->st_nlink = 1; /* of a directory: "don't infer the number of subdirectories" */
    st->st_blksize = 1 << 20;
}

static void set_times(struct stat *st, time_t t)
{
    st->st_atim.tv_sec = st->st_mtim.tv_sec = st->st_ctim.tv_sec = t;
}

static int directory_stat(struct cg_fs *fs, const struct cg_name *name, struct stat *st,
                          struct cg_error *err)
{
    if (name->space != CG_NAME_ROOT) {
        int r = cg_gateway_list(fs->gateway, name, one_is_enough, NULL, err);
        if (r < 0)
            return r;
    }
    common_stat(fs, name, st);
    if (name->space == CG_NAME_ROOT)
        st->st_ino = 1;
    st->st_mode = S_IFDIR | (fs->read_only ? 0500 : 0700);
    set_times(st, fs->started);
    return 0;
}

/* Files */

/* A partition's size is known only to its table, and a snapshot as a qcow2 file isn't the space's
 * either. */
static bool is_laid_over(const struct cg_name *name)
{
    return name->partition || (name->qcow2 && name->space != CG_NAME_BACKUPS);
}

static int opened_size(struct cg_fs *fs, const struct cg_name *name, uint64_t *ret_size,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    int r = cg_gateway_open(fs->gateway, name, CG_OPEN_READ, &image, err);

    if (r == 0)
        *ret_size = cg_image_size(image);
    return r;
}

static bool json_number(const json_t *info, const char *key, uint64_t *ret)
{
    const json_t *value = json_object_get(info, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

/* How many bytes a file takes, as far as it's known.  Never quite its size: tools (cp, tar, rsync)
 * look for holes only in files that seem to have some. */
static uint64_t allocated(const json_t *info, const struct cg_name *name, uint64_t size)
{
    uint64_t bytes = size;

    if (!is_laid_over(name))
        json_number(info, "allocated", &bytes);
    return bytes < size ? bytes : size - CG_SECTOR;
}

static int file_stat(struct cg_fs *fs, const struct cg_name *name, struct stat *st,
                     struct cg_error *err)
{
    CG_CLEANUP(cg_json_cleanup) json_t *info = NULL;
    char path[CG_NAME_MAX];
    struct cg_space *space;
    uint64_t size = 0, made = 0;
    time_t written = 0;
    bool head = name->space != CG_NAME_BACKUPS && !name->snapshot[0];

    cg_name_text(name, false, path);
    int r = cg_gateway_space(fs->gateway, name, &space, err);
    if (r == 0)
        r = cg_space_info(space, name, &info, err);
    if (r < 0)
        return r;
    if (!cg_opens_find(fs->opens, path, &size, &written)) {
        if (is_laid_over(name))
            r = opened_size(fs, name, &size, err);
        else if (!json_number(info, "size", &size))
            r = cg_error_say(err, EIO, "%s: its size is unknown", path);
    }
    if (r < 0)
        return r;
    common_stat(fs, name, st);
    st->st_mode = S_IFREG | (head && !fs->read_only ? 0600 : 0400);
    st->st_size = (off_t)size;
    st->st_blocks = (blkcnt_t)(allocated(info, name, size) / 512);
    if (!json_number(info, "time", &made))
        json_number(info, "created", &made);
    set_times(st, written > (time_t)made ? written : (time_t)made);
    return 0;
}

/* Links */

int cg_tree_read_link(struct cg_fs *fs, const struct cg_name *link, char ret[static CG_NAME_MAX],
                      struct cg_error *err)
{
    struct cg_name name = *link;
    struct cg_space *space;
    char path[CG_NAME_MAX];

    int r = cg_gateway_space(fs->gateway, &name, &space, err);
    if (r == 0)
        r = cg_space_resolve(space, &name, err);
    if (r < 0)
        return r;
    cg_name_text(&name, false, path);
    strcpy(ret, strrchr(path, '/') + 1);
    return 0;
}

static int link_stat(struct cg_fs *fs, const struct cg_name *name, struct stat *st,
                     struct cg_error *err)
{
    char target[CG_NAME_MAX];
    int r = cg_tree_read_link(fs, name, target, err);

    if (r < 0)
        return r;
    common_stat(fs, name, st);
    st->st_mode = S_IFLNK | 0777;
    st->st_size = (off_t)strlen(target);
    set_times(st, fs->started);
    return 0;
}

/* All */

static int any_stat(struct cg_fs *fs, const struct cg_name *name, enum cg_node_kind kind,
                    struct stat *st, double *ret_timeout, struct cg_error *err)
{
    bool fixed = kind == CG_NODE_IMAGE && (name->space == CG_NAME_BACKUPS || name->snapshot[0]);

    *ret_timeout = fixed ? TIMEOUT_FIXED : TIMEOUT_CHANGING;
    switch (kind) {
    case CG_NODE_DIRECTORY:
        return directory_stat(fs, name, st, err);
    case CG_NODE_IMAGE:
        return file_stat(fs, name, st, err);
    case CG_NODE_LINK:
        return link_stat(fs, name, st, err);
    }
    return no_such("", err);
}

int cg_tree_stat(struct cg_fs *fs, const struct cg_node *node, struct stat *ret_st,
                 double *ret_timeout, struct cg_error *err)
{
    return any_stat(fs, &node->name, node->kind, ret_st, ret_timeout, err);
}

/* What tells an image from another that has its name later on; none where the space can't say. */
static int identify(struct cg_fs *fs, const struct cg_name *name, struct cg_identity *ret,
                    struct cg_error *err)
{
    struct cg_space *space;

    *ret = (struct cg_identity){ 0 };
    int r = cg_gateway_space(fs->gateway, name, &space, err);
    if (r == 0)
        r = cg_space_identify(space, name, ret, err);
    return r == -ENOTSUP ? 0 : r;
}

int cg_tree_look_up(struct cg_fs *fs, const struct cg_name *dir, const char *text,
                    struct cg_tree_item *ret, struct cg_error *err)
{
    struct cg_tree_item item = { 0 };
    int r = child_name(dir, text, &item.name, err);

    if (r < 0)
        return r;
    if (item.name.parts < parts_of_file(item.name.space))
        item.kind = CG_NODE_DIRECTORY;
    else
        item.kind = is_latest(&item.name) ? CG_NODE_LINK : CG_NODE_IMAGE;
    if (item.kind == CG_NODE_IMAGE)
        r = identify(fs, &item.name, &item.identity, err);
    if (r == 0)
        r = any_stat(fs, &item.name, item.kind, &item.st, &item.timeout, err);
    /* An RBD pool holds images and namespaces. */
    if (r == -ENOENT && item.name.space == CG_NAME_RBD && item.name.parts == 2 &&
        !item.name.snapshot[0] && !item.name.partition) {
        item.kind = CG_NODE_DIRECTORY;
        item.identity = (struct cg_identity){ 0 };
        r = any_stat(fs, &item.name, item.kind, &item.st, &item.timeout, err);
    }
    if (r == 0)
        *ret = item;
    return r;
}

void cg_tree_list_free(struct cg_tree_list *list)
{
    if (!list)
        return;
    for (size_t i = 0; i < list->count; i++)
        free(list->v[i].text);
    free(list->v);
    free(list);
}

struct listing {
    const struct cg_name *dir;
    struct cg_tree_list *list;
};

static int keep_entry(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct listing *l = opaque;
    struct cg_tree_list *list = l->list;
    struct cg_name name;
    char path[CG_NAME_MAX];

    struct cg_tree_entry *v = cg_array_room(list->v, list->count, &list->allocated, sizeof *v);
    if (!v)
        return cg_error_set(err, ENOMEM, "list a directory");
    list->v = v;
    if (child_name(l->dir, entry->name, &name, err) < 0)
        return 0; /* couldn't be looked up */
    struct cg_tree_entry *e = &list->v[list->count];
    e->text = strdup(entry->name);
    if (!e->text)
        return cg_error_set(err, ENOMEM, "list a directory");
    e->number = cg_nodes_number(cg_name_text(&name, false, path));
    e->kind =
        entry->directory ? CG_NODE_DIRECTORY : (is_latest(&name) ? CG_NODE_LINK : CG_NODE_IMAGE);
    list->count++;
    return 0;
}

int cg_tree_list(struct cg_fs *fs, const struct cg_name *dir, struct cg_tree_list **ret_list,
                 struct cg_error *err)
{
    struct listing l = { .dir = dir, .list = calloc(1, sizeof *l.list) };

    if (!l.list)
        return cg_error_set(err, ENOMEM, "list a directory");
    int r = cg_gateway_list(fs->gateway, dir, keep_entry, &l, err);
    if (r < 0) {
        cg_tree_list_free(l.list);
        return r;
    }
    *ret_list = l.list;
    return 0;
}
