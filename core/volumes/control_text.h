/* What goes over the socket of a volume's writer, as text: lines of JSON objects. */
#ifndef CG_VOLUMES_CONTROL_TEXT_H
#define CG_VOLUMES_CONTROL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/base/error.h"

#define CG_CONTROL_LINE_MAX ((size_t)16 << 20)

/* The line with its newline; the caller frees it.  NULL if memory is short. */
char *cg_control_text_encode(const json_t *object, size_t *ret_len);

/* The object in a line, which the caller owns.  -EPROTO: there is none. */
int cg_control_text_decode(const char *line, size_t len, json_t **ret_object);

/* The line with which a request ends that failed with -errnum.  NULL if memory is short. */
json_t *cg_control_text_failure(int errnum, const char *message);

/* What a line says to who asked.  1: it's the answer; 0: more lines follow, and so much is done of
 * so much (both 0: it doesn't say); else the error that it tells. */
int cg_control_text_answer(const json_t *line, uint64_t *ret_done, uint64_t *ret_total,
                           struct cg_error *err);

#endif
