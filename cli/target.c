#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    struct cli_target t = { 0 };
    struct cg_identity id;

    int r = cli_whole_name(cli, text, &t.name, &t.space);
    if (r < 0)
        return r;
    if (t.name.snapshot[0])
        return cg_error_say(&cli->err, EINVAL, "%s names a snapshot; name a volume", text);
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
    r = cg_space_create(t.space, &t.name, size, original_size, &cli->err);
    if (r == 0)
        r = cg_space_open(t.space, &t.name, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &t.image, &cli->err);
    if (r == 0)
        r = set_fresh(cli, &t);
    if (r < 0) {
        cg_image_unref(t.image);
        return r;
    }
    *ret = t;
    return 0;
}

int cli_target_new_file(struct cli *cli, const char *path, uint64_t size, struct cli_target *ret)
{
    struct cli_target t = { .path = strdup(path) };

    if (!t.path || asprintf(&t.partial, "%s.cowgate-partial", path) < 0) {
        free(t.path);
        return cg_error_set(&cli->err, ENOMEM, "write %s", path);
    }
    int r = 0;
    CG_CLEANUP(cg_close) int fd = open(t.partial, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        r = cg_error_set(&cli->err, errno, "create %s with %llu bytes", t.partial,
                         (unsigned long long)size);
    if (r == 0)
        r = cg_file_open(t.partial, true, &t.image, NULL, &cli->err);
    if (r == 0)
        r = set_fresh(cli, &t);
    if (r < 0) {
        cg_image_unref(t.image);
        free(t.path);
        free(t.partial);
        return r;
    }
    *ret = t;
    return 0;
}

int cli_target_existing(struct cli *cli, const char *text, struct cli_target *ret)
{
    struct cli_target t = { 0 };
    int r = cg_gateway_open_any(cli->gateway, text, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &t.image,
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

/* Gives a new file its name, durably. */
static int publish_file(struct cli *cli, const struct cli_target *t)
{
    CG_CLEANUP(cg_free) char *copy = strdup(t->path);

    if (!copy)
        return cg_error_set(&cli->err, ENOMEM, "rename %s", t->partial);
    if (rename(t->partial, t->path) < 0)
        return cg_error_set(&cli->err, errno, "rename %s to %s", t->partial, t->path);
    return cg_dir_sync(AT_FDCWD, dirname(copy), &cli->err);
}

int cli_target_finish(struct cli *cli, struct cli_target *t, int result, bool keep)
{
    struct cg_name final = t->name;

    final.draft = false;
    if (result == 0)
        result = cg_image_flush(t->image, &cli->err);
    cg_image_unref(t->image);
    if (result == 0 && t->space)
        result = cg_space_rename(t->space, &t->name, &final, &cli->err);
    else if (result == 0 && t->path)
        result = publish_file(cli, t);
    if (result < 0 && !keep && t->space)
        cg_space_remove(t->space, &t->name, 0, NULL); /* the first failure is what counts */
    else if (result < 0 && !keep && t->partial)
        unlink(t->partial);
    free(t->path);
    free(t->partial);
    return result;
}
