#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/volumes/change_request.h"

static const char *const op_names[] = {
    [CG_CHANGE_SNAPSHOT] = "snapshot", [CG_CHANGE_REMOVE_SNAPSHOT] = "remove-snapshot",
    [CG_CHANGE_RESIZE] = "resize",     [CG_CHANGE_ROLLBACK] = "rollback",
    [CG_CHANGE_SEAL] = "seal",         [CG_CHANGE_MOMENT] = "moment",
};
#define OPS (sizeof op_names / sizeof *op_names)

json_t *cg_change_request_encode(const struct cg_change *change)
{
    json_t *request =
        json_pack("{s:s, s:s, s:s, s:I}", "op", op_names[change->op], "id", change->id, "snapshot",
                  change->snapshot, "size", (json_int_t)change->size);

    if (request && *change->uuid &&
        json_object_set_new(request, "uuid", json_string(change->uuid)) < 0) {
        json_decref(request);
        return NULL;
    }
    return request;
}

static bool names_a_snapshot(enum cg_change_op op)
{
    return op == CG_CHANGE_SNAPSHOT || op == CG_CHANGE_REMOVE_SNAPSHOT ||
           op == CG_CHANGE_ROLLBACK || op == CG_CHANGE_MOMENT;
}

int cg_change_request_decode(const json_t *request, struct cg_change *ret, struct cg_error *err)
{
    const char *op = json_string_value(json_object_get(request, "op"));
    const char *name = json_string_value(json_object_get(request, "snapshot"));
    const char *id = json_string_value(json_object_get(request, "id"));
    const json_t *uuid = json_object_get(request, "uuid");
    const char *only = json_string_value(uuid);
    json_int_t size = json_integer_value(json_object_get(request, "size"));
    struct cg_change change = { .size = (uint64_t)size };
    size_t i = 0;

    while (op && i < OPS && strcmp(op, op_names[i]) != 0)
        i++;
    if (!op || i == OPS || !id || !cg_uuid_valid(id) || size < 0 || !name ||
        (uuid && (!only || !cg_uuid_valid(only))) ||
        (names_a_snapshot((enum cg_change_op)i) ? !cg_name_part_valid(name) : *name != '\0'))
        return cg_error_say(err, EINVAL, "the request makes no sense");
    change.op = (enum cg_change_op)i;
    snprintf(change.id, sizeof change.id, "%s", id);
    snprintf(change.snapshot, sizeof change.snapshot, "%s", name);
    snprintf(change.uuid, sizeof change.uuid, "%s", only ? only : "");
    *ret = change;
    return 0;
}
