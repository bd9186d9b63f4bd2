#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/base/size.h"
#include "core/jobs/compare.h"

struct listing {
    struct cli *cli;
    bool usage;    /* what volumes take, too */
    json_t *array; /* NULL: as text */
    size_t count;
};

static const char *const usage_keys[] = { "used", "shared", "reserve" };
#define USAGE_KEYS (sizeof usage_keys / sizeof *usage_keys)
#define USAGE_TEXT (USAGE_KEYS * (CG_SIZE_TEXT + 1))

/* What a volume takes of its pool, as info says it; NULL for anything else. */
static json_t *usage_of(struct listing *l, const struct cg_entry *e)
{
    struct cg_space *space;
    struct cg_name name;
    struct cg_error err;
    json_t *info;

    if (!l->usage || e->draft || cg_name_parse(e->name, &name, &err) < 0 ||
        name.space != CG_NAME_VOLUMES || name.snapshot[0] ||
        cg_gateway_space(l->cli->gateway, &name, &space, &err) < 0 ||
        cg_space_info(space, &name, &info, &err) <
            0) /* one that is damaged, or deleted meanwhile */
        return NULL;
    return info;
}

static void usage_text(const json_t *info, char ret[static USAGE_TEXT])
{
    char text[USAGE_KEYS][CG_SIZE_TEXT];

    for (size_t i = 0; i < USAGE_KEYS; i++) {
        strcpy(text[i], "-");
        if (info)
            cg_size_text(text[i],
                         (uint64_t)json_integer_value(json_object_get(info, usage_keys[i])));
    }
    snprintf(ret, USAGE_TEXT, " %10s %10s %10s", text[0], text[1], text[2]);
}

static int list_entry(void *opaque, const struct cg_entry *e, struct cg_error *err)
{
    struct listing *l = opaque;
    char size[CG_SIZE_TEXT], when[CLI_TIME_TEXT];

    CG_CLEANUP(cg_json_cleanup) json_t *usage = usage_of(l, e);
    l->count++;
    cg_size_text(size, e->size);
    cli_time_text(when, e->time);
    if (!l->array) {
        char taken[USAGE_TEXT] = "";
        if (l->usage)
            usage_text(usage, taken);
        printf("%-50s %10s%s  %-19s  %s\n", e->name, size, taken, when,
               e->description ? e->description : "");
        return 0;
    }
    json_t *o = json_pack("{s:s,s:I,s:I,s:s,s:b}", "name", e->name, "size", (json_int_t)e->size,
                          "time", (json_int_t)e->time, "description",
                          e->description ? e->description : "", "unfinished", e->draft);
    for (size_t i = 0; usage && i < USAGE_KEYS; i++)
        json_object_set(o, usage_keys[i], json_object_get(usage, usage_keys[i]));
    if (!o || json_array_append_new(l->array, o) < 0)
        return cg_error_set(err, ENOMEM, "list");
    return 0;
}

static void warn_of_full_pool(struct cli *cli)
{
    char text[600];

    if (!cli->quiet && cg_gateway_pool_full(cli->gateway, text, sizeof text))
        fprintf(stderr, "cowgate: warning: %s\n", text);
}

int cli_list(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = { { "long", no_argument, NULL, 'l' }, { 0 } };
    struct listing l = { .cli = cli, .usage = cli->json };
    struct cg_name prefix;

    CLI_ARGS(options, cli_set_flag, &l.usage, 0, 1);
    const char *text = optind < argc ? argv[optind] : "";
    if (cg_name_parse_prefix(text, &prefix, &cli->err) < 0 || cli_gateway(cli) < 0)
        return cli_failed(cli);
    if (prefix.partition)
        return cli_misused("list", "%s: partitions aren't listed; ask info for one", text);
    if (cli->json && !(l.array = json_array())) {
        cg_error_set(&cli->err, ENOMEM, "list");
        return cli_failed(cli);
    }
    if (l.usage && !cli->json)
        printf("%-50s %10s %10s %10s %10s\n", "", "size", "used", "shared", "reserve");
    prefix.draft = true; /* what nobody else sees can be gone on with or deleted */
    int r = cg_gateway_list_all(cli->gateway, &prefix, list_entry, &l, &cli->err);
    if (r == 0 && l.count == 0 && prefix.parts >= (prefix.space == CG_NAME_BACKUPS ? 3 : 2))
        r = cg_error_say(&cli->err, ENOENT, "%s: nothing of that name", text);
    bool partial = r < 0 && prefix.space == CG_NAME_ROOT; /* what could be listed counts */
    if (r < 0 && !partial) {
        json_decref(l.array);
        return cli_failed(cli);
    }
    size_t hidden = cg_gateway_hidden(cli->gateway);
    if (hidden > 0 && !cli->quiet)
        fprintf(stderr, "cowgate: %zu name%s in rbd/ can't be used here and %s not shown\n", hidden,
                hidden > 1 ? "s" : "", hidden > 1 ? "are" : "is");
    if (prefix.space == CG_NAME_ROOT || prefix.space == CG_NAME_VOLUMES)
        warn_of_full_pool(cli);
    int printed = cli->json ? cli_print_json(cli, l.array) : CLI_OK;
    return partial ? cli_failed(cli) : printed;
}

static void print_value(const char *key, json_t *value);

static void print_object(const char *prefix, json_t *object)
{
    const char *key;
    json_t *value;
    char full[256];

    json_object_foreach (object, key, value) {
        snprintf(full, sizeof full, "%s%s%s", prefix, prefix[0] ? "." : "", key);
        print_value(full, value);
    }
}

static bool is_size(const char *key)
{
    const char *dot = strrchr(key, '.');

    key = dot ? dot + 1 : key;
    return strstr(key, "size") || strstr(key, "bytes") || strcmp(key, "allocated") == 0 ||
           strcmp(key, "used") == 0 || strcmp(key, "shared") == 0 || strcmp(key, "reserve") == 0;
}

static bool is_time(const char *key)
{
    const char *dot = strrchr(key, '.');

    key = dot ? dot + 1 : key;
    return strcmp(key, "time") == 0 || strcmp(key, "created") == 0;
}

static void print_value(const char *key, json_t *value)
{
    char text[CG_SIZE_TEXT], when[CLI_TIME_TEXT], full[300];
    size_t i;
    json_t *item;

    if (json_is_object(value)) {
        print_object(key, value);
    } else if (json_is_array(value)) {
        json_array_foreach (value, i, item) {
            snprintf(full, sizeof full, "%s[%zu]", key, i);
            print_value(full, item);
        }
    } else if (json_is_string(value)) {
        printf("%s: %s\n", key, json_string_value(value));
    } else if (json_is_integer(value) && is_size(key)) {
        cg_size_text(text, (uint64_t)json_integer_value(value));
        printf("%s: %" JSON_INTEGER_FORMAT " (%s)\n", key, json_integer_value(value), text);
    } else if (json_is_integer(value) && is_time(key)) {
        cli_time_text(when, (time_t)json_integer_value(value));
        printf("%s: %s\n", key, when);
    } else if (json_is_integer(value)) {
        printf("%s: %" JSON_INTEGER_FORMAT "\n", key, json_integer_value(value));
    } else if (json_is_boolean(value)) {
        printf("%s: %s\n", key, json_is_true(value) ? "yes" : "no");
    }
}

/* What there is to say of anything that opens. */
static json_t *image_info(struct cli *cli, const char *text)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;

    if (cli_check_utf8(cli, text) < 0 ||
        cg_gateway_open_any(cli->gateway, text, CG_OPEN_READ, &image, &cli->err) < 0)
        return NULL;
    json_t *info =
        json_pack("{s:s,s:I,s:b}", "name", text, "size", (json_int_t)cg_image_size(image),
                  "immutable", cg_image_immutable(image));
    if (!info)
        cg_error_set(&cli->err, ENOMEM, "info");
    return info;
}

static json_t *root_info(struct cli *cli)
{
    json_t *pool;

    if (cg_gateway_pool_info(cli->gateway, &pool, &cli->err) < 0)
        return NULL;
    warn_of_full_pool(cli);
    json_t *info = json_pack("{s:s, s:o}", "root", cg_gateway_root(cli->gateway), "pool", pool);
    if (!info)
        cg_error_set(&cli->err, ENOMEM, "info");
    return info;
}

int cli_info(struct cli *cli, int argc, char **argv)
{
    struct cg_space *space;
    struct cg_name name;
    json_t *info = NULL;

    CLI_ARGS(NULL, NULL, NULL, 0, 1);
    const char *text = argv[optind];
    int misused = text ? cli_refuse_stream("info", text) : CLI_OK;
    if (misused)
        return misused;
    if (cli_gateway(cli) < 0)
        return cli_failed(cli);
    if (!text) {
        info = root_info(cli);
    } else if (cg_arg_kind(text) != CG_ARG_NAME) {
        info = image_info(cli, text);
    } else if (cli_name(cli, text, &name, &space) == 0) {
        if (name.partition)
            info = image_info(cli, text);
        else if (cg_space_info(space, &name, &info, &cli->err) < 0)
            info = NULL;
        else if (!json_object_get(info, "name"))
            json_object_set_new(info, "name", json_string(text));
    }
    if (!info)
        return cli_failed(cli);
    if (cli->json)
        return cli_print_json(cli, info);
    print_object("", info);
    json_decref(info);
    return CLI_OK;
}

static int print_extent(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    static const char *const types[] = { "data", "zero", "hole" };
    json_t *array = opaque;

    if (!array) {
        printf("%" PRIu64 " %" PRIu64 " %s\n", e->off, e->len, types[e->type]);
        return 0;
    }
    json_t *o = json_pack("{s:I,s:I,s:s}", "offset", (json_int_t)e->off, "length",
                          (json_int_t)e->len, "type", types[e->type]);
    if (!o || json_array_append_new(array, o) < 0)
        return cg_error_set(err, ENOMEM, "diff");
    return 0;
}

/* What the space knows of the difference; -ENOTSUP if the two have to be compared. */
static int diff_in_space(struct cli *cli, const char *a, const char *b, json_t *array)
{
    struct cg_space *from_space, *space;
    struct cg_name from, to;

    if (cg_arg_kind(a) != CG_ARG_NAME || cg_arg_kind(b) != CG_ARG_NAME)
        return -ENOTSUP;
    int r = cli_name(cli, a, &from, &from_space);
    if (r == 0)
        r = cli_name(cli, b, &to, &space);
    if (r < 0)
        return r;
    if (from_space != space || from.partition || to.partition || !from.snapshot[0])
        return -ENOTSUP; /* a head changes: what it has in common with another isn't recorded */
    return cg_space_diff(space, &from, &to, print_extent, array, &cli->err);
}

static int diff_by_reading(struct cli *cli, const char *a, const char *b, json_t *array)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *from = NULL;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *to = NULL;
    int r = cg_gateway_open_any(cli->gateway, a, CG_OPEN_READ, &from, &cli->err);

    if (r == 0)
        r = cg_gateway_open_any(cli->gateway, b, CG_OPEN_READ, &to, &cli->err);
    if (r == 0)
        r = cg_compare(from, to, print_extent, array, cli_progress_begin(cli, "compare"),
                       &cli->err);
    cli_progress_end();
    return r;
}

int cli_diff(struct cli *cli, int argc, char **argv)
{
    CLI_ARGS(NULL, NULL, NULL, 2, 2);
    const char *a = argv[optind], *b = argv[optind + 1];
    int r = cli_refuse_stream("diff", a);
    if (r == 0)
        r = cli_refuse_stream("diff", b);
    if (r)
        return r;
    json_t *array = cli->json ? json_array() : NULL;
    r = cli_gateway(cli);
    if (r == 0)
        r = diff_in_space(cli, a, b, array);
    if (r == -ENOTSUP)
        r = diff_by_reading(cli, a, b, array);
    if (r < 0) {
        json_decref(array);
        return cli_failed(cli);
    }
    return cli->json ? cli_print_json(cli, array) : CLI_OK;
}
