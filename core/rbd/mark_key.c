#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/rbd/mark_key.h"

void cg_rbd_mark_key_encode(char *ret, size_t size, uint64_t snapshot, const char *uuid)
{
    size_t n = strlen(ret);

    snprintf(ret + n, size - n, "%" PRIu64 ".%s%s", snapshot, uuid ? "hold." : "protected",
             uuid ? uuid : "");
}

bool cg_rbd_mark_key_decode(const char *key, const char *value, struct cg_rbd_mark *ret)
{
    struct cg_rbd_mark m = { 0 };
    char again[CG_UUID_LEN + 32] = "";
    int end = 0;

    if (sscanf(key, "%" SCNu64 ".hold.%n", &m.snapshot, &end) != 1)
        return false;
    if (end && cg_uuid_valid(key + end))
        strcpy(m.uuid, key + end);
    cg_rbd_mark_key_encode(again, sizeof again, m.snapshot, *m.uuid ? m.uuid : NULL);
    if (strcmp(key, again) != 0)
        return false;
    snprintf(m.host, sizeof m.host, "%s", value);
    *ret = m;
    return true;
}
