/* A hold's file. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/hold_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char uuid[] = "00112233-4455-4677-8899-aabbccddeeff";
    char point[CG_HOLD_POINT], again[CG_HOLD_POINT];
    struct cg_error err;

    if (cg_hold_file_decode(uuid, (const char *)data, size, point, &err) < 0)
        return 0;
    char *text = cg_hold_file_encode(uuid, point);
    if (!text || cg_hold_file_decode(uuid, text, strlen(text), again, &err) < 0 ||
        strcmp(point, again) != 0)
        abort();
    free(text);
    return 0;
}
