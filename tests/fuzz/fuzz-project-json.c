/* project.json. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/backups/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cg_keys *keys;
    struct cg_error err;

    if (cg_keys_parse("acme", (const char *)data, size, &keys, &err) == 0)
        cg_keys_free(keys);
    return 0;
}
