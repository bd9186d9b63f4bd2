/* repository.json. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/repository_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char uuid[CG_UUID_LEN + 1], again[CG_UUID_LEN + 1], text[CG_REPOSITORY_JSON_BYTES];
    struct cg_error err;

    if (cg_repository_json_decode((const char *)data, size, uuid, &err) < 0)
        return 0;
    cg_repository_json_encode(uuid, text);
    if (!cg_uuid_valid(uuid) || cg_repository_json_decode(text, strlen(text), again, &err) < 0 ||
        strcmp(uuid, again) != 0)
        abort();
    return 0;
}
