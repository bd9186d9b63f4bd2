/* What an RBD image's metadata says of who stands on it: a key, a newline, its value. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/rbd/mark_key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *key = calloc(1, size + 1), again[256] = "";
    struct cg_rbd_mark mark;

    if (size > 0)
        memcpy(key, data, size);
    char *value = strchr(key, '\n');
    if (value)
        *value++ = '\0';
    if (cg_rbd_mark_key_decode(key, value ? value : "", &mark)) {
        cg_rbd_mark_key_encode(again, sizeof again, &mark);
        if (strcmp(key, again) != 0)
            abort();
    }
    free(key);
    return 0;
}
