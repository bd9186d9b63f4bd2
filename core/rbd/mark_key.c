#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/rbd/mark_key.h"

void cg_rbd_mark_key_encode(char *ret, size_t size, const struct cg_rbd_mark *m)
{
    size_t n = strlen(ret);

    snprintf(ret + n, size - n, "%" PRIu64 ".%s.%s", m->snapshot,
             m->protection ? "protected" : "hold", m->uuid);
}

bool cg_rbd_mark_key_decode(const char *key, const char *value, struct cg_rbd_mark *ret)
{
    const char *uuid = strrchr(key, '.');
    struct cg_rbd_mark m = { 0 };
    char again[CG_UUID_LEN + 32] = "";

    if (sscanf(key, "%" SCNu64, &m.snapshot) != 1 || !uuid || !cg_uuid_valid(uuid + 1))
        return false;
    strcpy(m.uuid, uuid + 1);
    m.protection = strstr(key, ".protected.");
    cg_rbd_mark_key_encode(again, sizeof again, &m);
    if (strcmp(key, again) != 0)
        return false;
    snprintf(m.host, sizeof m.host, "%s", value);
    *ret = m;
    return true;
}
