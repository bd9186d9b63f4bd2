#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "cli/hooks.h"
#include "cli/target.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/jobs/backup.h"
#include "core/jobs/restore.h"
#include "core/jobs/verify.h"

struct backup_args {
    bool full;
    const char *rate, *audit;
    struct cli_hooks hooks;
    struct cg_error thaw; /* why it failed; "" if it didn't */
};

static int freeze(void *opaque, struct cg_error *err)
{
    struct backup_args *a = opaque;

    return cli_hooks_begin(&a->hooks, err);
}

static void thaw(void *opaque, bool taken)
{
    struct backup_args *a = opaque;

    cli_hooks_end(&a->hooks, taken, &a->thaw);
}

static int set_backup(void *opaque, int option, const char *value)
{
    struct backup_args *a = opaque;

    if (option == 'f')
        a->full = true;
    else if (option == 'a')
        a->audit = value;
    else if (!cli_hooks_set(&a->hooks, option, value))
        a->rate = value;
    return 0;
}

static bool parse_share(const char *text, double *ret)
{
    char *end;

    *ret = strtod(text, &end);
    return end != text && !*end && *ret >= 0 && *ret <= 1;
}

/* Where the backup goes: what is said, or the volume's own place. */
static int backup_target(struct cli *cli, const char *text, const struct cg_backup_options *o,
                         struct cg_name *ret)
{
    if (text) {
        int r = cg_name_parse_prefix(text, ret, &cli->err);
        if (r == 0 && (ret->space != CG_NAME_BACKUPS || ret->parts != 2))
            return cg_error_say(&cli->err, EINVAL, "%s is no target: write backups/PROJECT/VOLUME",
                                text);
        return r;
    }
    if (!o->space || o->source.space != CG_NAME_VOLUMES)
        return cg_error_say(&cli->err, EINVAL, "say where to: backups/PROJECT/VOLUME");
    *ret = o->source;
    ret->space = CG_NAME_BACKUPS;
    return 0;
}

/* What is backed up: a name whose space can take snapshots, or any image. */
static int backup_source(struct cli *cli, const char *text, struct cg_backup_options *o)
{
    o->source_text = text;
    if (cg_arg_kind(text) != CG_ARG_NAME)
        return cg_gateway_open_any(cli->gateway, text, CG_OPEN_READ, &o->image, &cli->err);
    int r = cli_name(cli, text, &o->source, &o->space);
    if (r < 0 || (!o->source.partition && o->source.space != CG_NAME_BACKUPS))
        return r;
    o->space = NULL;
    return cg_gateway_open(cli->gateway, &o->source, CG_OPEN_READ, &o->image, &cli->err);
}

static json_t *backup_json(const struct cg_backup_result *b)
{
    return json_pack("{s:s,s:b,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "point", b->point,
                     "incremental", b->incremental, "reason", b->reason, "warning", b->warning,
                     "size", (json_int_t)b->size, "bytes_read", (json_int_t)b->bytes_read,
                     "chunks_read", (json_int_t)b->chunks_read, "bytes_audited",
                     (json_int_t)b->bytes_audited, "chunks_audited", (json_int_t)b->chunks_audited,
                     "bytes_stored", (json_int_t)b->bytes_stored, "chunks_stored",
                     (json_int_t)b->chunks_stored, "pages_stored", (json_int_t)b->pages_stored,
                     "chunks_known", (json_int_t)b->chunks_known);
}

static void backup_text(const struct cg_backup_result *b)
{
    char size[CG_SIZE_TEXT], read[CG_SIZE_TEXT], stored[CG_SIZE_TEXT];

    cg_size_text(size, b->size);
    cg_size_text(read, b->bytes_read);
    cg_size_text(stored, b->bytes_stored);
    if (b->chunks_audited)
        fprintf(stderr, "%" PRIu64 " unchanged chunks were audited\n", b->chunks_audited);
    fprintf(stderr,
            "%s%s%s: %s of %s read, %" PRIu64 " chunks stored (%s), %" PRIu64 " known already\n",
            b->incremental ? "incremental" : "full", b->reason[0] ? ", " : "", b->reason, read,
            size, b->chunks_stored, stored, b->chunks_known);
    puts(b->point);
}

static int show_backup(struct cli *cli, const struct cg_backup_result *b)
{
    if (b->warning[0])
        fprintf(stderr, "cowgate: warning: %s\n", b->warning);
    if (cli->json)
        return cli_print_json(cli, backup_json(b));
    if (cli->quiet)
        puts(b->point);
    else
        backup_text(b);
    return CLI_OK;
}

int cli_backup(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "full", no_argument, NULL, 'f' },
                                             { "rate", required_argument, NULL, 'r' },
                                             { "audit", required_argument, NULL, 'a' },
                                             CLI_HOOKS_OPTIONS,
                                             { 0 } };
    struct backup_args args = { 0 };
    struct cg_backup_options o = { .before_snapshot = freeze,
                                   .after_snapshot = thaw,
                                   .snapshot_opaque = &args };
    struct cg_backup_result result;
    struct cg_repository *repository;
    struct cg_name target;

    CLI_ARGS(options, set_backup, &args, 1, 2);
    o.full = args.full;
    if (args.rate && cg_size_parse(args.rate, &o.rate, &cli->err) < 0)
        return cli_misused("backup", "%s", cli->err.message);
    if (args.audit && !parse_share(args.audit, &o.audit))
        return cli_misused("backup", "--audit takes a share from 0 to 1, not '%s'", args.audit);
    int r = cli_refuse_stream("backup", argv[optind]);
    if (r)
        return r;
    r = cli_gateway(cli);
    if (r == 0)
        r = backup_source(cli, argv[optind], &o);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = o.image;
    if (r == 0)
        r = backup_target(cli, optind + 1 < argc ? argv[optind + 1] : NULL, &o, &target);
    if (r == 0)
        r = cg_gateway_repository(cli->gateway, &repository, &cli->err);
    if (r < 0)
        return cli_failed(cli);
    if (!args.audit && o.space)
        o.audit = cg_space_audit(o.space);
    char *names[] = { argv[optind], NULL };
    args.hooks.names = names;
    o.project = target.part[0];
    o.volume = target.part[1];
    o.progress = cli_progress_begin(cli, "backup");
    r = cg_backup(repository, &o, &result, &cli->err);
    cli_progress_end();
    int failed = r < 0 ? cli_failed(cli) : CLI_OK;
    if (args.thaw.message[0]) {
        cli->err = args.thaw;
        failed = cli_failed(cli);
    }
    return r < 0 ? failed : show_backup(cli, &result) ? CLI_FAILED : failed;
}

/* Opens or makes what a point is restored to.  *ret_made: it's new; *ret_space: it's there, under a
 * name of that space. */
static int restore_target(struct cli *cli, const char *text, struct cg_image *point,
                          struct cli_target *ret, bool *ret_made, struct cg_space **ret_space,
                          struct cg_name *ret_name)
{
    uint64_t size = cg_image_size(point);
    struct stat st;

    *ret_made = false;
    *ret_space = NULL;
    if (strcmp(text, "-") == 0)
        return cg_error_say(&cli->err, EINVAL, "to write to standard output use export");
    if (cg_arg_kind(text) == CG_ARG_PATH) {
        *ret_made = stat(text, &st) < 0 && errno == ENOENT;
        return *ret_made ? cli_target_new_file(cli, text, size, false, ret)
                         : cli_target_existing(cli, text, ret);
    }
    if (cg_arg_kind(text) == CG_ARG_URI)
        return cli_target_existing(cli, text, ret);
    struct cg_space *space;
    struct cg_identity id;
    struct cg_name name;
    int r = cli_name(cli, text, &name, &space);
    if (r < 0)
        return r;
    *ret_name = name;
    if (name.snapshot[0] || name.space == CG_NAME_BACKUPS)
        return cg_error_say(&cli->err, EROFS, "%s can't be written; restore to a volume", text);
    r = cg_space_identify(space, &name, &id, &cli->err);
    if (r == -ENOENT && !name.partition) {
        *ret_made = true;
        return cli_target_new_volume(cli, text, size, cg_image_original_size(point), true, ret);
    }
    if (r < 0)
        return r;
    *ret_space = name.partition ? NULL : space;
    return cli_target_existing(cli, text, ret);
}

static void restore_text(const struct cg_restore_result *s, const char *target)
{
    char fetched[CG_SIZE_TEXT], written[CG_SIZE_TEXT], skipped[CG_SIZE_TEXT];

    cg_size_text(fetched, s->bytes_fetched);
    cg_size_text(written, s->bytes_written);
    cg_size_text(skipped, s->bytes_skipped);
    if (s->distrust[0])
        fprintf(stderr, "all of %s was read, since %s\n", target, s->distrust);
    fprintf(stderr, "%s: %s fetched, %s written, %s was right already\n", target, fetched, written,
            skipped);
    if (s->tail_kept)
        cli_tail_kept(target, "point");
}

static json_t *restore_json(const struct cg_restore_result *s, const char *point,
                            const char *target)
{
    return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:b}", "point", point, "target", target,
                     "bytes_read", (json_int_t)s->bytes_read, "bytes_skipped",
                     (json_int_t)s->bytes_skipped, "bytes_trusted", (json_int_t)s->bytes_trusted,
                     "bytes_fetched", (json_int_t)s->bytes_fetched, "bytes_written",
                     (json_int_t)s->bytes_written, "chunks_fetched", (json_int_t)s->chunks_fetched,
                     "distrust", s->distrust, "tail_kept", s->tail_kept);
}

/* The point, with latest resolved, open. */
static int restore_point(struct cli *cli, const char *text, struct cg_name *ret,
                         struct cg_image **ret_image)
{
    struct cg_space *space;
    int r = cli_whole_name(cli, text, ret, &space);

    if (r == 0 && ret->space != CG_NAME_BACKUPS)
        return cg_error_say(&cli->err, EINVAL, "%s is no point: write backups/PROJECT/VOLUME/POINT",
                            text);
    if (r == 0)
        r = cg_space_resolve(space, ret, &cli->err);
    if (r == 0)
        r = cg_space_open(space, ret, CG_OPEN_READ, ret_image, &cli->err);
    return r;
}

struct restore_args {
    bool live, trust_diff;
    const char *rate;
};

static int set_restore(void *opaque, int option, const char *value)
{
    struct restore_args *a = opaque;

    if (option == 'l')
        a->live = true;
    else if (option == 't')
        a->trust_diff = true;
    else
        a->rate = value;
    return 0;
}

static int restore_live(struct cli *cli, const struct restore_args *args, char **argv)
{
    uint64_t rate = 0;

    if (args->trust_diff)
        return cli_misused("restore", "--live makes a new volume, of which there is no diff");
    if (args->rate && cg_size_parse(args->rate, &rate, &cli->err) < 0)
        return cli_misused("restore", "%s", cli->err.message);
    return cli_restore_live(cli, argv[0], argv[1], rate);
}

int cli_restore(struct cli *cli, int argc, char **argv)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_repository *repository;
    static const struct option options[] = { { "trust-diff", no_argument, NULL, 't' },
                                             { "live", no_argument, NULL, 'l' },
                                             { "rate", required_argument, NULL, 'r' },
                                             { 0 } };
    struct restore_args args = { .live = false };
    struct cg_restore_options o = { .fresh = false };
    struct cg_restore_result result;
    struct cli_target target;
    struct cg_name point, name;
    char text[CG_NAME_MAX];
    bool made = false;

    CLI_ARGS(options, set_restore, &args, 2, 2);
    if (args.live)
        return restore_live(cli, &args, argv + optind);
    if (args.rate)
        return cli_misused("restore", "--rate is only for --live");
    o.trust_diff = args.trust_diff;
    const char *to = argv[optind + 1];
    int r = cli->json ? cli_check_utf8(cli, to) : 0;
    if (r == 0)
        r = restore_point(cli, argv[optind], &point, &image);
    if (r == 0)
        r = cg_gateway_repository(cli->gateway, &repository, &cli->err);
    if (r == 0)
        r = restore_target(cli, to, image, &target, &made, &o.space, &name);
    if (r < 0)
        return cli_failed(cli);
    o.name = &name;
    o.fresh = target.fresh;
    o.progress = cli_progress_begin(cli, "restore");
    r = cg_restore(repository, &point, target.image, &o, &result, &cli->err);
    cli_progress_end();
    /* What was restored so far is kept under its unfinished name, for the next try. */
    r = cli_target_finish(cli, &target, r, true);
    if (r < 0) {
        if (made && !cli->quiet)
            fprintf(stderr, "cowgate: run the same command again to go on with the restore\n");
        return cli_failed(cli);
    }
    if (cli->json)
        return cli_print_json(cli, restore_json(&result, cg_name_text(&point, true, text), to));
    if (!cli->quiet)
        restore_text(&result, to);
    return CLI_OK;
}

static void print_damage(void *opaque, const char *object, const char *why)
{
    json_t *array = opaque;

    if (array)
        json_array_append_new(array, json_pack("{s:s,s:s}", "object", object, "why", why));
    else
        printf("damaged: %s: %s\n", object, why);
}

int cli_verify(struct cli *cli, int argc, char **argv)
{
    struct cg_repository *repository;
    struct cg_verify_result v;
    struct cg_name prefix;
    char bytes[CG_SIZE_TEXT];

    CLI_ARGS(NULL, NULL, NULL, 0, 1);
    const char *text = optind < argc ? argv[optind] : "backups";
    int r = cg_name_parse_prefix(text, &prefix, &cli->err);
    if (r == 0 && prefix.space != CG_NAME_BACKUPS)
        r = cg_error_say(&cli->err, EINVAL, "%s: only backups/ are verified", text);
    if (r == 0)
        r = cli_gateway(cli);
    if (r == 0)
        r = cg_gateway_repository(cli->gateway, &repository, &cli->err);
    if (r < 0)
        return cli_failed(cli);
    json_t *damaged = cli->json ? json_array() : NULL;
    r = cg_verify(repository, &prefix, cli_progress_begin(cli, "verify"), print_damage, damaged, &v,
                  &cli->err);
    cli_progress_end();
    if (r < 0) {
        json_decref(damaged);
        return cli_failed(cli);
    }
    if (v.warning[0])
        fprintf(stderr, "cowgate: warning: %s\n", v.warning);
    if (cli->json) {
        json_t *o = json_pack("{s:I,s:I,s:I,s:I,s:o,s:s}", "points", (json_int_t)v.points, "pages",
                              (json_int_t)v.pages, "chunks", (json_int_t)v.chunks, "bytes",
                              (json_int_t)v.bytes, "damaged", damaged, "warning", v.warning);
        r = cli_print_json(cli, o);
    } else if (!cli->quiet) {
        cg_size_text(bytes, v.bytes);
        fprintf(stderr,
                "%" PRIu64 " points, %" PRIu64 " pages, %" PRIu64 " chunks (%s): %" PRIu64
                " damaged\n",
                v.points, v.pages, v.chunks, bytes, v.damaged);
    }
    return v.damaged ? CLI_FAILED : r;
}
