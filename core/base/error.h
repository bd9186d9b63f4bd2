/* Errors are values: a function that can fail returns 0 or -errno and fills a caller-owned
 * struct cg_error with one sentence for a person.  Nothing but a face prints it.
 *
 *     struct cg_error err;
 *     r = cg_thing(..., &err);
 *     if (r < 0)
 *         return cg_error_prefix(&err, r, "open %s", name);     // adds context
 *
 * A wrong use: printing here, or returning -errno without a message.
 */
#ifndef CG_BASE_ERROR_H
#define CG_BASE_ERROR_H

#include <stddef.h>

#define CG_ERROR_MAX 1024

struct cg_error {
    char message[CG_ERROR_MAX]; /* always terminated; meaningful only after a failure */
};

/* Sets the message, with ": " and the errno's text appended, and returns -errnum.
 * err may be NULL.  Keeps errno.  Any thread. */
int cg_error_set(struct cg_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As cg_error_set without the errno's text: for messages that already say why. */
int cg_error_say(struct cg_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "CONTEXT: " before the message that is there and returns r unchanged. */
int cg_error_prefix(struct cg_error *err, int r, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
