#include "config.h"

#include <errno.h>
#include <string.h>

#include "core/volumes/control_text.h"

char *cg_control_text_encode(const json_t *object, size_t *ret_len)
{
    char *text = json_dumps(object, JSON_COMPACT);

    if (!text)
        return NULL;
    size_t len = strlen(text);
    text[len++] = '\n'; /* in place of the NUL */
    *ret_len = len;
    return text;
}

int cg_control_text_decode(const char *line, size_t len, json_t **ret_object)
{
    json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);

    if (!json_is_object(object)) {
        json_decref(object);
        return -EPROTO;
    }
    *ret_object = object;
    return 0;
}

json_t *cg_control_text_failure(int errnum, const char *message)
{
    json_t *line = json_pack("{s:i}", "errno", errnum);

    json_object_set_new(line, "message", json_string(message)); /* it may be no UTF-8 */
    return line;
}

static int take_error(const json_t *line, struct cg_error *err)
{
    json_int_t errnum = json_integer_value(json_object_get(line, "errno"));
    const char *message = json_string_value(json_object_get(line, "message"));

    /* ECONNRESET would mean to ask again. */
    if (errnum <= 0 || errnum > 4095 || errnum == ECONNRESET)
        errnum = EIO;
    return cg_error_say(err, (int)errnum, "%s", message ? message : "the writer gave no reason");
}

int cg_control_text_answer(const json_t *line, uint64_t *ret_done, uint64_t *ret_total,
                           struct cg_error *err)
{
    json_int_t done = json_integer_value(json_object_get(line, "done"));
    json_int_t total = json_integer_value(json_object_get(line, "total"));

    if (json_object_get(line, "ok"))
        return 1;
    if (json_object_get(line, "errno"))
        return take_error(line, err);
    if (done < 0 || total < done)
        done = total = 0;
    *ret_done = (uint64_t)done;
    *ret_total = (uint64_t)total;
    return 0;
}
