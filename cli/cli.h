/* What the commands share.  The command line is a face: only here is anything printed. */
#ifndef CG_CLI_CLI_H
#define CG_CLI_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "core/gateway.h"
#include "core/jobs/progress.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_MISUSED = 2 };

struct cli {
    const char *root; /* --root, or NULL */
    bool json, quiet;
    struct cg_gateway *gateway; /* NULL until cli_gateway */
    struct cg_error err;
};

/* A command: argv[0] is its name.  Returns an exit status, having printed what went wrong. */
typedef int cli_fn(struct cli *cli, int argc, char **argv);

struct cli_command {
    const char *name;
    const char *usage; /* what follows the name */
    const char *help;  /* one line */
    cli_fn *run;
};

extern const struct cli_command cli_commands[]; /* ends with a NULL name */

/* Prints cli->err and returns CLI_FAILED. */
int cli_failed(struct cli *cli);

/* Prints a message and how the command is used; returns CLI_MISUSED. */
int cli_misused(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Parses a command's options (NULL: it has none) by getopt_long, calling set with each (which
 * returns non-zero, having printed why, to refuse it), and checks that between min and max
 * arguments follow (max -1: any number).  0: optind is the first argument; negative: its --help was
 * shown, all is done; else the exit status to return.  See CLI_ARGS. */
int cli_args(int argc, char **argv, const struct option *options,
             int (*set)(void *opaque, int option, const char *value), void *opaque, int min,
             int max);

/* cli_args for the body of a command: returns where it says so. */
#define CLI_ARGS(...)                                                                              \
    do {                                                                                           \
        int args_ = cli_args(argc, argv, __VA_ARGS__);                                             \
        if (args_)                                                                                 \
            return args_ < 0 ? CLI_OK : args_;                                                     \
    } while (0)

/* For cli_args of a command with a single option: a value into a const char *, or true into a bool.
 */
int cli_keep_value(void *opaque, int option, const char *value);
int cli_set_flag(void *opaque, int option, const char *value);

/* For a face's --only NAME, which may be given several times: each as "only=NAME", what nbdkit's
 * plugin and cowgate-fuse take. */
struct cli_only {
    char **v;
    size_t count, allocated;
};

/* 0, or CLI_MISUSED having said why. */
int cli_add_only(const char *command, struct cli_only *only, const char *name);
void cli_only_clear(struct cli_only *only);

/* Opens the gateway of cli->root into cli->gateway.  0 or -errno with cli->err set. */
int cli_gateway(struct cli *cli);

/* Refuses "-" where only what can be read anywhere will do: CLI_MISUSED, having said so, or 0. */
int cli_refuse_stream(const char *command, const char *text);

/* -EILSEQ with cli->err set if a path can't be part of JSON, printed or stored. */
int cli_check_utf8(struct cli *cli, const char *text);

/* Parses a name, opens the gateway and finds the space of the name. */
int cli_name(struct cli *cli, const char *text, struct cg_name *ret_name,
             struct cg_space **ret_space);

/* As cli_name for names that commands change: a partition, a point by its history, are refused. */
int cli_whole_name(struct cli *cli, const char *text, struct cg_name *ret_name,
                   struct cg_space **ret_space);

/* Prints a JSON document on standard output and gives it free; NULL is out of memory. */
int cli_print_json(struct cli *cli, json_t *document);

/* Local time is never shown: "2026-11-22 00:15:00", UTC; "-" for 0. */
#define CLI_TIME_TEXT 32
void cli_time_text(char ret[static CLI_TIME_TEXT], time_t time);

/* Of a clock that only goes forward, for waiting. */
time_t cli_seconds(void);

/* The exit of long work by Ctrl-C: progress then reports a cancel. */
void cli_catch_interrupts(void);

/* While it's held that doesn't end the process either if it's asked for twice, nor does SIGQUIT,
 * which else ends it at once. */
void cli_hold_interrupts(bool hold);

/* True if that has happened. */
bool cli_interrupted(void);

/* A progress bar on standard error (a line now and then if that is no terminal; nothing with
 * --quiet).  The progress to hand to a job is valid until cli_progress_end, which takes the bar
 * away. One at a time.  what NULL: no bar, only the interrupts. */
const struct cg_progress *cli_progress_begin(struct cli *cli, const char *what);
void cli_progress_end(void);

/* Unmounts by the kernel, or by fusermount3 for whoever isn't root.  dead: a mount whose server is
 * gone, whoever is still in it. */
int cli_unmount(const char *dir, bool dead, struct cg_error *err);

/* Makes what this process does from here on give way to whoever else wants the processor: servers
 * that others wait for. */
void cli_give_way(void);

/* Copies a name, path or URI into a new volume (copy.c); the progress is to be ended. */
int cli_import_image(struct cli *cli, const char *source, const char *volume);

/* The commands, by file. */
cli_fn cli_init, cli_create, cli_clone, cli_snapshot, cli_rollback, cli_resize, cli_rename,
    cli_delete, cli_flatten;         /* volumes.c */
cli_fn cli_list, cli_info, cli_diff; /* look.c */
cli_fn cli_import, cli_export;       /* copy.c */
int cli_export_diff(struct cli *cli, const char *point, const char *from, const char *dest,
                    bool force);            /* export_diff.c */
cli_fn cli_backup, cli_restore, cli_verify; /* backups.c */
int cli_restore_live(struct cli *cli, const char *point, const char *target,
                     uint64_t rate); /* restore_live.c */
cli_fn cli_serve;                    /* serve.c */
cli_fn cli_migrate;                  /* migrate.c */
cli_fn cli_mount, cli_umount;        /* mount.c */
cli_fn cli_attach;                   /* attach.c */
cli_fn cli_detach;                   /* detach.c */

#endif
