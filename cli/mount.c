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
};

static const struct option mount_options[] = {
    { "read-only", no_argument, NULL, 'r' },
    { "project", required_argument, NULL, 'p' },
    { "foreground", no_argument, NULL, 'f' },
    { "allow-other", no_argument, NULL, 'a' },
    { 0 },
};

static int set_mount(void *opaque, int option, const char *value)
{
    struct mount_args *a = opaque;

    if (option == 'p' && !cg_name_part_valid(value))
        return cli_misused("mount", "'%s' is not the name of a project", value);
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

/* Becomes cowgate-fuse, which returns when the mount is usable. */
int cli_mount(struct cli *cli, int argc, char **argv)
{
    struct mount_args a = { 0 };
    char options[CG_PART_MAX + 64];
    const char *program = getenv("COWGATE_FUSE");

    CLI_ARGS(mount_options, set_mount, &a, 1, 1);
    const struct cg_gateway_options check = { .root = cli->root, .project = a.project };
    if (cg_gateway_new(&check, &cli->gateway, &cli->err) < 0)
        return cli_failed(cli);
    CG_CLEANUP(cg_free) char *root = strdup(cg_gateway_root(cli->gateway));
    cg_gateway_free(cli->gateway);
    cli->gateway = NULL;
    snprintf(options, sizeof options, "%s%s%s%s", a.read_only ? "ro" : "rw",
             a.allow_other ? ",allow_other" : "", a.project ? ",project=" : "",
             a.project ? a.project : "");
    program = program && *program ? program : BINDIR "/cowgate-fuse";
    if (root)
        execl(program, "cowgate-fuse", root, argv[optind], "-o", options,
              a.foreground ? "-f" : NULL, NULL);
    cg_error_set(&cli->err, root ? errno : ENOMEM, "start %s", program);
    return cli_failed(cli);
}

/* Unmounts by the kernel, or by fusermount3 for whoever isn't root. */
static int unmount(const char *dir, struct cg_error *err)
{
    if (geteuid() == 0)
        return umount2(dir, 0) == 0 ? 0 : cg_error_set(err, errno, "unmount %s", dir);
    pid_t pid = fork();
    if (pid < 0)
        return cg_error_set(err, errno, "start fusermount3");
    if (pid == 0) {
        execlp("fusermount3", "fusermount3", "-u", dir, NULL);
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
    if (fd < 0 || unmount(dir, &cli->err) < 0) {
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
