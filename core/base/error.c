#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/error.h"

int cg_error_set(struct cg_error *err, int errnum, const char *fmt, ...)
{
    if (!err)
        return -errnum;
    int saved = errno;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->message);
    /* Not strerror_r: it translates, under locks of its own. */
    const char *text = strerrordesc_np(errnum);
    snprintf(err->message + n, sizeof err->message - n, ": %s", text ? text : "unknown error");
    errno = saved;
    return -errnum;
}

int cg_error_say(struct cg_error *err, int errnum, const char *fmt, ...)
{
    if (!err)
        return -errnum;
    int saved = errno;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    errno = saved;
    return -errnum;
}

int cg_error_prefix(struct cg_error *err, int r, const char *fmt, ...)
{
    if (!err)
        return r;
    int saved = errno;
    char old[CG_ERROR_MAX];
    va_list ap;

    memcpy(old, err->message, sizeof old);
    va_start(ap, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->message);
    snprintf(err->message + n, sizeof err->message - n, ": %s", old);
    errno = saved;
    return r;
}
