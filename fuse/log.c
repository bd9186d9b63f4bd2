#include "config.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include <fuse_log.h>

#include "core/base/cleanup.h"
#include "fuse/log.h"

static atomic_bool to_syslog;

static void put(int priority, const char *line)
{
    if (atomic_load(&to_syslog))
        syslog(priority, "%s", line);
    else
        fprintf(stderr, "cowgate-fuse: %s\n", line);
}

/* libfuse's lines come in pieces. */
static void log_of_libfuse(enum fuse_log_level level, const char *fmt, va_list args)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards line, len */
    static char line[2048];
    static size_t len;

    CG_LOCK(&lock);
    vsnprintf(line + len, sizeof line - len, fmt, args);
    len += strlen(line + len);
    if (len == 0 || (line[len - 1] != '\n' && len < sizeof line - 1))
        return;
    if (line[len - 1] == '\n')
        line[len - 1] = '\0';
    len = 0;
    put((int)level, line); /* its levels are syslog's */
}

void cg_log_start(void)
{
    fuse_set_log_func(log_of_libfuse);
}

void cg_log_to_syslog(void)
{
    openlog("cowgate-fuse", LOG_PID, LOG_DAEMON);
    atomic_store(&to_syslog, true);
}

void cg_log(const char *fmt, ...)
{
    char line[2048];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    put(LOG_ERR, line);
}
