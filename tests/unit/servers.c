#include "config.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/files.h"
#include "tests/unit/servers.h"

#define ARGS_MAX 32

/* text with @SOCKET@ and @DIR@ replaced. */
static char *expand(const struct server *s, const char *text)
{
    char *ret;
    const char *at;
    int n;

    if ((at = strstr(text, "@SOCKET@")))
        n = asprintf(&ret, "%.*s%s/sock%s", (int)(at - text), text, s->directory, at + 8);
    else if ((at = strstr(text, "@DIR@")))
        n = asprintf(&ret, "%.*s%s%s", (int)(at - text), text, s->directory, at + 5);
    else
        n = asprintf(&ret, "%s", text);
    assert(n >= 0);
    return ret;
}

static void become(const struct server *s, const char *const *args)
{
    char *argv[ARGS_MAX] = { 0 };

    for (unsigned i = 0; args[i]; i++) {
        assert(i + 1 < ARGS_MAX);
        argv[i] = expand(s, args[i]);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* What a sanitizer or a test sets for us isn't meant for it. */
    unsetenv("LD_PRELOAD");
    execvp(argv[0], argv);
    _exit(127);
}

static int answers(const struct server *s)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(addr.sun_path, sizeof addr.sun_path, "%s/sock", s->directory);
    int r = connect(fd, (struct sockaddr *)&addr, sizeof addr);
    close(fd);
    return r == 0;
}

int server_start(struct server *s, const char *const *args)
{
    int status;

    strcpy(s->directory, "/tmp/cowgate-server.XXXXXX");
    assert(mkdtemp(s->directory));
    snprintf(s->uri, sizeof s->uri, "nbd+unix:///?socket=%s/sock", s->directory);
    s->pid = fork();
    assert(s->pid >= 0);
    if (s->pid == 0)
        become(s, args);
    while (!answers(s)) {
        if (waitpid(s->pid, &status, WNOHANG) == s->pid) {
            s->pid = 0;
            server_stop(s, SIGTERM);
            return -1;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    }
    return 0;
}

void server_stop(struct server *s, int sig)
{
    if (s->pid > 0) {
        kill(s->pid, sig);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
    cg_tree_remove(AT_FDCWD, s->directory, NULL);
}
