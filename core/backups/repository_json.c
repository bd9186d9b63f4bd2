#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "core/backups/repository_json.h"

#define FORMAT 1

void cg_repository_json_encode(const char *uuid, char ret[static CG_REPOSITORY_JSON_BYTES])
{
    snprintf(ret, CG_REPOSITORY_JSON_BYTES, "{\"format\": %d, \"uuid\": \"%s\", \"crc32c\": %u}\n",
             FORMAT, uuid, cg_crc32c(uuid, CG_UUID_LEN));
}

static int take(json_t *doc, const char *why, char ret_uuid[static CG_UUID_LEN + 1],
                struct cg_error *err)
{
    json_int_t format, crc;
    const char *uuid;

    if (json_unpack(doc, "{s:I}", "format", &format) < 0 || format < 1)
        return cg_error_say(err, EIO, CG_REPOSITORY_JSON " is damaged: %s",
                            doc ? "no format" : why);
    if (format != FORMAT)
        return cg_error_say(
            err, ENOTSUP, "the repository has format %lld; this version of cowgate reads format %d",
            (long long)format, FORMAT);
    if (json_unpack(doc, "{s:s, s:I}", "uuid", &uuid, "crc32c", &crc) < 0 || !cg_uuid_valid(uuid) ||
        crc != cg_crc32c(uuid, CG_UUID_LEN))
        return cg_error_say(err, EIO,
                            CG_REPOSITORY_JSON " is damaged: its uuid doesn't pass its check");
    memcpy(ret_uuid, uuid, CG_UUID_LEN + 1);
    return 0;
}

int cg_repository_json_decode(const char *text, size_t len, char ret_uuid[static CG_UUID_LEN + 1],
                              struct cg_error *err)
{
    json_error_t why;
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    int r = take(doc, why.text, ret_uuid, err);

    json_decref(doc);
    return r;
}
