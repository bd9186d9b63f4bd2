#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/cli.h"
#include "core/base/array.h"

static void print_usage(const char *name)
{
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0)
            printf("usage: cowgate %s %s\n%s; see cowgate(1)\n", c->name, c->usage, c->help);
    }
}

int cli_args(int argc, char **argv, const struct option *options,
             int (*set)(void *opaque, int option, const char *value), void *opaque, int min,
             int max)
{
    static const struct option help[] = { { "help", no_argument, NULL, 'h' }, { 0 } };
    int c;

    /* The usage of any command, and only that, by its --help. */
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (strcmp(argv[i], "--help") == 0) {
            print_usage(argv[0]);
            return -1;
        }
    }
    while ((c = getopt_long(argc, argv, ":", options ? options : help, NULL)) != -1) {
        if (c == ':')
            return cli_misused(argv[0], "%s needs a value", argv[optind - 1]);
        if (c == '?')
            return cli_misused(argv[0], "unknown option %s", argv[optind - 1]);
        if (optarg && !*optarg)
            return cli_misused(argv[0], "the value of an option is empty");
        int r = set(opaque, c, optarg);
        if (r)
            return r;
    }
    if (argc - optind < min)
        return cli_misused(argv[0], "%s: something is missing", argv[0]);
    if (max >= 0 && argc - optind > max)
        return cli_misused(argv[0], "%s: too many arguments: '%s'", argv[0], argv[optind + max]);
    for (int i = optind; i < argc; i++) {
        if (!*argv[i])
            return cli_misused(argv[0], "%s: an argument is empty", argv[0]);
    }
    return 0;
}

int cli_refuse_stream(const char *command, const char *text)
{
    if (strcmp(text, "-"))
        return 0;
    return cli_misused(command, "%s can't take standard input: import it into a volume", command);
}

int cli_check_utf8(struct cli *cli, const char *text)
{
    json_t *string = json_string(text);
    int r = string ? 0
                   : cg_error_say(&cli->err, EILSEQ,
                                  "%s: the name isn't UTF-8, so it can't be written down as JSON: "
                                  "use another",
                                  text);

    json_decref(string);
    return r;
}

int cli_keep_value(void *opaque, int option, const char *value)
{
    (void)option;
    *(const char **)opaque = value;
    return 0;
}

int cli_set_flag(void *opaque, int option, const char *value)
{
    (void)option;
    (void)value;
    *(bool *)opaque = true;
    return 0;
}

int cli_add_only(const char *command, struct cli_only *only, const char *text)
{
    struct cg_error err;
    struct cg_name name;

    if (cg_name_parse(text, &name, &err) < 0)
        return cli_misused(command, "--only: %s", err.message);
    char **v = cg_array_room(only->v, only->count, &only->allocated, sizeof *v);
    if (v)
        only->v = v;
    if (!v || asprintf(&v[only->count], "only=%s", text) < 0)
        return cli_misused(command, "--only %s: %s", text, strerror(ENOMEM));
    only->count++;
    return 0;
}

void cli_only_clear(struct cli_only *only)
{
    for (size_t i = 0; i < only->count; i++)
        free(only->v[i]);
    free(only->v);
}

int cli_gateway(struct cli *cli)
{
    const struct cg_gateway_options options = { .root = cli->root };

    return cli->gateway ? 0 : cg_gateway_new(&options, &cli->gateway, &cli->err);
}

int cli_name(struct cli *cli, const char *text, struct cg_name *ret_name,
             struct cg_space **ret_space)
{
    int r = cg_name_parse(text, ret_name, &cli->err);

    if (r == 0)
        r = cli_gateway(cli);
    if (r == 0)
        r = cg_gateway_space(cli->gateway, ret_name, ret_space, &cli->err);
    return r;
}

int cli_whole_name(struct cli *cli, const char *text, struct cg_name *ret_name,
                   struct cg_space **ret_space)
{
    int r = cli_name(cli, text, ret_name, ret_space);

    if (r == 0 && ret_name->partition)
        return cg_error_say(&cli->err, EINVAL, "%s is a partition; name the whole image", text);
    if (r == 0 && ret_name->qcow2)
        return cg_error_say(&cli->err, EINVAL, "%s is made up when it is read", text);
    return r;
}

int cli_print_json(struct cli *cli, json_t *document)
{
    if (!document || json_dumpf(document, stdout, JSON_INDENT(2) | JSON_SORT_KEYS) < 0) {
        json_decref(document);
        cg_error_say(&cli->err, EIO, "write JSON on standard output");
        return cli_failed(cli);
    }
    putchar('\n');
    json_decref(document);
    return CLI_OK;
}

void cli_time_text(char ret[static CLI_TIME_TEXT], time_t time)
{
    struct tm tm;

    if (time == 0 || !gmtime_r(&time, &tm))
        strcpy(ret, "-");
    else
        strftime(ret, CLI_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &tm);
}

time_t cli_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

void cli_give_way(void)
{
    setpriority(PRIO_PROCESS, 0, 19); /* threads that are started later inherit it */
}
