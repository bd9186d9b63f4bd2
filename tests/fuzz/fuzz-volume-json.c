/* volume.json: what is taken can be written, and reads the same again. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/volumes/volume_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cg_volume_json json, again;
    struct cg_error err;

    if (cg_volume_json_parse((const char *)data, size, &json, &err) < 0)
        return 0;
    if (!cg_uuid_valid(json.uuid) || json.head.count == 0 || json.head.size == 0)
        abort();
    char *text = cg_volume_json_text(&json);
    if (!text || cg_volume_json_parse(text, strlen(text), &again, &err) < 0)
        abort();
    char *twice = cg_volume_json_text(&again);
    if (!twice || strcmp(text, twice) != 0)
        abort();
    free(text);
    free(twice);
    cg_volume_json_clear(&json);
    cg_volume_json_clear(&again);
    return 0;
}
