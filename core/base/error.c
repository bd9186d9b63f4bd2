#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/base/error.h"

/* Formats the message; keeps errno, which what is formatted may change. */
static void format(struct cg_error *err, const char *fmt, va_list ap)
{
    int saved = errno;

    vsnprintf(err->message, sizeof err->message, fmt, ap);
    errno = saved;
}

/* Puts ": TEXT" behind the message. */
static void append(struct cg_error *err, const char *text)
{
    size_t n = strlen(err->message);
    int saved = errno;

    snprintf(err->message + n, sizeof err->message - n, ": %s", text);
    errno = saved;
}

int cg_error_set(struct cg_error *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return -errnum;
    va_start(ap, fmt);
    format(err, fmt, ap);
    va_end(ap);
    /* Not strerror_r: it translates, under locks of its own. */
    const char *text = strerrordesc_np(errnum);
    append(err, text ? text : "unknown error");
    return -errnum;
}

int cg_error_say(struct cg_error *err, int errnum, const char *fmt, ...)
{
    va_list ap;

    if (!err)
        return -errnum;
    va_start(ap, fmt);
    format(err, fmt, ap);
    va_end(ap);
    return -errnum;
}

int cg_error_prefix(struct cg_error *err, int r, const char *fmt, ...)
{
    char old[CG_ERROR_MAX];
    va_list ap;

    if (!err)
        return r;
    memcpy(old, err->message, sizeof old);
    va_start(ap, fmt);
    format(err, fmt, ap);
    va_end(ap);
    append(err, old);
    return r;
}
