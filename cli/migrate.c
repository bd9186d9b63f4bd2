#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cli/migrate_check.h"
#include "cli/migrate_inside.h"
#include "cli/migrate_server.h"
#include "core/base/cleanup.h"
#include "core/jobs/migrate_spec.h"

enum { SERVE = 256, LISTEN, CERTIFICATES, VERIFY_PEER, INSECURE, ADVERTISE, STREAM, SNAPSHOTS };

static const struct option prepare_options[] = {
    { "serve", no_argument, NULL, SERVE },
    { "listen", required_argument, NULL, LISTEN },
    { "tls-certificates", required_argument, NULL, CERTIFICATES },
    { "tls-verify-peer", no_argument, NULL, VERIFY_PEER },
    { "insecure", no_argument, NULL, INSECURE },
    { "advertise", required_argument, NULL, ADVERTISE },
    { "stream", required_argument, NULL, STREAM },
    { "snapshots", no_argument, NULL, SNAPSHOTS },
    { 0 },
};

static int set_prepare(void *opaque, int option, const char *value)
{
    struct cli_migrate_options *o = opaque;

    switch (option) {
    case SERVE:
        o->serve = true;
        break;
    case LISTEN:
        o->listen = value;
        break;
    case CERTIFICATES:
        o->certificates = value;
        break;
    case VERIFY_PEER:
        o->verify_peer = true;
        break;
    case INSECURE:
        o->insecure = true;
        break;
    case ADVERTISE:
        o->advertise = value;
        break;
    case STREAM:
        o->stream = value;
        if (strcmp(value, "nbd") && strcmp(value, "file"))
            return cli_misused("migrate", "--stream is nbd or file, not '%s'", value);
        break;
    default:
        o->snapshots = true;
    }
    return 0;
}

/* What needs the options of prepare; always: it serves by itself where nobody else is said to. */
static int prepare_args(struct cli *cli, int argc, char **argv, bool always,
                        struct cli_migrate_options *ret)
{
    struct cg_error err;
    int r = cli_args(argc, argv, prepare_options, set_prepare, ret, 2, 2);

    if (r)
        return r;
    if (strcmp(argv[optind], "-") == 0)
        return cli_refuse_stream("migrate", "-");
    if (ret->advertise && !cg_migrate_stream(ret->advertise, &err))
        return cli_misused("migrate", "--advertise: %s", err.message);
    if (cli_gateway(cli) < 0)
        return cli_failed(cli);
    ret->explicit_advertise = ret->advertise;
    if (!ret->advertise)
        ret->advertise = ret->serve || ret->listen ? NULL : cg_gateway_advertise(cli->gateway);
    if (always && !ret->advertise)
        ret->serve = true;
    if ((ret->listen || ret->certificates || ret->insecure) && !ret->serve)
        return cli_misused("migrate", "--listen, --tls-certificates and --insecure are for the "
                                      "server that --serve starts");
    if (ret->verify_peer && !ret->certificates)
        return cli_misused("migrate", "--tls-verify-peer is for --tls-certificates");
    return 0;
}

static const char *state_text(const struct cg_migration_record *record, int r,
                              const struct cg_migration_status *status)
{
    if (record->phase == CG_MIGRATION_ABORTING)
        return "aborting";
    if (record->phase == CG_MIGRATION_PREPARING)
        return "preparing";
    if (cli_migrate_is_gone(r))
        return "gone";
    if (r < 0)
        return "unknown";
    switch (status->state) {
    case CG_MIGRATION_NONE:
        return record->phase == CG_MIGRATION_COMMITTING ? "committing" : "committed";
    case CG_MIGRATION_PREPARED:
        return "prepared";
    case CG_MIGRATION_EXECUTING:
        return "executing";
    case CG_MIGRATION_EXECUTED:
        return record->phase == CG_MIGRATION_COMMITTING ? "committing" : "executed";
    default:
        return "unsettled";
    }
}

/* What is known of one migration. */
static json_t *describe(struct cli *cli, const struct cg_name *target,
                        const struct cg_migration_record *record)
{
    struct cg_migration_status status = { 0 };
    struct cg_error err = { "" };
    struct cg_space *space;
    char dir[PATH_MAX];
    json_t *images = json_array();

    int r = cg_gateway_space(cli->gateway, target, &space, &err) < 0
                ? -EIO
                : cli_migrate_look_at(space, target, record, &status, &err);
    bool runs = cg_migration_dir(cg_gateway_root(cli->gateway), target, dir, NULL) == 0 &&
                cli_migrate_server_runs(dir);
    for (size_t i = 0; i < record->count; i++)
        json_array_append_new(images, json_string(record->image[i].name));
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:o,s:b,s:b,s:s,s:s}", "target", record->target,
                     "source", record->source, "state", state_text(record, r, &status), "stream",
                     record->stream, "address", record->address, "uuid", record->uuid, "images",
                     images, "own_server", record->own, "server_runs", runs, "spec",
                     record->spec ? record->spec : "", "description",
                     r < 0 && r != -ENOENT ? err.message : status.description);
}

/* One whose record can't be read hides no other. */
static json_t *describe_damaged(const struct cg_name *target, const struct cg_error *err)
{
    char text[CG_NAME_MAX];

    return json_pack("{s:s,s:s,s:s}", "target", cg_name_text(target, true, text), "state",
                     "damaged", "description", err->message);
}

static const char *text_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static void print_status(const json_t *json)
{
    const char *description = text_of(json, "description");

    if (strcmp(text_of(json, "state"), "damaged") == 0) {
        printf("%s  damaged  (%s)\n", text_of(json, "target"), description);
        return;
    }
    printf("%s  %s  from %s by %s%s%s%s%s\n", text_of(json, "target"), text_of(json, "state"),
           text_of(json, "source"),
           *text_of(json, "address") ? text_of(json, "address") : "nothing yet",
           json_is_true(json_object_get(json, "own_server")) &&
                   !json_is_true(json_object_get(json, "server_runs"))
               ? " (its server doesn't run)"
               : "",
           description && *description ? " (" : "", description ? description : "",
           description && *description ? ")" : "");
}

struct statuses {
    struct cli *cli;
    json_t *array;
};

static int add_status(void *opaque, const struct cg_name *target, struct cg_error *err)
{
    struct statuses *s = opaque;
    struct cg_migration_record record;
    int r = cg_migration_read(cg_gateway_root(s->cli->gateway), target, &record, err);

    if (r == -ENOENT) /* it has just ended */
        return 0;
    json_t *json = r < 0 ? describe_damaged(target, err) : describe(s->cli, target, &record);
    if (r == 0)
        cg_migration_record_clear(&record);
    return json_array_append_new(s->array, json) == 0 ? 0
                                                      : cg_error_set(err, ENOMEM, "describe it");
}

static int status(struct cli *cli, int argc, char **argv)
{
    struct cg_space *space;
    struct cg_name name;
    size_t i;
    json_t *json;
    int r;

    CLI_ARGS(NULL, NULL, NULL, 0, 1);
    struct statuses s = { .cli = cli, .array = json_array() };
    if (optind < argc) {
        r = cli_whole_name(cli, argv[optind], &name, &space);
        if (r == 0)
            r = add_status(&s, &name, &cli->err);
        if (r == 0 && json_array_size(s.array) == 0)
            r = cg_error_say(&cli->err, ENOENT, "there is no migration into %s", argv[optind]);
    } else {
        r = cli_gateway(cli);
        if (r == 0)
            r = cg_migration_list(cg_gateway_root(cli->gateway), add_status, &s, &cli->err);
    }
    if (r < 0) {
        json_decref(s.array);
        return cli_failed(cli);
    }
    if (cli->json)
        return cli_print_json(cli, s.array);
    json_array_foreach (s.array, i, json)
        print_status(json);
    json_decref(s.array);
    return CLI_OK;
}

/* Closes the migration after a step; what it is by now, if that was asked for. */
static int done(struct cli_migration *mi, int r)
{
    if (r < 0) {
        cli_migration_close(mi);
        return cli_failed(mi->cli);
    }
    json_t *json = mi->cli->json ? describe(mi->cli, &mi->target, &mi->m->record) : NULL;

    cli_migration_close(mi);
    return mi->cli->json ? cli_print_json(mi->cli, json) : CLI_OK;
}

/* Prepares what the arguments say.  0: it's open; else as prepare_args. */
static int begin(struct cli *cli, int argc, char **argv, bool always,
                 struct cli_migrate_options *ret_options, struct cli_migration *ret)
{
    int r = prepare_args(cli, argc, argv, always, ret_options);

    if (r == 0 && cli_migration_prepare(cli, argv[optind], argv[optind + 1], ret_options, ret) < 0)
        return cli_failed(cli);
    return r;
}

static int prepare(struct cli *cli, int argc, char **argv)
{
    struct cli_migrate_options o = { 0 };
    struct cli_migration mi;
    int r = begin(cli, argc, argv, false, &o, &mi);

    if (r)
        return r < 0 ? CLI_OK : r;
    if (!cli->quiet)
        fprintf(stderr, "%s is usable now; fill it with 'cowgate migrate execute %s'\n",
                argv[optind + 1], argv[optind + 1]);
    if (!o.serve)
        return done(&mi, 0);
    return cli_migration_stay(&mi) < 0 ? cli_failed(cli) : CLI_OK;
}

static int one_step(struct cli *cli, int argc, char **argv, int (*step)(struct cli_migration *))
{
    struct cli_migration mi;

    CLI_ARGS(NULL, NULL, NULL, 1, 1);
    int r = cli_migration_open(cli, argv[optind], &mi);
    if (r == 0)
        r = step(&mi);
    return done(&mi, r);
}

static int execute(struct cli *cli, int argc, char **argv)
{
    return one_step(cli, argc, argv, cli_migration_execute);
}

static int commit(struct cli *cli, int argc, char **argv)
{
    return one_step(cli, argc, argv, cli_migration_commit);
}

static int abort_it(struct cli *cli, int argc, char **argv)
{
    return one_step(cli, argc, argv, cli_migration_abort);
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_migrate_options o = { 0 };
    struct cli_migration mi;
    int r = begin(cli, argc, argv, true, &o, &mi);

    if (r)
        return r < 0 ? CLI_OK : r;
    if (!cli->quiet)
        fprintf(stderr, "%s is usable now, and is being filled\n", argv[optind + 1]);
    r = cli_migration_execute(&mi);
    if (r == 0 && cli_interrupted())
        r = cg_error_say(&cli->err, ECANCELED,
                         "interrupted: %s is filled; 'cowgate migrate commit %s' lets go of the "
                         "source",
                         mi.m->record.target, mi.m->record.target);
    if (r == 0)
        r = cli_migration_commit(&mi);
    return done(&mi, r);
}

/* A spec is read again and again: what it is of must stay as it is. */
static int check_constant(struct cli *cli, const char *text)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_space *space;
    struct cg_name name;

    int r = cli_name(cli, text, &name, &space);
    if (r == 0)
        r = cg_gateway_open(cli->gateway, &name, CG_OPEN_READ, &image, &cli->err);
    if (r == 0 && name.space != CG_NAME_BACKUPS && !name.snapshot[0])
        return cg_error_say(&cli->err, EINVAL,
                            "%s can be written meanwhile: name a snapshot of it, or say 'cowgate "
                            "migrate prepare', which takes one",
                            text);
    return r;
}

struct spec_options {
    bool native;
    const char *advertise, *cluster, *client;
};

enum { NATIVE = 256, SPEC_ADVERTISE, CLUSTER, CLIENT };

static const struct option spec_options[] = {
    { "native", no_argument, NULL, NATIVE },
    { "advertise", required_argument, NULL, SPEC_ADVERTISE },
    { "cluster", required_argument, NULL, CLUSTER },
    { "client", required_argument, NULL, CLIENT },
    { 0 },
};

static int set_spec(void *opaque, int option, const char *value)
{
    struct spec_options *o = opaque;

    if (option == NATIVE)
        o->native = true;
    else if (option == SPEC_ADVERTISE)
        o->advertise = value;
    else if (option == CLUSTER)
        o->cluster = value;
    else
        o->client = value;
    return 0;
}

static int refuse_change(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    (void)extent;
    return cg_error_say(err, EINVAL,
                        "%s has been written since: Ceph would copy what it is now, not the "
                        "snapshot; name a snapshot of a clone, or say 'cowgate migrate prepare'",
                        (const char *)opaque);
}

/* librbd reads the snapshot while it prepares, but then copies the image as it is at that moment
 * (tracker.ceph.com, 67401), of whichever snapshot the spec is. */
static int check_unwritten(struct cli *cli, char *text)
{
    struct cg_space *space;
    struct cg_name snapshot, head;

    int r = check_constant(cli, text);
    if (r == 0)
        r = cli_name(cli, text, &snapshot, &space);
    head = snapshot;
    head.snapshot[0] = '\0';
    if (r == 0)
        r = cg_space_diff(space, &snapshot, &head, refuse_change, text, &cli->err);
    return r;
}

/* What Ceph reads by itself.  Another cluster's images are out of reach here. */
static int native_spec(struct cli *cli, char *text, const struct spec_options *o)
{
    struct cg_space *space;
    struct cg_name name;
    json_t *json;

    int r = cli_name(cli, text, &name, &space);
    if (r == 0)
        r = cg_migrate_native_spec(&name, o->cluster, o->client, &json, &cli->err);
    if (r < 0)
        return cli_failed(cli);
    if (!o->cluster && check_unwritten(cli, text) < 0) {
        json_decref(json);
        return cli_failed(cli);
    }
    if (!cli->quiet)
        fprintf(stderr,
                "cowgate: warning: nobody may write to the image itself until the commit: Ceph "
                "copies what it is by then, not the snapshot\n");
    return cli_print_json(cli, json);
}

static int spec(struct cli *cli, int argc, char **argv)
{
    struct spec_options o = { 0 };
    struct cg_migration_record record = { .count = 1 };
    struct cg_migration_image image = { .snapshot = "" };
    struct cg_error err;
    json_t *json;

    CLI_ARGS(spec_options, set_spec, &o, 1, 1);
    if (o.native && o.advertise)
        return cli_misused("migrate", "--native needs nobody who serves: leave --advertise out");
    if (!o.native && (o.cluster || o.client))
        return cli_misused("migrate", "--cluster and --client are for --native");
    if (o.native)
        return native_spec(cli, argv[optind], &o);
    const char *advertise = o.advertise;
    const char *stream = advertise ? cg_migrate_stream(advertise, &err) : "";
    if (!stream)
        return cli_misused("migrate", "--advertise: %s", err.message);
    int r = cli_gateway(cli);
    if (r == 0)
        r = check_constant(cli, argv[optind]);
    if (r == 0 && !advertise) {
        advertise = cg_gateway_advertise(cli->gateway);
        if (!advertise)
            return cli_misused("migrate", "where is it served? Say --advertise nbd://HOST:PORT or "
                                          "the directory of a mount");
        stream = cg_migrate_stream(advertise, &cli->err);
        r = stream ? 0 : -EINVAL;
    }
    if (r < 0)
        return cli_failed(cli);
    snprintf(image.name, sizeof image.name, "%s", argv[optind]);
    snprintf(record.address, sizeof record.address, "%s", advertise);
    snprintf(record.stream, sizeof record.stream, "%s", stream);
    record.image = &image;
    r = cli_migrate_check(cli, &record);
    if (r == 0)
        r = cg_migrate_spec(advertise, &image, 1, &json, &cli->err);
    if (r < 0)
        return cli_failed(cli);
    if (cg_migrate_is_local(advertise) && !cli->quiet)
        fprintf(stderr, "cowgate: warning: only this host reaches %s\n", advertise);
    return cli_print_json(cli, json);
}

int cli_migrate(struct cli *cli, int argc, char **argv)
{
    static const struct {
        const char *name;
        cli_fn *fn;
    } steps[] = {
        { "spec", spec },     { "prepare", prepare }, { "execute", execute }, { "status", status },
        { "commit", commit }, { "abort", abort_it },  { "run", run },
    };
    const char *name = argc > 1 ? argv[1] : NULL;

    if (name && strcmp(name, "--help") == 0)
        return status(cli, argc, argv); /* of any step the usage is all of it */
    for (size_t i = 0; name && i < sizeof steps / sizeof *steps; i++) {
        if (strcmp(steps[i].name, name) == 0) {
            argv[1] = argv[0]; /* the usage is that of migrate */
            return steps[i].fn(cli, argc - 1, argv + 1);
        }
    }
    return name ? cli_misused("migrate", "migrate has no step '%s'", name)
                : cli_misused("migrate", "which step?");
}
