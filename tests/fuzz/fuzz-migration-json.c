/* migration.json. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/jobs/migration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cg_migration_record record;
    struct cg_error err;

    if (cg_migration_record_decode((const char *)data, size, &record, &err) < 0)
        return 0;
    if (!cg_uuid_valid(record.uuid) || record.phase > CG_MIGRATION_ABORTING ||
        (record.count > 0 && !record.image))
        abort();
    cg_migration_record_clear(&record);
    return 0;
}
