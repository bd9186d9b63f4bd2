/* What the header of an RBD image says of its migration. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/rbd/migration_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Texts lie within what was decoded. */
static void check(const uint8_t *data, size_t size, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;

    if (len > 0 && (p < data || len > size || p > data + size - len))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cg_rbd_migration m;

    if (!cg_rbd_migration_decode(data, size, &m))
        return 0;
    check(data, size, m.spec, m.spec_len);
    check(data, size, m.description, m.description_len);
    return 0;
}
