/* restore --live: a volume is a clone of the point, usable at once, that lets go of it when it's
 * filled; an RBD image is migrated from the point. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/migrate.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"

struct live {
    struct cg_name point, target;
    char point_text[CG_NAME_MAX];
    char identity[CG_NAME_MAX]; /* of the point */
    struct cg_space *space;     /* of the target */
    bool resumed;
};

static int find_point(struct cli *cli, const char *text, struct live *l)
{
    struct cg_space *space;
    int r = cli_whole_name(cli, text, &l->point, &space);

    if (r == 0 && l->point.space != CG_NAME_BACKUPS)
        return cg_error_say(&cli->err, EINVAL, "%s is no point: write backups/PROJECT/VOLUME/POINT",
                            text);
    if (r == 0)
        r = cg_gateway_identify(cli->gateway, &l->point, l->identity, &cli->err);
    if (r == 0)
        cg_name_text(&l->point, false, l->point_text);
    return r;
}

static int find_target(struct cli *cli, const char *text, struct live *l)
{
    int r = cg_arg_kind(text) == CG_ARG_NAME ? cli_whole_name(cli, text, &l->target, &l->space)
                                             : -EINVAL;

    if (r == 0 && (l->target.space == CG_NAME_BACKUPS || *l->target.snapshot))
        r = -EINVAL;
    else if (r < 0 && cg_arg_kind(text) == CG_ARG_NAME)
        return r;
    return r < 0 ? cg_error_say(&cli->err, EINVAL,
                                "restore --live makes a volume or an RBD image, not %s", text)
                 : 0;
}

static bool is_text(const json_t *object, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(object, key));

    return value && strcmp(value, text) == 0;
}

/* An earlier run made it, and it still needs the point. */
static bool goes_on(const struct live *l, const json_t *info)
{
    const json_t *parent = json_object_get(info, "parent");

    if (is_text(info, "held", l->point_text))
        return true;
    return is_text(parent, "name", l->point_text) && is_text(parent, "identity", l->identity);
}

static int make_target(struct cli *cli, const char *text, struct live *l)
{
    CG_CLEANUP(cg_json_cleanup) json_t *info = NULL;
    int r = cg_space_info(l->space, &l->target, &info, &cli->err);

    if (r == -ENOENT)
        return cg_space_clone(l->space, l->point_text, &l->target, &cli->err);
    if (r < 0)
        return r;
    l->resumed = goes_on(l, info);
    if (!l->resumed)
        return cg_error_say(&cli->err, EEXIST, "%s exists, and doesn't stand on %s", text,
                            l->point_text);
    return 0;
}

static void say_usable(struct cli *cli, const char *text, const struct live *l)
{
    if (!cli->quiet)
        fprintf(stderr, "%s is usable now; filling it from %s\n", text, l->point_text);
}

static void say_needed(struct cli *cli, const char *text, const struct live *l)
{
    if (!cli->quiet)
        fprintf(stderr, "%s stays usable, and needs %s: run the same command again to go on\n",
                text, l->point_text);
}

static int fill(struct cli *cli, const char *text, struct live *l, uint64_t rate)
{
    say_usable(cli, text, l);
    cli_give_way();
    const struct cg_progress *p = cli_progress_begin(cli, "restore");
    int r = cg_space_flatten(l->space, &l->target, rate, p->report, p->opaque, &cli->err);
    cli_progress_end();
    if (r < 0)
        say_needed(cli, text, l);
    return r;
}

static int live_volume(struct cli *cli, const char *text, struct live *l, uint64_t rate)
{
    int r = make_target(cli, text, l);

    return r == 0 ? fill(cli, text, l, rate) : r;
}

/* True if an earlier run was killed when all that was left to do was to end it. */
static bool is_committing(struct cli *cli, const char *text, struct live *l,
                          struct cli_migration *mi)
{
    if (cli_migration_open(cli, text, mi) < 0)
        return false;
    l->resumed = strcmp(mi->m->record.source, l->point_text) == 0;
    if (l->resumed && mi->m->record.phase == CG_MIGRATION_COMMITTING)
        return true;
    cli_migration_close(mi);
    return false;
}

static int live_rbd(struct cli *cli, const char *text, struct live *l)
{
    const struct cli_migrate_options o = { .serve = true };
    struct cli_migration mi;
    int r = 0;

    if (!is_committing(cli, text, l, &mi)) {
        r = cli_migration_prepare(cli, l->point_text, text, &o, &mi);
        if (r < 0)
            return r;
        say_usable(cli, text, l);
        r = cli_migration_execute(&mi);
    }
    if (r == 0)
        r = cli_migration_commit(&mi);
    cli_migration_close(&mi);
    if (r < 0)
        say_needed(cli, text, l);
    return r;
}

int cli_restore_live(struct cli *cli, const char *point, const char *target, uint64_t rate)
{
    struct live l = { .resumed = false };
    int r = find_point(cli, point, &l);

    if (r == 0)
        r = find_target(cli, target, &l);
    if (r == 0 && l.target.space == CG_NAME_RBD && rate)
        return cli_misused("restore", "--rate is for volumes: Ceph fills its images by itself");
    if (r == 0)
        r = l.target.space == CG_NAME_RBD ? live_rbd(cli, target, &l)
                                          : live_volume(cli, target, &l, rate);
    if (r < 0)
        return cli_failed(cli);
    if (cli->json)
        return cli_print_json(cli, json_pack("{s:s,s:s,s:b,s:b}", "point", l.point_text, "target",
                                             target, "resumed", l.resumed, "held", r == 1));
    if (!cli->quiet && r == 1)
        fprintf(stderr,
                "%s has everything, but %s is held until those have closed it who read it since "
                "before\n",
                target, l.point_text);
    else if (!cli->quiet)
        fprintf(stderr, "%s has everything: it doesn't need %s any more\n", target, l.point_text);
    return CLI_OK;
}
