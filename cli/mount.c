#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

struct mount_args {
    const char *project;
    bool read_only, foreground, allow_other;
    struct cli_only only;
};

static const struct option mount_options[] = {
    { "read-only", no_argument, NULL, 'r' },   { "project", required_argument, NULL, 'p' },
    { "only", required_argument, NULL, 'o' },  { "foreground", no_argument, NULL, 'f' },
    { "allow-other", no_argument, NULL, 'a' }, { 0 },
};

static int set_mount(void *opaque, int option, const char *value)
{
    struct mount_args *a = opaque;

    if (option == 'p' && !cg_name_part_valid(value))
        return cli_misused("mount", "'%s' is not the name of a project", value);
    if (option == 'o')
        return cli_add_only("mount", &a->only, value);
    if (option == 'p')
        a->project = value;
    else if (option == 'r')
        a->read_only = true;
    else if (option == 'a')
        a->allow_other = true;
    else
        a->foreground = true;
    return 0;
}

/* "ro,project=P,only=NAME,..."; the caller frees it. */
static char *option_text(const struct mount_args *a)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        return NULL;
    fprintf(out, "%s%s%s%s", a->read_only ? "ro" : "rw", a->allow_other ? ",allow_other" : "",
            a->project ? ",project=" : "", a->project ? a->project : "");
    for (size_t i = 0; i < a->only.count; i++)
        fprintf(out, ",%s", a->only.v[i]);
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}

/* Becomes cowgate-fuse, which returns when the mount is usable. */
static int become_fuse(struct cli *cli, const struct mount_args *a, const char *dir)
{
    const struct cg_gateway_options check = { .root = cli->root, .project = a->project };
    const char *program = getenv("COWGATE_FUSE");

    if (cg_gateway_new(&check, &cli->gateway, &cli->err) < 0)
        return cli_failed(cli);
    CG_CLEANUP(cg_free) char *root = strdup(cg_gateway_root(cli->gateway));
    CG_CLEANUP(cg_free) char *options = option_text(a);
    cg_gateway_free(cli->gateway);
    cli->gateway = NULL;
    program = program && *program ? program : BINDIR "/cowgate-fuse";
    if (root && options)
        execl(program, "cowgate-fuse", root, dir, "-o", options, a->foreground ? "-f" : NULL, NULL);
    cg_error_set(&cli->err, root && options ? errno : ENOMEM, "start %s", program);
    return cli_failed(cli);
}

int cli_mount(struct cli *cli, int argc, char **argv)
{
    struct mount_args a = { 0 };
    int r = cli_args(argc, argv, mount_options, set_mount, &a, 1, 1);

    r = r < 0 ? CLI_OK : r > 0 ? r : become_fuse(cli, &a, argv[optind]);
    cli_only_clear(&a.only);
    return r;
}

int cli_unmount(const char *dir, bool dead, struct cg_error *err)
{
    if (geteuid() == 0)
        return umount2(dir, dead ? MNT_DETACH : 0) == 0
                   ? 0
                   : cg_error_set(err, errno, "unmount %s", dir);
    pid_t pid = fork();
    if (pid < 0)
        return cg_error_set(err, errno, "start fusermount3");
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", dead ? "-uz" : "-u", dir, NULL);
        _exit(127);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return cg_error_say(err, EBUSY, "unmount %s: fusermount3 failed", dir);
    return 0;
}

int cli_umount(struct cli *cli, int argc, char **argv)
{
    char lock[PATH_MAX];

    CLI_ARGS(NULL, NULL, NULL, 1, 1);
    CG_CLEANUP(cg_free) char *dir = realpath(argv[optind], NULL);
    if (!dir) {
        cg_error_set(&cli->err, errno, "unmount %s", argv[optind]);
        return cli_failed(cli);
    }
    if (cg_run_mount_path(dir, lock, sizeof lock, &cli->err) < 0)
        return cli_failed(cli);
    CG_CLEANUP(cg_close) int fd = open(lock, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        cg_error_say(&cli->err, ENOENT, "%s: nothing of cowgate is mounted there", dir);
        return cli_failed(cli);
    }
    if (fd < 0 || cli_unmount(dir, false, &cli->err) < 0) {
        if (fd < 0)
            cg_error_set(&cli->err, errno, "open %s", lock);
        return cli_failed(cli);
    }
    /* The face holds the lock until everything is flushed and closed. */
    while (flock(fd, LOCK_SH) < 0) {
        if (errno != EINTR) {
            cg_error_set(&cli->err, errno, "wait for the end of the mount on %s", dir);
            return cli_failed(cli);
        }
    }
    return CLI_OK;
}
