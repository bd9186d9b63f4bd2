/* A line on the socket of a volume's writer: as a request, and as what is said to who asked. */
#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/volumes/change_request.h"
#include "core/volumes/control_text.h"
#include "core/volumes/layers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_request(const json_t *line)
{
    struct cg_change change, again;
    struct cg_error err;

    if (cg_change_request_decode(line, &change, &err) < 0)
        return;
    bool named = change.op == CG_CHANGE_SNAPSHOT || change.op == CG_CHANGE_REMOVE_SNAPSHOT ||
                 change.op == CG_CHANGE_ROLLBACK || change.op == CG_CHANGE_MOMENT;
    if (!cg_uuid_valid(change.id) || named != cg_name_part_valid(change.snapshot))
        abort();
    json_t *request = cg_change_request_encode(&change);
    if (!request || cg_change_request_decode(request, &again, &err) < 0 || again.op != change.op ||
        again.size != change.size || strcmp(again.snapshot, change.snapshot) != 0 ||
        strcmp(again.id, change.id) != 0 || strcmp(again.uuid, change.uuid) != 0)
        abort();
    json_decref(request);
}

static void as_answer(const json_t *line)
{
    struct cg_layers layers;
    uint64_t done, total;
    struct cg_error err;

    int r = cg_control_text_answer(line, &done, &total, &err);
    if (r == -ECONNRESET || (r == 0 && done > total))
        abort();
    if (r > 0 && cg_layers_from_json(line, &layers, &err) == 0) {
        if (layers.count == 0 || layers.size == 0)
            abort();
        cg_layers_clear(&layers);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *line, *again;
    size_t len;

    if (cg_control_text_decode((const char *)data, size, &line) < 0)
        return 0;
    char *text = cg_control_text_encode(line, &len);
    /* A line is one: no newline but the last byte. */
    if (!text || memchr(text, '\n', len) != text + len - 1 ||
        cg_control_text_decode(text, len, &again) < 0 || !json_equal(line, again))
        abort();
    free(text);
    as_request(line);
    as_answer(line);
    json_decref(line);
    json_decref(again);
    return 0;
}
