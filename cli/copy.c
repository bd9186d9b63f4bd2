#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/target.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/jobs/copy.h"

int cli_import_image(struct cli *cli, const char *source, const char *volume)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cli_target target;
    int r = cg_gateway_open_any(cli->gateway, source, CG_OPEN_READ, &image, &cli->err);

    if (r < 0)
        return r;
    if (cg_image_size(image) == 0)
        return cg_error_say(&cli->err, EINVAL, "%s is empty: an image has at least 512 bytes",
                            source);
    r = cli_target_new_volume(cli, volume, cg_round_up(cg_image_size(image), CG_SECTOR),
                              cg_image_original_size(image), false, &target);
    if (r < 0)
        return r;
    const struct cg_copy_options options = { .target_is_zero = target.fresh,
                                             .progress = cli_progress_begin(cli, "import") };
    r = cg_copy(image, target.image, &options, &cli->err);
    return cli_target_finish(cli, &target, r, false);
}

/* Some bytes of standard input; 0 at its end; -EAGAIN if there are none for a moment, so that the
 * job can be cancelled. */
static ssize_t read_some(void *buf, size_t len)
{
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };

    if (poll(&in, 1, 100) <= 0)
        return -EAGAIN;
    ssize_t n = read(STDIN_FILENO, buf, len);
    return n < 0 ? -errno : n;
}

/* The input has len bytes.  The last sector may be filled up with zeros, but more that is missing
 * is a sender that failed. */
static int check_end(struct cli *cli, uint64_t len, uint64_t size)
{
    if (cg_round_up(len, CG_SECTOR) == size)
        return 0;
    return cg_error_say(&cli->err, ENODATA,
                        "standard input ended after %llu bytes, before --size (%llu)",
                        (unsigned long long)len, (unsigned long long)size);
}

/* Fills image from a pipe, which has to end with it. */
static int copy_from_pipe(struct cli *cli, struct cg_image *image)
{
    static uint8_t buf[1 << 20];
    uint64_t off = 0, size = cg_image_size(image);
    const struct cg_progress *p = cli_progress_begin(cli, "import");

    for (;;) {
        size_t have = 0;
        ssize_t n;
        do {
            n = read_some(buf + have, sizeof buf - have);
            if (n < 0 && n != -EAGAIN && n != -EINTR)
                return cg_error_set(&cli->err, (int)-n, "read standard input");
            if (n > 0)
                have += (size_t)n;
            if (p->report(p->opaque, off + have, size))
                return cg_error_say(&cli->err, ECANCELED, "interrupted");
        } while (have < sizeof buf && n != 0);
        if (have > size - off)
            return cg_error_say(&cli->err, ENOSPC, "standard input is longer than --size");
        if (!cg_is_zero(buf, have)) {
            int r = cg_image_pwrite(image, buf, have, off, 0, &cli->err);
            if (r < 0)
                return r;
        }
        off += have;
        if (n == 0)
            return check_end(cli, off, size);
    }
}

static int import_pipe(struct cli *cli, uint64_t size, const char *volume)
{
    struct cli_target target;

    int r = cli_target_new_volume(cli, volume, size, size, false, &target);
    if (r < 0)
        return r;
    r = copy_from_pipe(cli, target.image);
    return cli_target_finish(cli, &target, r, false);
}

int cli_import(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "size", required_argument, NULL, 's' }, { 0 } };
    const char *size_text = NULL;
    uint64_t size = 0;

    CLI_ARGS(options, cli_keep_value, &size_text, 2, 2);
    const char *source = argv[optind], *volume = argv[optind + 1];
    bool pipe = strcmp(source, "-") == 0;
    if (pipe && !size_text)
        return cli_misused("import", "standard input has no size of its own: give --size");
    if (!pipe && size_text)
        return cli_misused("import", "--size is only for standard input");
    if (pipe && cg_size_parse_image(size_text, &size, &cli->err) < 0)
        return cli_misused("import", "%s", cli->err.message);
    int r = cli_gateway(cli);
    if (r == 0)
        r = pipe ? import_pipe(cli, size, volume) : cli_import_image(cli, source, volume);
    return r < 0 ? cli_failed(cli) : CLI_OK;
}

static int export_to(struct cli *cli, struct cg_image *image, const char *dest, bool force)
{
    struct cli_target target;
    struct stat st;
    bool path = cg_arg_kind(dest) == CG_ARG_PATH;

    if (path && strcmp(dest, "-") == 0)
        return cg_copy_stream(image, STDOUT_FILENO, cli_progress_begin(cli, "export"), &cli->err);
    if (cg_arg_kind(dest) == CG_ARG_NAME)
        return cg_error_say(&cli->err, EINVAL,
                            "%s is no file: write ./%s, or use import to fill a volume", dest,
                            dest);
    bool there = path && stat(dest, &st) == 0;
    if (there && S_ISREG(st.st_mode) && !force)
        return cg_error_say(&cli->err, EEXIST, "%s exists: use --force to replace it", dest);
    int r;
    if (path && (!there || S_ISREG(st.st_mode))) {
        r = cli_target_new_file(cli, dest, cg_image_size(image), force, &target);
    } else {
        r = cli_target_existing(cli, dest, &target);
        if (r == 0 && cg_image_size(target.image) < cg_image_size(image)) {
            r = cg_error_say(&cli->err, ENOSPC, "%s is smaller (%llu bytes) than the image (%llu)",
                             dest, (unsigned long long)cg_image_size(target.image),
                             (unsigned long long)cg_image_size(image));
            return cli_target_finish(cli, &target, r, true);
        }
    }
    if (r < 0)
        return r;
    bool tail = cg_image_size(target.image) > cg_image_size(image);
    const struct cg_copy_options options = { .target_is_zero = target.fresh,
                                             .progress = cli_progress_begin(cli, "export") };
    r = cg_copy(image, target.image, &options, &cli->err);
    r = cli_target_finish(cli, &target, r, false);
    cli_progress_end();
    if (r == 0 && tail && !cli->quiet)
        cli_tail_kept(dest, "image");
    return r;
}

struct export_args {
    bool force;
    const char *diff_from;
};

static int set_export(void *opaque, int option, const char *value)
{
    struct export_args *a = opaque;

    if (option == 'f')
        a->force = true;
    else
        a->diff_from = value;
    return 0;
}

int cli_export(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "force", no_argument, NULL, 'f' },
                                             { "diff-from", required_argument, NULL, 'd' },
                                             { 0 } };
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct export_args args = { .force = false };

    CLI_ARGS(options, set_export, &args, 2, 2);
    const char *source = argv[optind], *dest = argv[optind + 1];
    int r = cli_refuse_stream("export", source);
    if (r)
        return r;
    r = cli_gateway(cli);
    if (r == 0 && args.diff_from)
        return cli_export_diff(cli, source, args.diff_from, dest, args.force) < 0 ? cli_failed(cli)
                                                                                  : CLI_OK;
    if (r == 0)
        r = cg_gateway_open_any(cli->gateway, source, CG_OPEN_READ, &image, &cli->err);
    if (r == 0)
        r = export_to(cli, image, dest, args.force);
    return r < 0 ? cli_failed(cli) : CLI_OK;
}
