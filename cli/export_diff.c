#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/target.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/jobs/export_diff.h"

static int find_point(struct cli *cli, const char *text, struct cg_name *ret)
{
    struct cg_space *space;
    int r = cli_whole_name(cli, text, ret, &space);

    if (r == 0 && ret->space != CG_NAME_BACKUPS)
        return cg_error_say(&cli->err, EINVAL,
                            "%s is no point: --diff-from is for backups/PROJECT/VOLUME/POINT",
                            text);
    return r < 0 ? r : cg_space_resolve(space, ret, &cli->err);
}

/* A whole name, or a POINT of the same volume. */
static int find_from(struct cli *cli, const char *text, const struct cg_name *to,
                     struct cg_name *ret)
{
    char whole[CG_NAME_MAX];

    if (!strchr(text, '/')) {
        snprintf(whole, sizeof whole, "backups/%s/%s/%.*s", to->part[0], to->part[1], CG_PART_MAX,
                 text);
        text = whole;
    }
    return find_point(cli, text, ret);
}

struct diff {
    const struct cg_name *from, *to;
    struct cg_export_diff_result result;
};

static int write_to(struct cli *cli, struct diff *d, int fd)
{
    struct cg_repository *repository;

    int r = cg_gateway_repository(cli->gateway, &repository, &cli->err);
    if (r == 0)
        r = cg_export_diff(repository, d->from, d->to, fd, cli_progress_begin(cli, "export"),
                           &d->result, &cli->err);
    cli_progress_end();
    return r;
}

/* To standard output, a file under its name when it's complete, or into a pipe or device. */
static int write_diff(struct cli *cli, struct diff *d, const char *dest, bool force)
{
    struct cli_target target;
    struct stat st;

    if (strcmp(dest, "-") == 0)
        return write_to(cli, d, STDOUT_FILENO);
    if (cg_arg_kind(dest) != CG_ARG_PATH)
        return cg_error_say(&cli->err, EINVAL, "%s is no file: write ./%s, or -", dest, dest);
    bool there = stat(dest, &st) == 0;
    if (there && !S_ISREG(st.st_mode)) {
        CG_CLEANUP(cg_close) int fd = open(dest, O_WRONLY | O_CLOEXEC);
        return fd < 0 ? cg_error_set(&cli->err, errno, "open %s", dest) : write_to(cli, d, fd);
    }
    if (there && !force)
        return cg_error_say(&cli->err, EEXIST, "%s exists: use --force to replace it", dest);
    int r = cli_target_new_stream(cli, dest, force, &target);
    return r < 0 ? r : cli_target_finish(cli, &target, write_to(cli, d, target.fd), false);
}

int cli_export_diff(struct cli *cli, const char *point, const char *from, const char *dest,
                    bool force)
{
    struct cg_name a, b;
    struct diff d = { .from = &a, .to = &b };
    char data[CG_SIZE_TEXT], zeroed[CG_SIZE_TEXT];

    int r = find_point(cli, point, &b);
    if (r == 0)
        r = find_from(cli, from, &b, &a);
    if (r == 0)
        r = write_diff(cli, &d, dest, force);
    if (r < 0)
        return r;
    cg_size_text(data, d.result.bytes_data);
    cg_size_text(zeroed, d.result.bytes_zeroed);
    if (!cli->quiet)
        fprintf(stderr, "from %s to %s: %" PRIu64 " chunks differ, %s of data, %s made zeros\n",
                a.part[2], b.part[2], d.result.chunks, data, zeroed);
    return 0;
}
