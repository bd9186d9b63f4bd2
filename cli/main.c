#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/files.h"
#include "cli/cli.h"

static const char usage[] = "usage: cowgate [--root DIR] [--json] [--quiet] COMMAND ...\n";

const struct cli_command cli_commands[] = {
    { "init", "[--repository DIR]", "make a root", cli_init },
    { "create", "IMAGE --size SIZE", "make an empty volume", cli_create },
    { "import", "SOURCE VOLUME [--size SIZE]", "copy anything into a new volume", cli_import },
    { "export", "IMAGE DEST [--diff-from POINT] [--force]",
      "copy an image to a file, device, NBD URI or -", cli_export },
    { "clone", "IMAGE VOLUME", "make an instant copy-on-write clone", cli_clone },
    { "snapshot", "[--freeze COMMAND] [--thaw COMMAND] VOLUME@SNAPSHOT ...",
      "take snapshots, all of one moment", cli_snapshot },
    { "rollback", "VOLUME@SNAPSHOT", "make a volume its snapshot again", cli_rollback },
    { "list", "[--long] [PREFIX]", "list images", cli_list },
    { "info", "[IMAGE]", "describe an image, or the pool", cli_info },
    { "diff", "A B", "print the extents in which B differs from A", cli_diff },
    { "flatten", "[--rate SIZE] VOLUME", "make a clone independent of its parent", cli_flatten },
    { "resize", "VOLUME SIZE", "grow a volume", cli_resize },
    { "rename", "A B", "rename a volume", cli_rename },
    { "delete", "[--snapshots] IMAGE", "delete a volume, a snapshot or a point", cli_delete },
    { "backup",
      "[--full] [--audit SHARE] [--rate SIZE] [--freeze COMMAND] [--thaw COMMAND]\n"
      "       IMAGE [backups/PROJECT/VOLUME]",
      "make a backup point", cli_backup },
    { "restore", "[--trust-diff] POINT TARGET | --live [--rate SIZE] POINT IMAGE",
      "write a point to a volume, file or device", cli_restore },
    { "verify", "[PREFIX]", "read and check everything in the repository", cli_verify },
    { "serve", "[IMAGE] [--socket PATH | --listen ADDR:PORT] [--only NAME ...] ...",
      "serve NBD exports", cli_serve },
    { "mount", "[--read-only] [--project P] [--only NAME ...] [--foreground] DIR",
      "mount everything as files", cli_mount },
    { "attach",
      "[--read-only] [--connections N] [--timeout SECONDS] ... IMAGE [/dev/nbdN] | --list",
      "make a block device of it", cli_attach },
    { "detach", "[--force] /dev/nbdN", "flush a block device and let it go", cli_detach },
    { "migrate",
      "spec IMAGE [--advertise ADDRESS]\n"
      "       cowgate migrate spec --native rbd/POOL/IMAGE@SNAPSHOT [--cluster NAME] [--client "
      "NAME]\n"
      "       cowgate migrate prepare|run SOURCE rbd/POOL/IMAGE [--serve [--listen ADDR:PORT]]\n"
      "               [--tls-certificates DIR [--tls-verify-peer] | --insecure]\n"
      "               [--advertise ADDRESS]\n"
      "               [--stream nbd|file] [--snapshots]\n"
      "       cowgate migrate execute|commit|abort rbd/POOL/IMAGE\n"
      "       cowgate migrate status [rbd/POOL/IMAGE]",
      "move anything into Ceph while it is in use", cli_migrate },
    { "umount", "DIR", "unmount, with everything flushed", cli_umount },
    { NULL, NULL, NULL, NULL },
};

static void print_help(void)
{
    fputs(usage, stdout);
    puts("\n"
         "  --root DIR     the root (else $COWGATE_ROOT, /var/lib/cowgate for root,\n"
         "                 $XDG_DATA_HOME/cowgate)\n"
         "  --json         print one JSON document\n"
         "  --quiet        no progress on standard error\n"
         "  --help         this, or a command's usage after its name\n"
         "  --version\n");
    for (const struct cli_command *c = cli_commands; c->name; c++)
        printf("  %-9s %s\n", c->name, c->help);
    puts("\nNames: volumes/PROJECT/VOLUME[@SNAPSHOT], backups/PROJECT/VOLUME/POINT (or latest),\n"
         "each with .pN for a partition.  Paths begin with / or ./, NBD exports with nbd://.");
}

static const struct cli_command *find_command(const char *name)
{
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

int cli_misused(const char *command, const char *fmt, ...)
{
    const struct cli_command *c = command ? find_command(command) : NULL;
    va_list ap;

    fputs("cowgate: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (c)
        fprintf(stderr, "\nusage: cowgate %s %s\n", c->name, c->usage);
    else
        fprintf(stderr, "\n%sTry 'cowgate --help'.\n", usage);
    return CLI_MISUSED;
}

int cli_failed(struct cli *cli)
{
    cli_progress_end();
    fprintf(stderr, "cowgate: %s\n", cli->err.message);
    return CLI_FAILED;
}

/* The options before the command's name; 0, an exit status, or -1 to end well. */
static int main_options(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        { "root", required_argument, NULL, 'r' }, { "json", no_argument, NULL, 'j' },
        { "quiet", no_argument, NULL, 'q' },      { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },    { 0 },
    };
    int c;

    opterr = 0;
    while ((c = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        switch (c) {
        case 'r':
            if (!*optarg)
                return cli_misused(NULL, "--root is empty");
            cli->root = optarg;
            break;
        case 'j':
            cli->json = true;
            break;
        case 'q':
            cli->quiet = true;
            break;
        case 'h':
            print_help();
            return -1;
        case 'V':
            puts(PACKAGE_STRING);
            return -1;
        case ':':
            return cli_misused(NULL, "%s needs a value", argv[optind - 1]);
        default:
            return cli_misused(NULL, "unknown option %s", argv[optind - 1]);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct cli cli = { .err.message = "" };
    int r = main_options(&cli, argc, argv);

    if (r)
        return r < 0 ? CLI_OK : r;
    if (optind == argc)
        return cli_misused(NULL, "no command");
    const struct cli_command *c = find_command(argv[optind]);
    if (!c)
        return cli_misused(NULL, "unknown command '%s'", argv[optind]);
    argc -= optind;
    argv += optind;
    optind = 0; /* getopt starts anew */
    /* A reader that goes away is an error of the write, not our death. */
    signal(SIGPIPE, SIG_IGN);
    cg_files_raise_limit();
    r = c->run(&cli, argc, argv);
    cli_progress_end();
    cg_gateway_free(cli.gateway);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "cowgate: write standard output: %s\n", strerror(errno));
        return CLI_FAILED;
    }
    return r;
}
