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
    CG_CLEANUP(cg_free) char *full = NULL;
    struct cg_name name;

    if (cg_arg_kind(source) == CG_ARG_PATH) {
        full = realpath(source, NULL);
        if (!full)
            return cg_error_set(&cli->err, errno, "open %s", source);
        source = full;
    }
    if (strlen(source) >= CG_NAME_MAX)
        return cg_error_set(&cli->err, ENAMETOOLONG, "%.100s…", source);
    strcpy(ret, source);
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
    if (!o->advertise && o->listen && cg_migrate_is_wildcard(o->listen))
        return cg_error_say(err, EINVAL,
                            "--listen %s: at which of its addresses do others reach this host? Say "
                            "--advertise nbd://HOST:PORT too",
                            o->listen);
    if (!o->advertise)
        return cli_migrate_server_address(record, stream, record->address, err);
    snprintf(record->address, sizeof record->address, "%s", o->advertise);
    return 0;
}

/* How far the new image is; -ENOENT if there is none, -ESTALE if another has its name: see
 * is_gone. */
static int look(const struct cli_migration *mi, struct cg_migration_status *ret)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    int r = cg_space_migrate_status(mi->space, &mi->target, record->spec, ret, err);

    if (r == 0 && record->image_id[0] && strcmp(record->image_id, ret->image_id))
        return cg_error_say(err, ESTALE,
                            "%s is another image by now than the one of this migration",
                            record->target);
    return r;
}

static bool is_gone(int r)
{
    return r == -ENOENT || r == -ESTALE;
}

/* An image that is there without being filled may be what a prepare left that was killed in
 * between: then it has never been written.  -EEXIST: it isn't that. */
static int remove_leftover(struct cli_migration *mi)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_extents e;

    int r = cg_space_open(mi->space, &mi->target, CG_OPEN_READ, &image, err);
    if (r < 0)
        return r;
    uint64_t size = cg_image_size(image), next = 0;
    if (size != record->size)
        r = cg_error_say(err, EEXIST, "%s exists already", record->target);
    while (r == 0 && next < size) {
        cg_extents_init(&e, next, size, 1);
        r = cg_image_extents(image, &e, err);
        if (r == 0 && e.v[0].type != CG_HOLE)
            r = cg_error_say(err, EEXIST, "%s exists already, and has data", record->target);
        next = e.next;
        cg_extents_clear(&e);
    }
    cg_image_unref(image);
    image = NULL;
    return r < 0 ? r : cg_space_remove(mi->space, &mi->target, 0, err);
}

static int abort_image(struct cli_migration *mi)
{
    return cg_space_migrate_step(mi->space, &mi->target, CG_MIGRATION_ABORT, NULL, NULL,
                                 &mi->cli->err);
}

#define FORGET_SECONDS 90
#define LATE_SECONDS 3

/* Whoever died in the middle still counts as having the image open: in Ceph for half a minute. */
static int patiently(struct cli_migration *mi, int (*attempt)(struct cli_migration *mi))
{
    const struct cg_progress *interrupts;
    int r = attempt(mi);

    if (r == -EBUSY && !mi->cli->quiet)
        fprintf(stderr, "cowgate: %s: waiting for that\n", mi->cli->err.message);
    for (unsigned i = 0; r == -EBUSY && i < FORGET_SECONDS; i++) {
        interrupts = cli_progress_begin(mi->cli, NULL);
        if (interrupts->report(interrupts->opaque, 0, 0))
            return r;
        sleep(1);
        r = attempt(mi);
    }
    return r;
}

/* Looks what an earlier try did that was killed.  *ret_there: the new image is there and whole;
 * else there is none. */
static int settle(struct cli_migration *mi, bool *ret_there)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_migration_status status;
    int r = look(mi, &status);

    *ret_there = false;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (record->spec && status.state == CG_MIGRATION_NONE)
        return patiently(mi, remove_leftover);
    if (!status.same)
        return cg_error_say(&mi->cli->err, EEXIST, "%s exists already", record->target);
    if (status.state == CG_MIGRATION_UNSETTLED)
        return patiently(mi, abort_image);
    *ret_there = true;
    return 0;
}

/* True if it's a name that can be written. */
static bool is_head(const char *source)
{
    struct cg_name name;

    return cg_arg_kind(source) == CG_ARG_NAME && cg_name_parse(source, &name, NULL) == 0 &&
           name.space != CG_NAME_BACKUPS && !name.snapshot[0];
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
    if (is_head(record->source))
        fprintf(stderr, "it is migrated as it is now: what is written to %s later stays there\n",
                record->source);
    if (cg_arg_kind(record->source) != CG_ARG_NAME)
        fprintf(stderr, "cowgate: warning: nobody may write to %s before the commit\n",
                record->source);
    if (record->snapshots && strcmp(record->stream, "file") == 0)
        fprintf(stderr, "cowgate: warning: read by that stream each snapshot takes the whole size "
                        "of the image in the cluster, zeros too\n");
}

static int check_interrupt(struct cli_migration *mi)
{
    return cli_interrupted() ? cg_error_say(&mi->cli->err, ECANCELED, "interrupted") : 0;
}

/* All that the new image needs, and then it; there is none yet. */
static int make_image(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    json_t *json;

    int r = cli_migrate_server_stop(mi->m, err); /* it may be to run in another way now */
    if (r == 0)
        r = choose_stream(mi, o);
    if (r == 0)
        r = cg_migration_keep(mi->m, &mi->spaces, err);
    if (r == 0)
        r = cli_migrate_size(mi->cli, record, &record->size);
    if (r == 0)
        r = cli_migrate_check_sizes(mi->cli, record);
    if (r == 0)
        r = cg_migration_save(mi->m, err);
    if (r == 0 && record->own)
        r = cli_migrate_server_start(mi->cli, mi->m);
    if (r == 0)
        r = cli_migrate_check(mi->cli, record);
    if (r == 0)
        r = check_interrupt(mi);
    if (r == 0)
        r = cg_migrate_spec(record->address, record->image, record->count, &json, err);
    if (r < 0)
        return r;
    free(record->spec);
    record->spec = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(json);
    if (!record->spec)
        return cg_error_set(err, ENOMEM, "prepare %s", record->target);
    r = cg_migration_save(mi->m, err);
    return r < 0 ? r : cg_space_migrate_prepare(mi->space, &mi->target, record->spec, err);
}

/* What was asked for in other words than when the migration was begun can't be had any more. */
static int check_same_options(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    const struct cg_migration_record *record = &mi->m->record;

    if ((o->listen && strcmp(o->listen, record->listen)) ||
        (o->advertise && o->explicit_advertise && strcmp(o->advertise, record->address)) ||
        (o->stream && strcmp(o->stream, record->stream)))
        return cg_error_say(&mi->cli->err, EBUSY,
                            "%s was prepared to read from %s: abort that to begin in another way",
                            record->target, record->address);
    return 0;
}

/* The image is there, filled or not: it has to be readable. */
static int serve_again(struct cli_migration *mi, const struct cg_migration_status *status)
{
    bool reads = status->state == CG_MIGRATION_PREPARED || status->state == CG_MIGRATION_EXECUTING;

    return mi->m->record.own && reads ? cli_migrate_server_start(mi->cli, mi->m) : 0;
}

static int make_ready(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_migration_status status;
    bool there, asked = record->spec; /* the cluster for an image, by a try that was killed */

    int r = settle(mi, &there);
    if (r == 0)
        r = there ? check_same_options(mi, o) : make_image(mi, o);
    for (unsigned i = 0; r == -EEXIST && asked && i < LATE_SECONDS; i++) { /* it comes only now */
        sleep(1);
        r = settle(mi, &there);
        if (r == 0 && !there)
            r = make_image(mi, o);
    }
    if (r == 0)
        r = look(mi, &status);
    if (r == 0)
        r = serve_again(mi, &status);
    if (r < 0)
        return r;
    strcpy(record->image_id, status.image_id);
    record->phase = CG_MIGRATION_READY;
    return cg_migration_save(mi->m, &mi->cli->err);
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

/* Takes back all that a prepare did that failed, unless the new image is there, or may be; keeps
 * the message. */
static void undo(struct cli_migration *mi)
{
    struct cg_error why = mi->cli->err;
    struct cg_migration_status status = { 0 };
    int r = look(mi, &status);

    if (is_gone(r) || !mi->m->record.spec || (r == 0 && !status.same))
        finish(mi);
    mi->cli->err = why;
}

/* For what is to be done with an image that was prepared. */
static int going_on(struct cli_migration *mi, struct cg_migration_status *ret)
{
    const struct cg_migration_record *record = &mi->m->record;

    if (record->phase == CG_MIGRATION_ABORTING)
        return cg_error_say(&mi->cli->err, EBUSY,
                            "the migration into %s was being aborted: say 'cowgate migrate abort "
                            "%s' to end that",
                            record->target, record->target);
    int r = look(mi, ret);
    if (is_gone(r))
        return cg_error_prefix(&mi->cli->err, r,
                               "the new image was removed, say 'cowgate migrate abort %s'",
                               record->target);
    return r < 0 ? r : serve_again(mi, ret);
}

int cli_migration_prepare(struct cli *cli, const char *source, const char *target,
                          const struct cli_migrate_options *o, struct cli_migration *ret)
{
    struct cg_migration_status status;
    char text[CG_NAME_MAX];

    cli_catch_interrupts();
    *ret = (struct cli_migration){ .cli = cli };
    int r = canonical(cli, source, text);
    if (r == 0)
        r = cli_whole_name(cli, target, &ret->target, &ret->space);
    if (r == 0)
        r = cg_migration_begin(cg_gateway_root(cli->gateway), &ret->target, text, o->snapshots,
                               &ret->m, &cli->err);
    if (r < 0)
        return r;
    bool preparing = ret->m->record.phase == CG_MIGRATION_PREPARING;
    r = find_spaces(ret);
    if (r == 0 && !preparing)
        r = check_same_options(ret, o);
    if (r == 0)
        r = preparing ? make_ready(ret, o) : going_on(ret, &status);
    if (r == 0)
        say_stream(ret);
    else if (preparing)
        undo(ret);
    if (r < 0)
        cli_migration_close(ret);
    return r;
}

/* What is left of an execute that didn't get to its end. */
static int not_filled(struct cli_migration *mi, int r)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error why = mi->cli->err;

    return cg_error_say(&mi->cli->err, -r,
                        "%.500s; it can be used as it is%s: 'cowgate migrate execute %s' goes on, "
                        "'cowgate migrate abort %s' takes it back",
                        why.message,
                        !record->own                          ? ""
                        : cli_migrate_server_runs(mi->m->dir) ? ", its server runs on"
                                                              : " when its server runs again",
                        record->target, record->target);
}

/* librbd counts what the person knows as bytes. */
struct scale {
    const struct cg_progress *progress;
    uint64_t size;
    struct cli_migration *interruptible; /* or NULL: it goes to its end */
};

static int report(void *opaque, uint64_t done, uint64_t total)
{
    const struct scale *s = opaque;
    double share = total ? (double)done / (double)total : 1;
    uint64_t bytes = (uint64_t)(share * (double)s->size);

    if (s->progress->report(s->progress->opaque, bytes, s->size) == 0 || !s->interruptible)
        return 0;
    /* librbd can't be told to stop; but it can go on after any end of a process. */
    struct cli_migration *mi = s->interruptible;
    cli_progress_end();
    cg_error_say(&mi->cli->err, ECANCELED, "fill %s: interrupted", mi->m->record.target);
    not_filled(mi, -ECANCELED);
    _exit(cli_failed(mi->cli));
}

static int step(struct cli_migration *mi, enum cg_migration_step step, const char *what)
{
    struct scale s = { .progress = cli_progress_begin(mi->cli, what),
                       .size = mi->m->record.size,
                       .interruptible = step == CG_MIGRATION_EXECUTE ? mi : NULL };
    int r = cg_space_migrate_step(mi->space, &mi->target, step, report, &s, &mi->cli->err);

    cli_progress_end();
    return r;
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
    int r = going_on(mi, &status);
    if (r < 0)
        return r;
    if (status.state == CG_MIGRATION_EXECUTED || status.state == CG_MIGRATION_NONE)
        return 0;
    r = step(mi, CG_MIGRATION_EXECUTE, "migrate");
    return r < 0 ? not_filled(mi, r) : 0;
}

/* A raw file has no holes for librbd, and a qcow2 one of a device or an export only those that it
 * tells. */
static bool reads_holes_as_data(const struct cg_migration_record *record)
{
    const char *name = record->image[record->count - 1].name;
    size_t len = strlen(name);

    return strcmp(record->stream, "file") == 0 &&
           (len < 6 || strcmp(name + len - 6, ".qcow2") != 0 ||
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
    int r = look(mi, &status);
    if (is_gone(r) && record->phase == CG_MIGRATION_COMMITTING) /* as it may be, once it's done */
        return finish(mi);
    if (is_gone(r))
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

static int abort_step(struct cli_migration *mi)
{
    return step(mi, CG_MIGRATION_ABORT, "abort");
}

/* Removes the image if it's the migration's. */
static int take_back(struct cli_migration *mi, const struct cg_migration_status *status)
{
    if (status->state != CG_MIGRATION_NONE) /* look has compared the id, if it's known */
        return status->same || mi->m->record.image_id[0] ? patiently(mi, abort_step) : 0;
    if (!mi->m->record.spec)
        return 0;
    int r = patiently(mi, remove_leftover);
    return r == -EEXIST ? 0 : r;
}

int cli_migration_abort(struct cli_migration *mi)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    struct cg_migration_status status;

    int r = look(mi, &status);
    if (r == -ENOENT && record->spec && record->phase == CG_MIGRATION_PREPARING) {
        sleep(1); /* what a try that was killed had asked the cluster for may come late */
        r = look(mi, &status);
    }
    bool gone = is_gone(r);
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
    return r < 0 ? r : finish(mi);
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
