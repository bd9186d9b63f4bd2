/* A chain as a list of uuids: how volume.json and the writer's socket speak of it. */
#ifndef CG_VOLUMES_LAYERS_H
#define CG_VOLUMES_LAYERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/base/bytes.h"
#include "core/base/error.h"

#define CG_LAYERS_MAX 65536

/* The uuids of a chain's layers, bottom to top, and the size that they show. */
struct cg_layers {
    uint64_t size;
    size_t count;
    char (*uuid)[CG_UUID_LEN + 1]; /* owned */
};

void cg_layers_clear(struct cg_layers *layers);

/* A deep copy. */
int cg_layers_copy(const struct cg_layers *layers, struct cg_layers *ret, struct cg_error *err);

/* Adds a layer above or below all others. */
int cg_layers_add(struct cg_layers *layers, const char *uuid, struct cg_error *err);
int cg_layers_insert(struct cg_layers *layers, const char *uuid, struct cg_error *err);

/* Takes a layer out, if it's there. */
void cg_layers_remove(struct cg_layers *layers, const char *uuid);

bool cg_layers_has(const struct cg_layers *layers, const char *uuid);

/* How many of the lowest of layers are those of old, with the layer instead maybe below them: what
 * that one stands for.  0: they aren't. */
size_t cg_layers_replaced(const struct cg_layers *layers, const struct cg_layers *old,
                          const char *instead);

/* True if the layers of below are the lowest of layers, in the same order. */
bool cg_layers_begin_with(const struct cg_layers *layers, const struct cg_layers *below);

/* Reads {"size": BYTES, "layers": [UUID ...]}: a size that an image can have, at least one layer,
 * none twice.  -EIO for anything else. */
int cg_layers_from_json(const json_t *json, struct cg_layers *ret, struct cg_error *err);

/* Adds the two members to a JSON object.  -ENOMEM. */
int cg_layers_to_json(const struct cg_layers *layers, json_t *object, struct cg_error *err);

#endif
