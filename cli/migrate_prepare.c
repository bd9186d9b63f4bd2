#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/migrate_check.h"
#include "cli/migrate_inside.h"
#include "cli/migrate_server.h"
#include "core/base/cleanup.h"
#include "core/jobs/migrate_spec.h"

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

/* The stream that the options ask for, or else the best that this host's librbd can read. */
static int find_stream(const struct cli_migration *mi, const struct cli_migrate_options *o,
                       const char **ret)
{
    struct cg_error *err = &mi->cli->err;

    if (!o->advertise && !o->stream) {
        *ret = "nbd";
        if (cg_space_migrate_stream(mi->space, &mi->target, *ret, err) == 0)
            return 0;
        *ret = "file";
    } else {
        *ret = o->advertise ? cg_migrate_stream(o->advertise, err) : o->stream;
        if (!*ret)
            return -EINVAL;
        if (o->stream && strcmp(*ret, o->stream))
            return cg_error_say(err, EINVAL, "%s is no address of a stream over %s", o->advertise,
                                o->stream);
    }
    return cg_space_migrate_stream(mi->space, &mi->target, *ret, err);
}

/* The stream, and where it is served from. */
static int choose_stream(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;
    const char *stream;

    record->own = o->serve;
    snprintf(record->listen, sizeof record->listen, "%s", o->listen ? o->listen : "");
    snprintf(record->certificates, sizeof record->certificates, "%s",
             o->certificates ? o->certificates : "");
    record->verify_peer = o->verify_peer;
    record->insecure = o->insecure;
    int r = find_stream(mi, o, &stream);
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

/* Looks what an earlier try did that was killed.  *ret_there: the new image is there and whole;
 * else there is none. */
static int settle(struct cli_migration *mi, bool *ret_there)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_migration_status status;
    int r = cli_migrate_look(mi, &status);

    *ret_there = false;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (record->spec && status.state == CG_MIGRATION_NONE)
        return cli_migrate_remove_leftover(mi);
    if (!status.same)
        return cg_error_say(&mi->cli->err, EEXIST, "%s exists already", record->target);
    if (status.state == CG_MIGRATION_UNSETTLED)
        return cli_migrate_remove_image(mi);
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

static int make_ready(struct cli_migration *mi, const struct cli_migrate_options *o)
{
    struct cg_migration_record *record = &mi->m->record;
    struct cg_migration_status status;
    bool there;

    int r = settle(mi, &there);
    if (r == 0)
        r = there ? check_same_options(mi, o) : make_image(mi, o);
    if (r == 0)
        r = cli_migrate_look(mi, &status);
    if (r == 0)
        r = cli_migrate_serve_again(mi, &status);
    if (r < 0)
        return r;
    strcpy(record->image_id, status.image_id);
    record->phase = CG_MIGRATION_READY;
    return cg_migration_save(mi->m, &mi->cli->err);
}

/* Takes back all that a prepare did that failed, unless the new image is there, or may be; keeps
 * the message. */
static void undo(struct cli_migration *mi)
{
    struct cg_error why = mi->cli->err;
    struct cg_migration_status status = { 0 };
    int r = cli_migrate_look(mi, &status);

    if (cli_migrate_is_gone(r) || !mi->m->record.spec || (r == 0 && !status.same))
        cli_migrate_finish(mi);
    mi->cli->err = why;
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
    r = cli_migrate_find_spaces(ret);
    if (r == 0 && !preparing)
        r = check_same_options(ret, o);
    if (r == 0)
        r = preparing ? make_ready(ret, o) : cli_migrate_going_on(ret, &status);
    if (r == 0)
        say_stream(ret);
    else if (preparing)
        undo(ret);
    if (r < 0)
        cli_migration_close(ret);
    return r;
}
