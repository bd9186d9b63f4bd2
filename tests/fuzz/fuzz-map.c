/* The header of a map file. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/size.h"
#include "core/volumes/map_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is taken makes sense and is written as it was read, but for bytes that nothing looks at. */
static void check(const uint8_t *data, size_t size)
{
    uint8_t again[CG_MAP_HEADER];
    struct cg_map_header header, twice;
    struct cg_error err;

    if (cg_map_file_decode(data, size, &header, &err) < 0)
        return;
    if (header.size == 0 || header.size % CG_SECTOR || header.size > CG_IMAGE_MAX ||
        !cg_uuid_valid(header.uuid) || cg_map_file_windows(header.size) == 0)
        abort();
    cg_map_file_encode(again, &header);
    if (cg_map_file_decode(again, sizeof again, &twice, &err) < 0 || twice.size != header.size ||
        strcmp(twice.uuid, header.uuid) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t fixed[CG_MAP_HEADER];

    check(data, size);
    /* The checksum would stop nearly everything: look behind it too. */
    if (size >= sizeof fixed) {
        memcpy(fixed, data, sizeof fixed);
        cg_put_le32(fixed + sizeof fixed - 4, cg_crc32c(fixed, sizeof fixed - 4));
        check(fixed, sizeof fixed);
    }
    return 0;
}
