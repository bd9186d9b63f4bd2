#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/attachment.h"
#include "cli/cli.h"
#include "cli/hooks.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"

int cli_init(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "repository", required_argument, NULL, 'R' },
                                             { 0 } };
    const char *repository = NULL;
    char absolute[PATH_MAX];

    CLI_ARGS(options, cli_keep_value, &repository, 0, 0);
    if (repository && repository[0] != '/' && !strstr(repository, "://")) {
        CG_CLEANUP(cg_free) char *cwd = realpath(".", NULL);
        if (!cwd || (size_t)snprintf(absolute, sizeof absolute, "%s/%s", cwd, repository) >=
                        sizeof absolute) {
            cg_error_set(&cli->err, cwd ? ENAMETOOLONG : errno, "repository %s", repository);
            return cli_failed(cli);
        }
        repository = absolute;
    }
    if (cg_gateway_init(cli->root, repository, &cli->err) < 0)
        return cli_failed(cli);
    return CLI_OK;
}

int cli_create(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "size", required_argument, NULL, 's' }, { 0 } };
    const char *size_text = NULL;
    struct cg_space *space;
    struct cg_name name;
    uint64_t size;

    CLI_ARGS(options, cli_keep_value, &size_text, 1, 1);
    if (!size_text)
        return cli_misused("create", "create needs --size");
    if (cg_size_parse_image(size_text, &size, &cli->err) < 0)
        return cli_misused("create", "%s", cli->err.message);
    if (cli_whole_name(cli, argv[optind], &name, &space) < 0 ||
        cg_space_create(space, &name, size, size, &cli->err) < 0)
        return cli_failed(cli);
    return CLI_OK;
}

/* A clone that stands on too many others is flattened, or goes. */
static int flatten_deep(struct cli *cli, struct cg_space *space, const struct cg_name *name,
                        const char *text)
{
    if (!cli->quiet)
        fprintf(stderr, "flattened: %s would stand on more than %d images\n", text, CG_DEPTH_MAX);
    const struct cg_progress *p = cli_progress_begin(cli, "flatten");
    int r = cg_space_flatten(space, name, 0, p->report, p->opaque, &cli->err);
    cli_progress_end();
    if (r < 0)
        cg_space_remove(space, name, 0, NULL);
    return r;
}

/* Where no clone can be laid over parent, for which cli->err has the reason, a copy is made, which
 * takes its time. */
static int copy_instead(struct cli *cli, const char *parent, const char *text)
{
    if (!cli->quiet)
        fprintf(stderr, "copied: %s\n", cli->err.message);
    int r = cli_import_image(cli, parent, text);
    cli_progress_end();
    return r;
}

int cli_clone(struct cli *cli, int argc, char **argv)
{
    struct cg_space *space;
    struct cg_name name;

    CLI_ARGS(NULL, NULL, NULL, 2, 2);
    const char *parent = argv[optind], *text = argv[optind + 1];
    CG_CLEANUP(cg_free) char *full = NULL;
    int misused = cli_refuse_stream("clone", parent);
    if (misused)
        return misused;
    if (cg_arg_kind(parent) == CG_ARG_PATH) {
        full = realpath(parent, NULL);
        if (!full) {
            cg_error_set(&cli->err, errno, "open %s", parent);
            return cli_failed(cli);
        }
        if (cli_check_utf8(cli, full) < 0)
            return cli_failed(cli);
        parent = full;
    }
    int r = cli_whole_name(cli, text, &name, &space);
    if (r == 0)
        r = cg_space_clone(space, parent, &name, &cli->err);
    if (r == -EXDEV)
        r = copy_instead(cli, parent, text);
    else if (r > 0)
        r = flatten_deep(cli, space, &name, text);
    return r < 0 ? cli_failed(cli) : CLI_OK;
}

static int set_hook(void *opaque, int option, const char *value)
{
    cli_hooks_set(opaque, option, value);
    return 0;
}

/* Parses the names of snapshots, which are to be in one space.  0, or an exit status. */
static int snapshot_names(struct cli *cli, char **text, size_t count, struct cg_name *names,
                          struct cg_space **ret_space)
{
    struct cg_space *space = NULL, *first = NULL;

    for (size_t i = 0; i < count; i++) {
        if (cli_whole_name(cli, text[i], &names[i], &space) < 0)
            return cli_failed(cli);
        if (!names[i].snapshot[0])
            return cli_misused("snapshot", "%s names no snapshot: write %s@NAME", text[i], text[i]);
        if (cg_name_own_snapshot(names[i].snapshot))
            return cli_misused("snapshot",
                               "%s: snapshots of this form are made and deleted by backups and "
                               "clones: take another name",
                               text[i]);
        if (first && space != first)
            return cli_misused("snapshot",
                               "%s and %s are in different spaces, which have no moment in common: "
                               "snapshot them one by one",
                               text[0], text[i]);
        first = space;
    }
    *ret_space = space;
    return 0;
}

int cli_snapshot(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { CLI_HOOKS_OPTIONS, { 0 } };
    struct cli_hooks hooks = { .freeze = NULL };
    struct cg_space *space = NULL;
    struct cg_error why;

    CLI_ARGS(options, set_hook, &hooks, 1, -1);
    size_t count = (size_t)(argc - optind);
    CG_CLEANUP(cg_free) struct cg_name *names = calloc(count, sizeof *names);
    hooks.names = argv + optind; /* which end with a NULL */
    if (!names) {
        cg_error_set(&cli->err, ENOMEM, "snapshot");
        return cli_failed(cli);
    }
    int failed = snapshot_names(cli, argv + optind, count, names, &space);
    if (failed)
        return failed;
    int r = cli_hooks_begin(&hooks, &cli->err);
    if (r == 0)
        r = cg_space_snapshot(space, names, count, &cli->err);
    if (r < 0)
        failed = cli_failed(cli);
    if (cli_hooks_end(&hooks, r == 0, &why) < 0) {
        cli->err = why;
        failed = cli_failed(cli);
    }
    return failed;
}

int cli_rollback(struct cli *cli, int argc, char **argv)
{
    struct cg_space *space;
    struct cg_name name;

    CLI_ARGS(NULL, NULL, NULL, 1, 1);
    if (cli_whole_name(cli, argv[optind], &name, &space) < 0)
        return cli_failed(cli);
    if (!name.snapshot[0])
        return cli_misused("rollback", "%s names no snapshot", argv[optind]);
    if (cli_refuse_attached(cli, &name) < 0 || cg_space_rollback(space, &name, &cli->err) < 0)
        return cli_failed(cli);
    return CLI_OK;
}

int cli_resize(struct cli *cli, int argc, char **argv)
{
    struct cg_space *space;
    struct cg_name name;
    uint64_t size;

    CLI_ARGS(NULL, NULL, NULL, 2, 2);
    if (cg_size_parse_image(argv[optind + 1], &size, &cli->err) < 0)
        return cli_misused("resize", "%s", cli->err.message);
    if (cli_whole_name(cli, argv[optind], &name, &space) < 0 ||
        cg_space_resize(space, &name, size, &cli->err) < 0)
        return cli_failed(cli);
    return CLI_OK;
}

int cli_rename(struct cli *cli, int argc, char **argv)
{
    struct cg_space *space, *to_space;
    struct cg_name from, to;

    CLI_ARGS(NULL, NULL, NULL, 2, 2);
    if (cli_whole_name(cli, argv[optind], &from, &space) < 0 ||
        cli_whole_name(cli, argv[optind + 1], &to, &to_space) < 0)
        return cli_failed(cli);
    if (space != to_space)
        return cli_misused("rename", "%s and %s are in different spaces", argv[optind],
                           argv[optind + 1]);
    if (cg_space_rename(space, &from, &to, &cli->err) < 0)
        return cli_failed(cli);
    return CLI_OK;
}

/* What is left of an import or restore goes where there is nothing else of its name. */
static int remove_draft(struct cg_space *space, const struct cg_name *name, struct cg_error *err)
{
    struct cg_name draft = *name;
    struct cg_error why;

    draft.draft = true;
    int r = cg_space_remove(space, &draft, 0, &why);
    if (r == 0 || r == -ENOENT)
        return r;
    *err = why;
    return r;
}

/* A volume found no room for giving room back, and has a little now. */
static bool found_spare(struct cli *cli, const struct cg_name *name, int r)
{
    return (r == -ENOSPC || r == -EDQUOT) && name->space == CG_NAME_VOLUMES &&
           cg_gateway_use_spare(cli->gateway);
}

/* The snapshot is gone; what only it needed takes longer. */
static int reclaim(struct cli *cli, struct cg_space *space, const struct cg_name *name,
                   const char *text)
{
    const struct cg_progress *p = cli_progress_begin(cli, "give back space");
    int r;
    do
        r = cg_space_reclaim(space, name, p->report, p->opaque, &cli->err);
    while (found_spare(cli, name, r));
    cli_progress_end();
    if (r == 1 && !cli->quiet)
        fprintf(stderr,
                "%s is deleted; its space is given back when another snapshot is deleted after "
                "those have closed the volume who have it open\n",
                text);
    return r < 0 ? cg_error_prefix(&cli->err, r, "%s is deleted, but its space is not given back",
                                   text)
                 : 0;
}

int cli_delete(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "snapshots", no_argument, NULL, 'S' }, { 0 } };
    struct cg_space *space;
    struct cg_name name;
    bool snapshots = false;

    CLI_ARGS(options, cli_set_flag, &snapshots, 1, 1);
    if (cli_whole_name(cli, argv[optind], &name, &space) < 0 ||
        (!name.snapshot[0] && cli_refuse_attached(cli, &name) < 0))
        return cli_failed(cli);
    int r;
    do
        r = cg_space_remove(space, &name, snapshots ? CG_REMOVE_SNAPSHOTS : 0, &cli->err);
    while (found_spare(cli, &name, r));
    if (r == -ENOENT && name.space != CG_NAME_BACKUPS && !name.snapshot[0])
        r = remove_draft(space, &name, &cli->err);
    if (r == -ENOTEMPTY)
        r = cg_error_say(&cli->err, ENOTEMPTY,
                         "%s has snapshots: delete them first, or all at once with --snapshots",
                         argv[optind]);
    if (r == 0 && name.snapshot[0])
        r = reclaim(cli, space, &name, argv[optind]);
    return r < 0 ? cli_failed(cli) : CLI_OK;
}

int cli_flatten(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "rate", required_argument, NULL, 'r' }, { 0 } };
    const char *rate_text = NULL;
    struct cg_space *space;
    struct cg_name name;
    uint64_t rate = 0;

    CLI_ARGS(options, cli_keep_value, &rate_text, 1, 1);
    if (rate_text && cg_size_parse(rate_text, &rate, &cli->err) < 0)
        return cli_misused("flatten", "%s", cli->err.message);
    if (cli_whole_name(cli, argv[optind], &name, &space) < 0)
        return cli_failed(cli);
    cli_give_way();
    const struct cg_progress *p = cli_progress_begin(cli, "flatten");
    int r = cg_space_flatten(space, &name, rate, p->report, p->opaque, &cli->err);
    cli_progress_end();
    if (r < 0)
        return cli_failed(cli);
    if (r == 1 && !cli->quiet)
        fprintf(stderr,
                "%s is independent, but what it stood on is held until those have closed it who "
                "read it since before\n",
                argv[optind]);
    return CLI_OK;
}
