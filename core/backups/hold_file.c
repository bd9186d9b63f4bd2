#include "config.h"

#include <errno.h>
#include <string.h>

#include <jansson.h>

#include "core/backups/hold_file.h"

#define FORMAT 1

char *cg_hold_file_encode(const char *uuid, const char *point)
{
    json_t *doc = json_pack("{s:i, s:s, s:s}", "format", FORMAT, "uuid", uuid, "point", point);
    char *text = doc ? json_dumps(doc, 0) : NULL;

    json_decref(doc);
    return text;
}

/* VOLUME/POINT */
static bool is_point(const char *text)
{
    const char *slash = strchr(text, '/');
    char volume[CG_PART_MAX + 1];

    if (!slash || slash - text > CG_PART_MAX || strlen(slash + 1) > CG_PART_MAX)
        return false;
    memcpy(volume, text, (size_t)(slash - text));
    volume[slash - text] = '\0';
    return cg_name_part_valid(volume) && cg_name_point_valid(slash + 1);
}

int cg_hold_file_decode(const char *uuid, const char *text, size_t len,
                        char ret_point[static CG_HOLD_POINT], struct cg_error *err)
{
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const char *of, *point;
    int format;

    bool right =
        json_unpack(doc, "{s:i, s:s, s:s}", "format", &format, "uuid", &of, "point", &point) == 0 &&
        format == FORMAT && strcmp(of, uuid) == 0 && is_point(point);
    if (right)
        strcpy(ret_point, point);
    json_decref(doc);
    return right ? 0 : cg_error_say(err, EIO, "it isn't the hold of %s", uuid);
}
