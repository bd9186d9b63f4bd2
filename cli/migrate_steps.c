#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/migrate_inside.h"
#include "cli/migrate_server.h"
#include "core/base/cleanup.h"
#include "core/jobs/migrate_spec.h"

void cli_migration_close(struct cli_migration *mi)
{
    cg_migration_close(mi->m);
    mi->m = NULL;
}

int cli_migrate_find_spaces(struct cli_migration *mi)
{
    const struct cg_name volumes = { .space = CG_NAME_VOLUMES };
    struct cli *cli = mi->cli;
    struct cg_name source;

    int r = cg_gateway_space_below(cli->gateway, &volumes, &mi->spaces.volumes, &cli->err);
    if (r < 0 || cg_arg_kind(mi->m->record.source) != CG_ARG_NAME)
        return r;
    r = cg_name_parse(mi->m->record.source, &source, &cli->err);
    return r < 0 ? r : cg_gateway_space(cli->gateway, &source, &mi->spaces.source, &cli->err);
}

int cli_migration_open(struct cli *cli, const char *target, struct cli_migration *ret)
{
    *ret = (struct cli_migration){ .cli = cli };
    int r = cli_whole_name(cli, target, &ret->target, &ret->space);
    if (r == 0)
        r = cg_migration_open(cg_gateway_root(cli->gateway), &ret->target, &ret->m, &cli->err);
    if (r == 0)
        r = cli_migrate_find_spaces(ret);
    if (r < 0)
        cli_migration_close(ret);
    return r;
}

int cli_migrate_serve_again(struct cli_migration *mi, const struct cg_migration_status *status)
{
    bool reads = status->state == CG_MIGRATION_PREPARED || status->state == CG_MIGRATION_EXECUTING;

    return mi->m->record.own && reads ? cli_migrate_server_start(mi->cli, mi->m) : 0;
}

int cli_migrate_finish(struct cli_migration *mi)
{
    struct cg_error *err = &mi->cli->err;
    int r = cli_migrate_server_stop(mi->m, err);

    if (r == 0)
        r = cg_migration_release(mi->m, &mi->spaces, err);
    return r < 0 ? r : cg_migration_end(mi->m, err);
}

int cli_migrate_going_on(struct cli_migration *mi, struct cg_migration_status *ret)
{
    const struct cg_migration_record *record = &mi->m->record;

    if (record->phase == CG_MIGRATION_ABORTING)
        return cg_error_say(&mi->cli->err, EBUSY,
                            "the migration into %s was being aborted: say 'cowgate migrate abort "
                            "%s' to end that",
                            record->target, record->target);
    int r = cli_migrate_look(mi, ret);
    if (cli_migrate_is_gone(r))
        return cg_error_prefix(&mi->cli->err, r,
                               "the new image was removed, say 'cowgate migrate abort %s'",
                               record->target);
    return r < 0 ? r : cli_migrate_serve_again(mi, ret);
}

int cli_migration_execute(struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;

    if (record->phase == CG_MIGRATION_PREPARING)
        return cg_error_say(err, EAGAIN,
                            "%s isn't prepared yet: say 'cowgate migrate prepare' again",
                            record->target);
    int r = cli_migrate_going_on(mi, &status);
    if (r < 0)
        return r;
    if (status.state == CG_MIGRATION_EXECUTED || status.state == CG_MIGRATION_NONE)
        return 0;
    return cli_migrate_step(mi, CG_MIGRATION_EXECUTE);
}

/* A raw file has no holes for librbd, and a qcow2 one of a device or an export only those that it
 * tells. */
static bool reads_holes_as_data(const struct cg_migration_record *record)
{
    return strcmp(record->stream, "file") == 0 &&
           (!cg_migrate_is_qcow2(record->image[record->count - 1].name) ||
            cg_arg_kind(record->source) != CG_ARG_NAME);
}

static int set_phase(struct cli_migration *mi, enum cg_migration_phase phase)
{
    mi->m->record.phase = phase;
    return cg_migration_save(mi->m, &mi->cli->err);
}

int cli_migration_commit(struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;

    if (record->phase == CG_MIGRATION_PREPARING || record->phase == CG_MIGRATION_ABORTING)
        return cg_error_say(err, EINVAL, "%s isn't prepared: there is nothing to commit",
                            record->target);
    int r = cli_migrate_look(mi, &status);
    if (cli_migrate_is_gone(r) &&
        record->phase == CG_MIGRATION_COMMITTING) /* as it may be, once it's done */
        return cli_migrate_finish(mi);
    if (cli_migrate_is_gone(r))
        return cg_error_prefix(err, r, "say 'cowgate migrate abort %s' to clean up",
                               record->target);
    if (r == 0 && status.state != CG_MIGRATION_NONE && status.state != CG_MIGRATION_EXECUTED)
        return cg_error_say(err, EINVAL,
                            "%s isn't filled yet: say 'cowgate migrate execute %s' first",
                            record->target, record->target);
    if (r == 0)
        r = set_phase(mi, CG_MIGRATION_COMMITTING);
    if (r == 0 && status.state == CG_MIGRATION_EXECUTED)
        r = cli_migrate_step(mi, CG_MIGRATION_COMMIT);
    if (r == 0 && reads_holes_as_data(record))
        r = cli_migrate_step(mi, CG_MIGRATION_SPARSIFY);
    return r < 0 ? r : cli_migrate_finish(mi);
}

/* Removes the image if it's the migration's. */
static int take_back(struct cli_migration *mi, const struct cg_migration_status *status)
{
    if (status->state != CG_MIGRATION_NONE) /* look has compared the id, if it's known */
        return status->same || mi->m->record.image_id[0] ? cli_migrate_remove_image(mi) : 0;
    if (!mi->m->record.spec)
        return 0;
    int r = cli_migrate_remove_leftover(mi);
    return r == -EEXIST ? 0 : r;
}

int cli_migration_abort(struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;

    int r = cli_migrate_look(mi, &status);
    bool gone = cli_migrate_is_gone(r);
    if (r < 0 && !gone)
        return r;
    if (!gone && record->phase == CG_MIGRATION_COMMITTING)
        return cg_error_say(err, EINVAL, "%s is being committed: say 'cowgate migrate commit %s'",
                            record->target, record->target);
    if (!gone && status.state == CG_MIGRATION_NONE && record->phase == CG_MIGRATION_READY)
        return cg_error_say(err, EINVAL,
                            "%s was committed, not by this root: say 'cowgate migrate commit %s'",
                            record->target, record->target);
    r = set_phase(mi, CG_MIGRATION_ABORTING);
    if (r == 0 && !gone)
        r = take_back(mi, &status);
    return r < 0 ? r : cli_migrate_finish(mi);
}

/* What there is to say when the server is found ended, or is to be ended.  -EBUSY: another process
 * is at the migration. */
static int end_of_stay(struct cli_migration *mi, const char *target, bool asked)
{
    struct cli *cli = mi->cli;
    int r = cli_migration_open(cli, target, mi);

    if (r < 0)
        return r == -ENOENT ? 0 : r; /* committed or aborted */
    if (!asked && !cli_migrate_server_runs(mi->m->dir))
        r = cli_migrate_server_died(mi->m->dir, &cli->err);
    struct cg_error why = cli->err;
    int stopped = asked || r < 0 ? cli_migrate_server_stop(mi->m, &cli->err) : -EAGAIN;
    cli_migration_close(mi);
    if (stopped < 0)
        return stopped;
    fprintf(stderr,
            "cowgate: nobody serves %s now: what isn't copied yet can't be read; the same command "
            "goes on\n",
            target);
    cli->err = why;
    return r;
}

int cli_migration_stay(struct cli_migration *mi)
{
    const struct timespec pause = { .tv_nsec = 100000000 };
    CG_CLEANUP(cg_free) char *dir = strdup(mi->m->dir);
    char target[CG_NAME_MAX];
    int r = -EAGAIN;

    if (!dir)
        return cg_error_set(&mi->cli->err, ENOMEM, "wait");
    strcpy(target, mi->m->record.target);
    cli_migration_close(mi);
    while (r == -EAGAIN) {
        bool asked = cli_interrupted();
        if (asked || !cli_migrate_server_runs(dir))
            r = end_of_stay(mi, target, asked);
        if (r == -EBUSY && !asked) /* it has ended the server, or is about to start one */
            r = -EAGAIN;
        nanosleep(&pause, NULL);
    }
    if (r == -EBUSY)
        fprintf(stderr, "cowgate: another process is at %s: its server goes on\n", target);
    return r == -EBUSY ? 0 : r;
}
