#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/hooks.h"
#include "core/base/cleanup.h"

bool cli_hooks_set(struct cli_hooks *hooks, int option, const char *value)
{
    if (option == 'F')
        hooks->freeze = value;
    else if (option == 'T')
        hooks->thaw = value;
    return option == 'F' || option == 'T';
}

/* In the child: as a shell command.  patient: what ends this command, by a terminal's keys say,
 * doesn't end it. */
static void become(const char *command, char **names, bool patient)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    size_t count = 0;

    signal(SIGPIPE, SIG_DFL); /* which this program ignores */
    for (size_t i = 0; patient && i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_IGN);
    while (names[count])
        count++;
    char **argv = calloc(count + 5, sizeof *argv);
    if (argv && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0) {
        argv[0] = argv[3] = (char *)"sh";
        argv[1] = (char *)"-c";
        argv[2] = (char *)command;
        memcpy(argv + 4, names, count * sizeof *argv);
        execv("/bin/sh", argv);
    }
    _exit(127);
}

/* Waits for the child; told to end itself, this process tells it too. */
static int wait_for(pid_t pid, bool patient)
{
    int status;
    bool told = patient;
    CG_CLEANUP(cg_close) int fd = pidfd_open(pid, 0);
    struct pollfd p = { .fd = fd, .events = POLLIN };

    while (fd >= 0 && poll(&p, 1, told ? -1 : 100) <= 0) {
        if (!told && cli_interrupted()) {
            kill(pid, SIGTERM);
            told = true;
        }
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

static int run(const char *what, const char *command, char **names, bool patient,
               struct cg_error *err)
{
    pid_t pid = fork();

    if (pid < 0)
        return cg_error_set(err, errno, "%s %s", what, command);
    if (pid == 0)
        become(command, names, patient);
    int status = wait_for(pid, patient);
    if (status == 0)
        return 0;
    if (WIFSIGNALED(status))
        return cg_error_say(err, ECANCELED, "%s %s was ended by signal %d", what, command,
                            WTERMSIG(status));
    return cg_error_say(err, ECANCELED, "%s %s ended with status %d", what, command,
                        WEXITSTATUS(status));
}

int cli_hooks_begin(struct cli_hooks *hooks, struct cg_error *err)
{
    if (!hooks->freeze && !hooks->thaw)
        return 0;
    cli_hold_interrupts(true);
    hooks->begun = true;
    int r = hooks->freeze ? run("--freeze", hooks->freeze, hooks->names, false, err) : 0;
    if (r < 0)
        return cg_error_prefix(err, r, "no snapshot was taken");
    if (cli_interrupted())
        return cg_error_say(err, EINTR, "interrupted: no snapshot was taken");
    return 0;
}

int cli_hooks_end(struct cli_hooks *hooks, bool taken, struct cg_error *err)
{
    if (!hooks->begun)
        return 0;
    hooks->begun = false;
    int r = 0;
    if (hooks->thaw) {
        setenv("COWGATE_TAKEN", taken ? "yes" : "no", 1);
        r = run("--thaw", hooks->thaw, hooks->names, true, err);
    }
    cli_hold_interrupts(false);
    return r;
}
