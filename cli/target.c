#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/attachment.h"
#include "cli/target.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/image/file.h"

static int stop_at_data(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    (void)opaque;
    (void)err;
    return extent->type == CG_DATA ? 1 : 0;
}

void cli_tail_kept(const char *target, const char *source)
{
    fprintf(stderr, "%s is larger than the %s: what lies behind its end was left as it is\n",
            target, source);
}

/* 1 if the image surely reads as zeros, 0 if not, or a failure. */
static int reads_as_zeros(struct cg_image *image, struct cg_error *err)
{
    int r = cg_image_walk(image, 0, cg_image_size(image), stop_at_data, NULL, err);

    return r < 0 ? r : !r;
}

static int set_fresh(struct cli *cli, struct cli_target *t)
{
    int r = reads_as_zeros(t->image, &cli->err);

    t->fresh = r > 0;
    return r < 0 ? r : 0;
}

int cli_target_new_volume(struct cli *cli, const char *text, uint64_t size, uint64_t original_size,
                          bool reuse, struct cli_target *ret)
{
    struct cli_target t = { .fd = -1 };
    struct cg_identity id;

    int r = cli_whole_name(cli, text, &t.name, &t.space);
    if (r < 0)
        return r;
    if (t.name.snapshot[0])
        return cg_error_say(&cli->err, EINVAL, "%s names a snapshot; name a volume", text);
    cli_catch_interrupts(); /* what is made from here on is taken away again */
    r = cg_space_identify(t.space, &t.name, &id, &cli->err);
    if (r == 0)
        return cg_error_say(&cli->err, EEXIST, "%s exists already", text);
    if (r != -ENOENT)
        return r;
    t.name.draft = true;
    if (!reuse) {
        r = cg_space_remove(t.space, &t.name, 0, &cli->err);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    bool left = cg_space_identify(t.space, &t.name, &id, &cli->err) == 0;
    r = cg_space_create(t.space, &t.name, size, original_size, &cli->err);
    if (r < 0)
        return r;
    r = cg_space_open(t.space, &t.name, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &t.image, &cli->err);
    if (r == 0 && cg_image_size(t.image) != size) { /* another command's, made in its place */
        cg_image_unref(t.image);
        return cg_error_say(&cli->err, EBUSY, "%s is being made by another process", text);
    }
    if (r == 0)
        r = set_fresh(cli, &t);
    if (r < 0)
        return cli_target_finish(cli, &t, r, left);
    *ret = t;
    return 0;
}

/* True if path is the open file fd, and a plain file of ours that has no other name. */
static bool is_ours(int fd, const char *path)
{
    struct stat open, named;

    return fstat(fd, &open) == 0 && lstat(path, &named) == 0 && S_ISREG(named.st_mode) &&
           open.st_dev == named.st_dev && open.st_ino == named.st_ino && named.st_nlink == 1 &&
           named.st_uid == geteuid();
}

/* Opens the unfinished file and locks it.  Whoever had it before may have finished it meanwhile:
 * only what still has the name under the lock is it. */
static int open_partial(const char *path, int *ret_fd, struct cg_error *err)
{
    for (unsigned i = 0; i < 100; i++) {
        CG_CLEANUP(cg_close)
        int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (fd < 0)
            return cg_error_set(err, errno, "create %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
            return errno == EWOULDBLOCK
                       ? cg_error_say(err, EBUSY, "%s is being written by somebody else", path)
                       : cg_error_set(err, errno, "lock %s", path);
        struct stat st;
        if (lstat(path, &st) < 0 && errno == ENOENT)
            continue;
        if (!is_ours(fd, path))
            return cg_error_say(err, EEXIST,
                                "%s is in the way: it isn't an unfinished file of ours", path);
        *ret_fd = fd;
        fd = -1;
        return 0;
    }
    return cg_error_say(err, EBUSY, "%s keeps going away", path);
}

static int fill_new_file(struct cli *cli, struct cli_target *t, uint64_t size)
{
    int r = open_partial(t->partial, &t->fd, &cli->err);
    if (r < 0)
        return r;
    if (ftruncate(t->fd, (off_t)size) < 0)
        return cg_error_set(&cli->err, errno, "make %s of %llu bytes", t->partial,
                            (unsigned long long)size);
    int fd = fcntl(t->fd, F_DUPFD_CLOEXEC, 0); /* has the lock too */
    if (fd < 0)
        return cg_error_set(&cli->err, errno, "open %s", t->partial);
    r = cg_file_adopt(fd, t->partial, &t->image, &cli->err);
    if (r < 0) {
        close(fd);
        return r;
    }
    return set_fresh(cli, t);
}

/* The names of a new file. */
static int begin_new_file(struct cli *cli, const char *path, bool replace, struct cli_target *t)
{
    struct stat st;

    /* Now rather than when all is copied. */
    if (!replace && lstat(path, &st) == 0)
        return cg_error_say(&cli->err, EEXIST, "%s %s", path,
                            S_ISLNK(st.st_mode) ? "is a symbolic link to nothing" : "exists");
    *t = (struct cli_target){ .path = strdup(path), .fd = -1, .replace = replace };
    if (t->path && asprintf(&t->partial, "%s.cowgate-partial", path) >= 0) {
        cli_catch_interrupts();
        return 0;
    }
    free(t->path);
    return cg_error_set(&cli->err, ENOMEM, "write %s", path);
}

int cli_target_new_file(struct cli *cli, const char *path, uint64_t size, bool replace,
                        struct cli_target *ret)
{
    struct cli_target t;
    int r = begin_new_file(cli, path, replace, &t);

    if (r < 0)
        return r;
    r = fill_new_file(cli, &t, size);
    if (r < 0)
        return cli_target_finish(cli, &t, r, false);
    *ret = t;
    return 0;
}

int cli_target_new_stream(struct cli *cli, const char *path, bool replace, struct cli_target *ret)
{
    struct cli_target t;
    int r = begin_new_file(cli, path, replace, &t);

    if (r < 0)
        return r;
    r = open_partial(t.partial, &t.fd, &cli->err);
    if (r == 0 && ftruncate(t.fd, 0) < 0)
        r = cg_error_set(&cli->err, errno, "truncate %s", t.partial);
    if (r < 0)
        return cli_target_finish(cli, &t, r, false);
    *ret = t;
    return 0;
}

int cli_target_existing(struct cli *cli, const char *text, struct cli_target *ret)
{
    struct cli_target t = { .fd = -1 };
    struct cg_name name;
    int r = 0;

    if (cg_arg_kind(text) == CG_ARG_NAME && cg_name_parse(text, &name, NULL) == 0)
        r = cli_refuse_attached(cli, &name);
    if (r == 0)
        r = cg_gateway_open_any(cli->gateway, text, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &t.image,
                                &cli->err);

    if (r < 0)
        return r;
    if (cg_image_read_only(t.image)) {
        cg_image_unref(t.image);
        return cg_error_say(&cli->err, EROFS, "%s can't be written", text);
    }
    *ret = t;
    return 0;
}

/* Renames from to a name that nobody has; -1 with errno, EEXIST if somebody does.  NFS and many
 * FUSE file systems can't do that in one step, but a hard link is as exclusive; where there are
 * none either (FAT), somebody who takes the name in this very moment loses it. */
static int rename_new(const char *from, const char *to)
{
    struct stat st;

    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
        return -1;
    if (link(from, to) == 0)
        return unlink(from);
    if (errno != EPERM && errno != ENOSYS && errno != ENOTSUP)
        return -1;
    if (lstat(to, &st) == 0)
        errno = EEXIST;
    return errno == ENOENT ? rename(from, to) : -1;
}

/* Gives a new file its name, durably. */
static int publish_file(struct cli *cli, const struct cli_target *t)
{
    CG_CLEANUP(cg_free) char *copy = strdup(t->path);

    if (!copy)
        return cg_error_set(&cli->err, ENOMEM, "rename %s", t->partial);
    if (!is_ours(t->fd, t->partial))
        return cg_error_say(&cli->err, ESTALE, "%s was replaced by somebody else", t->partial);
    int r = t->replace ? rename(t->partial, t->path) : rename_new(t->partial, t->path);
    if (r < 0)
        return cg_error_set(&cli->err, errno, "rename %s to %s", t->partial, t->path);
    return cg_dir_sync(AT_FDCWD, dirname(copy), &cli->err);
}

int cli_target_finish(struct cli *cli, struct cli_target *t, int result, bool keep)
{
    struct cg_name final = t->name;

    final.draft = false;
    if (result == 0 && t->image)
        result = cg_image_flush(t->image, &cli->err);
    else if (result == 0 && fsync(t->fd) < 0)
        result = cg_error_set(&cli->err, errno, "write %s", t->partial);
    /* While it's still open and so locked: nobody else can make it theirs. */
    if (result == 0 && t->space)
        result = cg_space_rename(t->space, &t->name, &final, &cli->err);
    else if (result == 0 && t->path)
        result = publish_file(cli, t);
    if (result < 0 && !keep && t->partial && t->fd >= 0 && is_ours(t->fd, t->partial))
        unlink(t->partial);
    cg_image_unref(t->image);
    if (result < 0 && !keep && t->space)
        cg_space_remove(t->space, &t->name, 0, NULL); /* the first failure is what counts */
    if (t->fd >= 0)
        close(t->fd);
    free(t->path);
    free(t->partial);
    return result;
}
