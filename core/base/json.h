/* What all readers of JSON (jansson) need. */
#ifndef CG_BASE_JSON_H
#define CG_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <jansson.h>

/* For CG_CLEANUP. */
static inline void cg_json_cleanup(json_t **json)
{
    json_decref(*json);
}

/* Copies the string that object has under key into size bytes; false if there is none or it doesn't
 * fit. */
static inline bool cg_json_text(const json_t *object, const char *key, char *ret, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (!text || strlen(text) >= size)
        return false;
    memcpy(ret, text, strlen(text) + 1);
    return true;
}

#endif
