#include "config.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include <fuse_log.h>

#include "fuse/log.h"

static atomic_bool to_syslog;

static void vlog(int priority, const char *fmt, va_list args)
{
    char line[2048];

    vsnprintf(line, sizeof line, fmt, args);
    size_t len = strlen(line);
    while (len > 0 && line[len - 1] == '\n')
        line[--len] = '\0';
    if (atomic_load(&to_syslog))
        syslog(priority, "%s", line);
    else
        fprintf(stderr, "cowgate-fuse: %s\n", line);
}

static void log_of_libfuse(enum fuse_log_level level, const char *fmt, va_list args)
{
    vlog((int)level, fmt, args); /* its levels are syslog's */
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
    va_list args;

    va_start(args, fmt);
    vlog(LOG_ERR, fmt, args);
    va_end(args);
}
