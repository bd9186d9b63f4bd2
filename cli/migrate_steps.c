#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/migrate.h"
#include "cli/migrate_check.h"
#include "cli/migrate_server.h"
#include "core/base/cleanup.h"
#include "core/jobs/migrate_spec.h"

void cli_migration_close(struct cli_migration *mi)
{
    cg_migration_close(mi->m);
    mi->m = NULL;
}

/* Finds the spaces of the target and of what the record reads. */
static int find_spaces(struct cli_migration *mi)
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
        r = find_spaces(ret);
    if (r < 0)
        cli_migration_close(ret);
    return r;
}

/* As an argument may be written down: a path absolute. */
static int canonical(struct cli *cli, const char *source, char ret[static CG_NAME_MAX])
{
    struct cg_name name;

    if (cg_arg_kind(source) == CG_ARG_PATH) {
        CG_CLEANUP(cg_free) char *full = realpath(source, NULL);
        if (!full)
            return cg_error_set(&cli->err, errno, "open %s", source);
        source = full;
        if (strlen(full) < CG_NAME_MAX)
            strcpy(ret, full);
    } else if (strlen(source) < CG_NAME_MAX) {
        strcpy(ret, source);
    }
    if (strlen(source) >= CG_NAME_MAX)
        return cg_error_set(&cli->err, ENAMETOOLONG, "%.100s…", source);
    if (cg_arg_kind(ret) == CG_ARG_NAME)
        return cg_name_parse(ret, &name, &cli->err);
    return cli_check_utf8(cli, ret);
}

/* The stream, and where it is served from. */
static int choose_stream(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    const char *stream = o->stream;

    record->own = o->serve;
    snprintf(record->listen, sizeof record->listen, "%s", o->listen ? o->listen : "");
    snprintf(record->certificates, sizeof record->certificates, "%s",
             o->certificates ? o->certificates : "");
    record->insecure = o->insecure;
    if (o->advertise)
        stream = cg_migrate_stream(o->advertise, err);
    else if (!stream)
        stream = cg_space_migrate_stream(mi->space, &mi->target, "nbd", err) == 0 ? "nbd" : "file";
    if (!stream)
        return -EINVAL;
    if (o->stream && strcmp(stream, o->stream))
        return cg_error_say(err, EINVAL, "%s is no address of a stream over %s", o->advertise,
                            o->stream);
    int r = cg_space_migrate_stream(mi->space, &mi->target, stream, err);
    if (r < 0)
        return r;
    snprintf(record->stream, sizeof record->stream, "%s", stream);
    if (o->listen && strcmp(stream, "nbd"))
        return cg_error_say(err, ENOTSUP,
                            "this host's librbd reads streams from files only, so that a server "
                            "that listens is of no use: mount the root on each host that opens %s, "
                            "and give --advertise DIR",
                            record->target);
    if (!o->advertise)
        return cli_migrate_server_address(record, stream, record->address, err);
    snprintf(record->address, sizeof record->address, "%s", o->advertise);
    return 0;
}

/* Whether the new image is there, and how far; -ENOENT. */
static int look(const struct cli_migration *mi, struct cg_migration_status *ret)
{
    return cg_space_migrate_status(mi->space, &mi->target, ret, &mi->cli->err);
}

/* An image that is there without being filled may be what a prepare left that was killed in
 * between: then it has never been written. */
static int remove_leftover(struct cli_migration *mi)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_error *err = &mi->cli->err;
    struct cg_extents e;

    int r = cg_space_open(mi->space, &mi->target, CG_OPEN_READ, &image, err);
    if (r < 0)
        return r;
    cg_extents_init(&e, 0, cg_image_size(image), 1);
    while (r == 0 && e.next < cg_image_size(image)) {
        r = cg_image_extents(image, &e, err);
        if (r == 0 && e.v[0].type != CG_HOLE)
            r = cg_error_say(err, EEXIST, "%s exists, and has data", mi->m->record.target);
        uint64_t next = e.next;
        cg_extents_clear(&e);
        cg_extents_init(&e, next, cg_image_size(image), 1);
    }
    cg_extents_clear(&e);
    cg_image_unref(image);
    image = NULL;
    return r < 0 ? r : cg_space_remove(mi->space, &mi->target, 0, err);
}

/* Makes the new image, whatever an earlier try did of it. */
static int make_target(struct cli_migration *mi, const char *spec)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;
    bool same = record->spec && strcmp(record->spec, spec) == 0;

    int r = look(mi, &status);
    if (r == 0 && !record->spec) /* it has come since this migration began */
        return cg_error_say(err, EEXIST, "%s exists already", record->target);
    if (r == 0 && status.state == CG_MIGRATION_NONE)
        r = remove_leftover(mi);
    else if (r == 0 && (!same || status.state == CG_MIGRATION_UNSETTLED))
        r = cg_space_migrate_step(mi->space, &mi->target, CG_MIGRATION_ABORT, NULL, NULL, err);
    else if (r == 0)
        return 0;
    if (r < 0 && r != -ENOENT)
        return r;
    free(record->spec);
    record->spec = strdup(spec);
    if (!record->spec)
        return cg_error_set(err, ENOMEM, "prepare %s", record->target);
    r = cg_migration_save(mi->m, err);
    return r < 0 ? r : cg_space_migrate_prepare(mi->space, &mi->target, spec, err);
}

static void say_stream(const struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;

    if (mi->cli->quiet)
        return;
    fprintf(stderr, "%s reads from %s by the stream %s, %s\n", record->target, record->source,
            record->stream, record->address);
    if (cg_migrate_is_local(record->address))
        fprintf(stderr,
                "cowgate: warning: only this host reaches that address: until the commit nobody "
                "on another can open %s (see --listen and --advertise)\n",
                record->target);
}

static int make_ready(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    json_t *json;

    int r = choose_stream(mi, o);
    if (r == 0)
        r = cg_migration_keep(mi->m, &mi->spaces, err);
    if (r == 0)
        r = cg_migration_save(mi->m, err);
    if (r == 0 && record->own)
        r = cli_migrate_server_start(mi->cli, mi->m);
    if (r == 0)
        r = cli_migrate_check(mi->cli, record);
    if (r == 0)
        r = cg_migrate_spec(record->address, record->image, record->count, &json, err);
    if (r < 0)
        return r;
    CG_CLEANUP(cg_free) char *spec = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(json);
    r = spec ? make_target(mi, spec) : cg_error_set(err, ENOMEM, "prepare %s", record->target);
    if (r < 0)
        return r;
    record->phase = CG_MIGRATION_READY;
    r = cg_migration_save(mi->m, err);
    if (r == 0)
        say_stream(mi);
    return r;
}

/* Takes back all that was done, as far as the new image isn't there; keeps the message. */
static void undo(struct cli_migration *mi)
{
    struct cg_error *err = &mi->cli->err, why = *err;
    struct cg_migration_status status;

    if (look(mi, &status) == -ENOENT || !mi->m->record.spec) {
        int r = cli_migrate_server_stop(mi->m, err);
        if (r == 0)
            r = cg_migration_release(mi->m, &mi->spaces, err);
        if (r == 0)
            cg_migration_end(mi->m, err);
    }
    *err = why;
}

static int going_on(struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;

    if (record->phase == CG_MIGRATION_COMMITTING || record->phase == CG_MIGRATION_ABORTING)
        return cg_error_say(
            &mi->cli->err, EBUSY,
            "the migration into %s was being %s: say 'cowgate migrate %s %s' to "
            "end that",
            record->target, record->phase == CG_MIGRATION_ABORTING ? "aborted" : "committed",
            record->phase == CG_MIGRATION_ABORTING ? "abort" : "commit", record->target);
    return record->own ? cli_migrate_server_start(mi->cli, mi->m) : 0;
}

int cli_migration_prepare(struct cli *cli, const char *source, const char *target,
                          const struct cli_migrate_options *o, struct cli_migration *ret)
{
    struct cg_migration_status status;
    char text[CG_NAME_MAX];

    *ret = (struct cli_migration){ .cli = cli };
    int r = canonical(cli, source, text);
    if (r == 0)
        r = cli_whole_name(cli, target, &ret->target, &ret->space);
    if (r == 0)
        r = cg_migration_begin(cg_gateway_root(cli->gateway), &ret->target, text, o->snapshots,
                               &ret->m, &cli->err);
    if (r < 0)
        return r;
    r = find_spaces(ret);
    if (r == 0 && ret->m->begun) {
        r = look(ret, &status);
        r = r == 0         ? cg_error_say(&cli->err, EEXIST, "%s exists already", target)
            : r == -ENOENT ? 0
                           : r;
    }
    if (r == 0 && ret->m->record.phase == CG_MIGRATION_PREPARING)
        r = make_ready(ret, o);
    else if (r == 0)
        r = going_on(ret);
    if (r < 0 && ret->m->record.phase == CG_MIGRATION_PREPARING)
        undo(ret);
    if (r < 0)
        cli_migration_close(ret);
    return r;
}

/* librbd counts what the person knows as bytes. */
struct scale {
    const struct cg_progress *progress;
    uint64_t size;
};

static int report(void *opaque, uint64_t done, uint64_t total)
{
    const struct scale *s = opaque;
    double share = total ? (double)done / (double)total : 1;

    return s->progress->report(s->progress->opaque, (uint64_t)(share * (double)s->size), s->size);
}

static int step(struct cli_migration *mi, enum cg_migration_step step, const char *what)
{
    struct scale s = { .progress = cli_progress_begin(mi->cli, what) };
    int r = cli_migrate_size(mi->cli, &mi->m->record, &s.size);

    if (r == 0)
        r = cg_space_migrate_step(mi->space, &mi->target, step, report, &s, &mi->cli->err);
    cli_progress_end();
    return r;
}

int cli_migration_execute(struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;

    int r = going_on(mi);
    if (r == 0 && record->phase == CG_MIGRATION_PREPARING)
        r = cg_error_say(err, EAGAIN, "%s isn't prepared yet: say 'cowgate migrate prepare' again",
                         record->target);
    if (r == 0)
        r = look(mi, &status);
    if (r < 0)
        return r;
    if (status.state == CG_MIGRATION_EXECUTED || status.state == CG_MIGRATION_NONE)
        return 0;
    r = step(mi, CG_MIGRATION_EXECUTE, "migrate");
    if (r == 0)
        return 0;
    struct cg_error why = *err;
    return cg_error_say(err, -r, "%.800s; 'cowgate migrate execute %.100s' goes on", why.message,
                        record->target);
}

/* A file has no holes for librbd. */
static bool reads_holes_as_data(const struct cg_migration_record *record)
{
    const char *name = record->image[record->count - 1].name;
    size_t len = strlen(name);

    return strcmp(record->stream, "file") == 0 &&
           (len < 6 || strcmp(name + len - 6, ".qcow2") != 0);
}

/* The cluster's part is done. */
static int finish(struct cli_migration *mi)
{
    struct cg_error *err = &mi->cli->err;
    int r = cli_migrate_server_stop(mi->m, err);

    if (r == 0)
        r = cg_migration_release(mi->m, &mi->spaces, err);
    return r < 0 ? r : cg_migration_end(mi->m, err);
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
    int r = look(mi, &status);
    if (r == -ENOENT)
        return cg_error_prefix(err, r, "say 'cowgate migrate abort %s' to clean up",
                               record->target);
    if (r == 0 && status.state != CG_MIGRATION_NONE && status.state != CG_MIGRATION_EXECUTED)
        return cg_error_say(err, EINVAL,
                            "%s isn't filled yet: say 'cowgate migrate execute %s' first",
                            record->target, record->target);
    if (r == 0)
        r = set_phase(mi, CG_MIGRATION_COMMITTING);
    if (r == 0 && status.state == CG_MIGRATION_EXECUTED)
        r = step(mi, CG_MIGRATION_COMMIT, "commit");
    if (r == 0 && reads_holes_as_data(record))
        r = step(mi, CG_MIGRATION_SPARSIFY, "sparsify");
    return r < 0 ? r : finish(mi);
}

int cli_migration_abort(struct cli_migration *mi)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;

    if (record->phase == CG_MIGRATION_COMMITTING)
        return cg_error_say(err, EINVAL, "%s is being committed: say 'cowgate migrate commit %s'",
                            record->target, record->target);
    int r = look(mi, &status);
    if (r == 0 && status.state == CG_MIGRATION_NONE && record->phase == CG_MIGRATION_READY)
        return cg_error_say(err, EINVAL,
                            "%s was committed, not by this root: say 'cowgate migrate commit %s'",
                            record->target, record->target);
    if (r < 0 && r != -ENOENT)
        return r;
    bool there = r == 0 && record->spec;
    r = set_phase(mi, CG_MIGRATION_ABORTING);
    if (r == 0 && there && status.state == CG_MIGRATION_NONE)
        r = remove_leftover(mi);
    else if (r == 0 && there)
        r = step(mi, CG_MIGRATION_ABORT, "abort");
    return r < 0 ? r : finish(mi);
}

int cli_migration_stay(struct cli_migration *mi)
{
    const struct timespec pause = { .tv_nsec = 100000000 };
    struct cli *cli = mi->cli;
    char target[CG_NAME_MAX];
    const struct cg_progress *p = cli_progress_begin(cli, NULL);
    CG_CLEANUP(cg_free) char *dir = strdup(mi->m->dir);

    strcpy(target, mi->m->record.target);
    cli_migration_close(mi);
    int r = 0;
    for (bool asked = false; dir && !asked; nanosleep(&pause, NULL)) {
        asked = p->report(p->opaque, 0, 0) != 0;
        if (!asked && cli_migrate_server_runs(dir))
            continue;
        r = cli_migration_open(cli, target, mi);
        if (r != -EBUSY) /* else whoever is at it has ended the server, or is about to start one */
            break;
    }
    cli_progress_end();
    if (!dir || r == -ENOENT) /* committed or aborted */
        return 0;
    if (r == 0)
        r = cli_migrate_server_stop(mi->m, &cli->err);
    cli_migration_close(mi);
    if (r == 0)
        fprintf(stderr,
                "cowgate: nobody serves %s now: what isn't copied yet can't be read; the same "
                "command goes on\n",
                target);
    return r;
}
