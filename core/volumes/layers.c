#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "core/base/size.h"
#include "core/volumes/layers.h"

void cg_layers_clear(struct cg_layers *layers)
{
    free(layers->uuid);
    *layers = (struct cg_layers){ .size = 0 };
}

int cg_layers_copy(const struct cg_layers *layers, struct cg_layers *ret, struct cg_error *err)
{
    struct cg_layers copy = *layers;

    copy.uuid = malloc((layers->count + 1) * sizeof *copy.uuid);
    if (!copy.uuid)
        return cg_error_set(err, ENOMEM, "copy a chain");
    if (layers->count)
        memcpy(copy.uuid, layers->uuid, layers->count * sizeof *copy.uuid);
    *ret = copy;
    return 0;
}

int cg_layers_add(struct cg_layers *layers, const char *uuid, struct cg_error *err)
{
    void *grown = realloc(layers->uuid, (layers->count + 1) * sizeof *layers->uuid);

    if (!grown)
        return cg_error_set(err, ENOMEM, "extend a chain");
    layers->uuid = grown;
    snprintf(layers->uuid[layers->count++], sizeof *layers->uuid, "%s", uuid);
    return 0;
}

int cg_layers_insert(struct cg_layers *layers, const char *uuid, struct cg_error *err)
{
    int r = cg_layers_add(layers, uuid, err);

    if (r < 0)
        return r;
    memmove(layers->uuid + 1, layers->uuid, (layers->count - 1) * sizeof *layers->uuid);
    snprintf(layers->uuid[0], sizeof *layers->uuid, "%s", uuid);
    return 0;
}

void cg_layers_remove(struct cg_layers *layers, const char *uuid)
{
    size_t kept = 0;

    for (size_t i = 0; i < layers->count; i++)
        if (strcmp(layers->uuid[i], uuid) != 0)
            memmove(layers->uuid[kept++], layers->uuid[i], sizeof *layers->uuid);
    layers->count = kept;
}

bool cg_layers_has(const struct cg_layers *layers, const char *uuid)
{
    for (size_t i = 0; i < layers->count; i++)
        if (strcmp(layers->uuid[i], uuid) == 0)
            return true;
    return false;
}

size_t cg_layers_replaced(const struct cg_layers *layers, const struct cg_layers *old,
                          const char *instead)
{
    size_t below = layers->count && strcmp(layers->uuid[0], instead) == 0;
    struct cg_layers rest = { .count = layers->count - below, .uuid = layers->uuid + below };

    return old->count && cg_layers_begin_with(&rest, old) ? below + old->count : 0;
}

bool cg_layers_begin_with(const struct cg_layers *layers, const struct cg_layers *below)
{
    if (below->count > layers->count)
        return false;
    for (size_t i = 0; i < below->count; i++)
        if (strcmp(layers->uuid[i], below->uuid[i]) != 0)
            return false;
    return true;
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static bool has_twice(const struct cg_layers *layers)
{
    struct cg_layers sorted;
    bool twice = false;

    if (cg_layers_copy(layers, &sorted, NULL) < 0)
        return true;
    qsort(sorted.uuid, sorted.count, sizeof *sorted.uuid, compare);
    for (size_t i = 1; i < sorted.count; i++)
        twice = twice || strcmp(sorted.uuid[i - 1], sorted.uuid[i]) == 0;
    cg_layers_clear(&sorted);
    return twice;
}

static int read_uuids(const json_t *array, struct cg_layers *layers, struct cg_error *err)
{
    size_t n = json_array_size(array);

    if (n == 0 || n > CG_LAYERS_MAX)
        return cg_error_say(err, EIO, "a chain has %zu layers", n);
    for (size_t i = 0; i < n; i++) {
        const char *uuid = json_string_value(json_array_get(array, i));
        if (!uuid || !cg_uuid_valid(uuid))
            return cg_error_say(err, EIO, "a layer has no valid uuid");
        int r = cg_layers_add(layers, uuid, err);
        if (r < 0)
            return r;
    }
    return has_twice(layers) ? cg_error_say(err, EIO, "a chain has a layer twice") : 0;
}

int cg_layers_from_json(const json_t *json, struct cg_layers *ret, struct cg_error *err)
{
    json_int_t size = json_integer_value(json_object_get(json, "size"));
    struct cg_layers layers = { .size = (uint64_t)size };

    if (size <= 0 || size % CG_SECTOR || (uint64_t)size > CG_IMAGE_MAX)
        return cg_error_say(err, EIO, "a chain has no valid size");
    int r = read_uuids(json_object_get(json, "layers"), &layers, err);
    if (r < 0) {
        cg_layers_clear(&layers);
        return r;
    }
    *ret = layers;
    return 0;
}

int cg_layers_to_json(const struct cg_layers *layers, json_t *object, struct cg_error *err)
{
    json_t *array = json_array();
    int bad = !array;

    for (size_t i = 0; !bad && i < layers->count; i++)
        bad = json_array_append_new(array, json_string(layers->uuid[i]));
    bad = bad || json_object_set_new(object, "size", json_integer((json_int_t)layers->size));
    bad = bad || json_object_set(object, "layers", array);
    json_decref(array);
    return bad ? cg_error_set(err, ENOMEM, "describe a chain") : 0;
}
