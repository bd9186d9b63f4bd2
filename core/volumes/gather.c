#include "config.h"

#include <errno.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/volumes/gather.h"

/* All chains begin with so many layers of the head. */
static bool in_common(const struct cg_volume_json *json, size_t count)
{
    const struct cg_layers below = { .count = count, .uuid = json->head.uuid };

    for (size_t i = 0; i < json->snapshots; i++)
        if (!cg_layers_begin_with(&json->snapshot[i].layers, &below))
            return false;
    return count < json->head.count;
}

size_t cg_gather_count(struct cg_volume *v, uint64_t *ret_size)
{
    const struct cg_volume_json *json = &v->json;
    size_t count = 0;

    for (size_t i = 0; i < json->head.count; i++) {
        const char *uuid = json->head.uuid[i];
        bool inherited = cg_layers_has(&json->inherited, uuid);
        struct cg_layer *layer = inherited ? cg_chain_find(v->head, uuid) : NULL;
        if (layer && cg_layer_shared(layer) && in_common(json, i + 1)) {
            count = i + 1;
            *ret_size = cg_layer_size(layer);
        }
    }
    return count;
}

int cg_gather_begin(struct cg_volume_json *json, size_t count, uint64_t size, const char *uuid,
                    struct cg_error *err)
{
    struct cg_layers lowest = { size, count, json->head.uuid }, inherited;
    int r = cg_layers_copy(&lowest, &inherited, err);

    if (r < 0)
        return r;
    cg_layers_clear(&json->inherited);
    json->inherited = inherited;
    strcpy(json->instead, uuid);
    return 0;
}

void cg_gather_end(struct cg_volume_json *json)
{
    for (size_t i = 0; i < json->inherited.count; i++)
        cg_volume_json_drop(json, json->inherited.uuid[i]);
}

void cg_gather_drop(struct cg_volume_json *json)
{
    json->instead[0] = '\0';
}

/* Another volume may have a working map of one of them, which is its business: only while it fills
 * a layer of its own, that this one stood on too. */
void cg_gather_unlink(struct cg_volume *v)
{
    for (size_t i = 0; i < v->json.inherited.count; i++)
        if (!cg_volume_json_names(&v->json, v->json.inherited.uuid[i]))
            cg_layer_remove(v->dirfd, v->json.inherited.uuid[i], NULL);
}

static int gathered_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    return cg_chain_read(self, buf, len, off, err);
}

static int gathered_extents(void *self, struct cg_extents *e, struct cg_error *err)
{
    return cg_chain_extents(self, e, err);
}

static uint64_t gathered_size(void *self)
{
    return cg_chain_size(self);
}

static void gathered_prefetch(void *self, uint64_t len, uint64_t off)
{
    cg_chain_prefetch(self, len, off);
}

static void gathered_close(void *self)
{
    cg_chain_unref(self);
}

static const struct cg_image_ops ops = {
    .name = "gathered layers",
    .pread = gathered_pread,
    .extents = gathered_extents,
    .size = gathered_size,
    .prefetch = gathered_prefetch,
    .close = gathered_close,
};

struct cg_image *cg_gather_image(struct cg_layer **layers, size_t count, struct cg_parent *parent)
{
    /* Its reads aren't a client's, which have right of way. */
    struct cg_parent *aside = parent ? cg_parent_aside(parent) : NULL;
    struct cg_chain *chain = NULL;
    struct cg_image *image = NULL;

    if (aside || !parent)
        chain = cg_chain_new(cg_layer_size(layers[count - 1]), layers, count, aside);
    if (chain)
        image = cg_image_new(&ops, chain, true);
    if (!image)
        cg_chain_unref(chain);
    cg_parent_unref(aside);
    return image;
}
