#include "config.h"

#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/base/size.h"
#include "core/volumes/volume_json.h"

#define FORMAT 1
#define FILE_MAX ((size_t)64 << 20)

void cg_volume_json_clear(struct cg_volume_json *json)
{
    cg_layers_clear(&json->head);
    cg_layers_clear(&json->mixed);
    cg_layers_clear(&json->inherited);
    for (size_t i = 0; i < json->snapshots; i++)
        cg_layers_clear(&json->snapshot[i].layers);
    free(json->snapshot);
    *json = (struct cg_volume_json){ .uuid = "" };
}

int cg_volume_json_copy(const struct cg_volume_json *json, struct cg_volume_json *ret,
                        struct cg_error *err)
{
    struct cg_volume_json copy = *json;
    int r;

    copy.head = copy.mixed = copy.inherited = (struct cg_layers){ .size = 0 };
    copy.snapshot = NULL;
    copy.snapshots = 0;
    r = cg_layers_copy(&json->head, &copy.head, err);
    if (r == 0)
        r = cg_layers_copy(&json->mixed, &copy.mixed, err);
    if (r == 0)
        r = cg_layers_copy(&json->inherited, &copy.inherited, err);
    for (size_t i = 0; r == 0 && i < json->snapshots; i++) {
        r = cg_volume_json_add_snapshot(&copy, json->snapshot[i].name, json->snapshot[i].time,
                                        &json->snapshot[i].layers, err);
        if (r == 0)
            strcpy(copy.snapshot[i].uuid, json->snapshot[i].uuid);
    }
    if (r < 0) {
        cg_volume_json_clear(&copy);
        return r;
    }
    *ret = copy;
    return 0;
}

static int bad(struct cg_error *err, const char *what)
{
    return cg_error_say(err, EIO, "volume.json is damaged: %s", what);
}

/* A string member that fits into max bytes. */
static int get_text(const json_t *object, const char *key, char *ret, size_t max,
                    struct cg_error *err)
{
    if (!cg_json_text(object, key, ret, max))
        return cg_error_say(err, EIO, "volume.json is damaged: no valid \"%s\"", key);
    return 0;
}

static int get_number(const json_t *object, const char *key, int64_t *ret, struct cg_error *err)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return cg_error_say(err, EIO, "volume.json is damaged: no valid \"%s\"", key);
    *ret = json_integer_value(value);
    return 0;
}

static int parse_parent(const json_t *parent, struct cg_volume_json *ret, struct cg_error *err)
{
    int64_t size;

    if (!parent || json_is_null(parent))
        return 0;
    int r = get_text(parent, "ref", ret->parent, sizeof ret->parent, err);
    if (r == 0)
        r = get_text(parent, "identity", ret->parent_identity, sizeof ret->parent_identity, err);
    if (r == 0)
        r = get_number(parent, "size", &size, err);
    if (r < 0)
        return r;
    if (!*ret->parent || (uint64_t)size > CG_IMAGE_MAX)
        return bad(err, "its parent makes no sense");
    ret->parent_size = (uint64_t)size;
    return 0;
}

static int parse_release(const json_t *release, struct cg_volume_json *ret, struct cg_error *err)
{
    if (!release)
        return 0;
    int r = get_text(release, "ref", ret->release, sizeof ret->release, err);
    if (r == 0)
        r = get_text(release, "uuid", ret->release_uuid, sizeof ret->release_uuid, err);
    if (r == 0 && json_object_get(release, "identity"))
        r = get_text(release, "identity", ret->release_identity, sizeof ret->release_identity, err);
    if (r < 0)
        return r;
    if (!*ret->release || !cg_uuid_valid(ret->release_uuid))
        return bad(err, "what is to be released makes no sense");
    return 0;
}

static int parse_depth(const json_t *depth, struct cg_volume_json *ret, struct cg_error *err)
{
    json_int_t n = json_integer_value(depth);

    if (depth && (n <= 0 || n > INT_MAX))
        return bad(err, "no valid \"depth\"");
    ret->depth = (unsigned)n;
    return 0;
}

static int parse_inherited(const json_t *root, struct cg_volume_json *ret, struct cg_error *err)
{
    const json_t *inherited = json_object_get(root, "inherited");
    const json_t *instead = json_object_get(root, "instead");

    if (inherited) {
        int r = cg_layers_from_json(inherited, &ret->inherited, err);
        if (r < 0)
            return r;
    }
    if (!instead)
        return 0;
    int r = get_text(root, "instead", ret->instead, sizeof ret->instead, err);
    if (r < 0)
        return r;
    return inherited && cg_uuid_valid(ret->instead)
               ? 0
               : bad(err, "the layer instead of others makes no sense");
}

/* All chains have what may go, and the head something above it. */
static int check_gathering(const struct cg_volume_json *json, struct cg_error *err)
{
    const char *instead = json->instead;
    size_t all = 1 + json->inherited.count;
    bool well = json->head.count > all;

    if (!cg_volume_json_gathers(json))
        return 0;
    well = well && cg_layers_replaced(&json->head, &json->inherited, instead) == all;
    for (size_t i = 0; well && i < json->snapshots; i++)
        well = cg_layers_replaced(&json->snapshot[i].layers, &json->inherited, instead) == all;
    return well ? 0 : bad(err, "not all has the layers that are being replaced");
}

/* With the head's layers and those inherited there. */
static int parse_filling(const json_t *filling, struct cg_volume_json *ret, struct cg_error *err)
{
    const char *uuid = json_string_value(filling);

    if (!filling)
        return 0;
    bool well = uuid && ret->head.count >= 2 && strcmp(uuid, ret->head.uuid[0]) == 0;
    if (!well || (!*ret->parent && strcmp(uuid, ret->instead) != 0))
        return bad(err, "the layer that is being filled makes no sense");
    memcpy(ret->filling, uuid, sizeof ret->filling);
    return 0;
}

static int parse_snapshots(const json_t *array, struct cg_volume_json *ret, struct cg_error *err)
{
    if (!json_is_array(array))
        return bad(err, "no valid \"snapshots\"");
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *s = json_array_get(array, i);
        char name[CG_PART_MAX + 1];
        struct cg_layers layers = { .size = 0 };
        int64_t time;
        int r = get_text(s, "name", name, sizeof name, err);
        if (r == 0)
            r = get_number(s, "time", &time, err);
        if (r == 0)
            r = cg_layers_from_json(s, &layers, err);
        if (r < 0)
            return r;
        if (!cg_name_part_valid(name) || cg_volume_json_snapshot(ret, name))
            r = bad(err, "a snapshot's name is not valid");
        else
            r = cg_volume_json_add_snapshot(ret, name, time, &layers, err);
        if (r == 0) { /* older ones have none: what they were known by */
            const char *uuid = json_string_value(json_object_get(s, "uuid"));
            if (!uuid)
                uuid = layers.uuid[layers.count - 1];
            if (cg_uuid_valid(uuid))
                strcpy(ret->snapshot[ret->snapshots - 1].uuid, uuid);
            else
                r = bad(err, "a snapshot's uuid is not valid");
        }
        cg_layers_clear(&layers);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse_mixed(const json_t *array, struct cg_volume_json *ret, struct cg_error *err)
{
    if (array && !json_is_array(array))
        return bad(err, "no valid \"mixed\"");
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *uuid = json_string_value(json_array_get(array, i));
        if (!uuid || !cg_uuid_valid(uuid))
            return bad(err, "no valid \"mixed\"");
        int r = cg_layers_add(&ret->mixed, uuid, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int parse_requests(const json_t *array, struct cg_volume_json *ret, struct cg_error *err)
{
    if (!json_is_array(array))
        return bad(err, "no valid \"requests\"");
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *id = json_string_value(json_array_get(array, i));
        if (!id || !cg_uuid_valid(id))
            return bad(err, "no valid \"requests\"");
        cg_volume_json_remember(ret, id);
    }
    return 0;
}

static int parse(const json_t *root, struct cg_volume_json *ret, struct cg_error *err)
{
    int64_t format, original_size;
    int r = get_number(root, "format", &format, err);

    if (r < 0)
        return r;
    if (format != FORMAT)
        return cg_error_say(err, ENOTSUP,
                            "the volume has format %lld, this program knows format %d",
                            (long long)format, FORMAT);
    if ((r = get_text(root, "uuid", ret->uuid, sizeof ret->uuid, err)) < 0 ||
        (r = get_number(root, "created", &ret->created, err)) < 0 ||
        (r = get_number(root, "original_size", &original_size, err)) < 0 ||
        (r = parse_parent(json_object_get(root, "parent"), ret, err)) < 0 ||
        (r = parse_release(json_object_get(root, "release"), ret, err)) < 0 ||
        (r = cg_layers_from_json(root, &ret->head, err)) < 0 ||
        (r = parse_depth(json_object_get(root, "depth"), ret, err)) < 0 ||
        (r = parse_inherited(root, ret, err)) < 0 ||
        (r = parse_filling(json_object_get(root, "filling"), ret, err)) < 0 ||
        (r = parse_mixed(json_object_get(root, "mixed"), ret, err)) < 0 ||
        (r = parse_snapshots(json_object_get(root, "snapshots"), ret, err)) < 0 ||
        (r = parse_requests(json_object_get(root, "requests"), ret, err)) < 0)
        return r;
    ret->original_size = (uint64_t)original_size;
    if ((r = check_gathering(ret, err)) < 0)
        return r;
    return cg_uuid_valid(ret->uuid) ? 0 : bad(err, "no valid \"uuid\"");
}

int cg_volume_json_parse(const char *text, size_t len, struct cg_volume_json *ret,
                         struct cg_error *err)
{
    json_error_t jerr;
    CG_CLEANUP(cg_json_cleanup) json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &jerr);
    struct cg_volume_json json = { .uuid = "" };

    if (!root)
        return cg_error_say(err, EIO, "volume.json is damaged: line %d: %s", jerr.line, jerr.text);
    int r = parse(root, &json, err);
    if (r < 0) {
        cg_volume_json_clear(&json);
        return r;
    }
    *ret = json;
    return 0;
}

static json_t *snapshot_json(const struct cg_volume_snapshot *s)
{
    json_t *object =
        json_pack("{s:s, s:s, s:I}", "name", s->name, "uuid", s->uuid, "time", (json_int_t)s->time);

    if (object && cg_layers_to_json(&s->layers, object, NULL) < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *mixed_json(const struct cg_volume_json *json)
{
    json_t *array = json_array();

    for (size_t i = 0; i < json->mixed.count; i++) {
        if (json_array_append_new(array, json_string(json->mixed.uuid[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *inherited_json(const struct cg_volume_json *json)
{
    json_t *object = json_object();

    if (object && cg_layers_to_json(&json->inherited, object, NULL) < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *root_json(const struct cg_volume_json *json)
{
    json_t *parent = json_null(), *snapshots = json_array(), *requests = json_array();
    json_t *root;
    int wrong = 0;

    if (*json->parent)
        parent = json_pack("{s:s, s:s, s:I}", "ref", json->parent, "identity",
                           json->parent_identity, "size", (json_int_t)json->parent_size);
    for (size_t i = 0; i < json->snapshots; i++)
        wrong |= json_array_append_new(snapshots, snapshot_json(&json->snapshot[i]));
    for (size_t i = 0; i < json->requests; i++)
        wrong |= json_array_append_new(requests, json_string(json->request[i]));
    root = json_pack("{s:i, s:s, s:I, s:I, s:o, s:o, s:o}", "format", FORMAT, "uuid", json->uuid,
                     "created", (json_int_t)json->created, "original_size",
                     (json_int_t)json->original_size, "parent", parent, "snapshots", snapshots,
                     "requests", requests);
    if (root && *json->filling)
        wrong |= json_object_set_new(root, "filling", json_string(json->filling));
    if (root && json->depth)
        wrong |= json_object_set_new(root, "depth", json_integer(json->depth));
    if (root && json->inherited.count)
        wrong |= json_object_set_new(root, "inherited", inherited_json(json));
    if (root && *json->instead)
        wrong |= json_object_set_new(root, "instead", json_string(json->instead));
    if (root && json->mixed.count)
        wrong |= json_object_set_new(root, "mixed", mixed_json(json));
    if (root && *json->release)
        wrong |= json_object_set_new(root, "release",
                                     json_pack("{s:s, s:s, s:s}", "ref", json->release, "identity",
                                               json->release_identity, "uuid", json->release_uuid));
    if (root && (wrong || cg_layers_to_json(&json->head, root, NULL) < 0)) {
        json_decref(root);
        return NULL;
    }
    return root;
}

char *cg_volume_json_text(const struct cg_volume_json *json)
{
    CG_CLEANUP(cg_json_cleanup) json_t *root = root_json(json);

    return root ? json_dumps(root, JSON_INDENT(1)) : NULL;
}

int cg_volume_json_read(int dirfd, struct cg_volume_json *ret, char **ret_text,
                        struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;
    int r = cg_file_read(dirfd, "volume.json", FILE_MAX, &text, &len, err);

    if (r == 0)
        r = cg_volume_json_parse(text, len, ret, err);
    if (r < 0)
        return r;
    if (ret_text) {
        *ret_text = text;
        text = NULL;
    }
    return 0;
}

int cg_volume_json_write(int dirfd, const struct cg_volume_json *json, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = cg_volume_json_text(json);

    if (!text)
        return cg_error_set(err, ENOMEM, "write volume.json");
    /* Never what nobody could read again. */
    if (json->head.count > CG_LAYERS_MAX || strlen(text) > FILE_MAX)
        return cg_error_say(err, EFBIG,
                            "a volume can't have so many layers and snapshots: export "
                            "it to a new one");
    return cg_file_replace(dirfd, "volume.json", text, strlen(text), 0600, err);
}

struct cg_volume_snapshot *cg_volume_json_snapshot(const struct cg_volume_json *json,
                                                   const char *name)
{
    for (size_t i = 0; i < json->snapshots; i++)
        if (strcmp(json->snapshot[i].name, name) == 0)
            return &json->snapshot[i];
    return NULL;
}

int cg_volume_json_add_snapshot(struct cg_volume_json *json, const char *name, int64_t time,
                                const struct cg_layers *layers, struct cg_error *err)
{
    struct cg_volume_snapshot *grown =
        realloc(json->snapshot, (json->snapshots + 1) * sizeof *grown);

    if (!grown)
        return cg_error_set(err, ENOMEM, "add a snapshot");
    json->snapshot = grown;
    struct cg_volume_snapshot *s = &grown[json->snapshots];
    *s = (struct cg_volume_snapshot){ .time = time };
    snprintf(s->name, sizeof s->name, "%s", name);
    cg_uuid(s->uuid);
    int r = cg_layers_copy(layers, &s->layers, err);
    if (r == 0)
        json->snapshots++;
    return r;
}

void cg_volume_json_remove_snapshot(struct cg_volume_json *json, const char *name)
{
    struct cg_volume_snapshot *s = cg_volume_json_snapshot(json, name);

    if (!s)
        return;
    size_t after = json->snapshots - (size_t)(s - json->snapshot) - 1;
    cg_layers_clear(&s->layers);
    memmove(s, s + 1, after * sizeof *s);
    json->snapshots--;
}

bool cg_volume_json_requested(const struct cg_volume_json *json, const char *id)
{
    for (size_t i = 0; i < json->requests; i++)
        if (strcmp(json->request[i], id) == 0)
            return true;
    return false;
}

void cg_volume_json_remember(struct cg_volume_json *json, const char *id)
{
    if (json->requests == CG_REQUESTS_MAX) {
        memmove(json->request[0], json->request[1], sizeof json->request - sizeof *json->request);
        json->requests--;
    }
    snprintf(json->request[json->requests++], sizeof *json->request, "%s", id);
}

uint64_t cg_volume_json_original_size(const struct cg_volume_json *json, uint64_t size)
{
    return cg_round_up(json->original_size, CG_SECTOR) == size ? json->original_size : size;
}

bool cg_volume_json_in_snapshot(const struct cg_volume_json *json, const char *uuid)
{
    for (size_t i = 0; i < json->snapshots; i++)
        if (cg_layers_has(&json->snapshot[i].layers, uuid))
            return true;
    return false;
}

bool cg_volume_json_names(const struct cg_volume_json *json, const char *uuid)
{
    return cg_layers_has(&json->head, uuid) || cg_volume_json_in_snapshot(json, uuid);
}

bool cg_volume_json_mixed(const struct cg_volume_json *json, const char *uuid)
{
    return cg_layers_has(&json->mixed, uuid);
}

bool cg_volume_json_gathers(const struct cg_volume_json *json)
{
    return *json->instead && strcmp(json->instead, json->filling) == 0;
}

bool cg_volume_json_gathered(const struct cg_volume_json *json, const char *uuid)
{
    return cg_volume_json_gathers(json) &&
           (strcmp(uuid, json->filling) == 0 || cg_layers_has(&json->inherited, uuid));
}

/* The layers of a list that no chain has any more. */
static void forget_unnamed(const struct cg_volume_json *json, struct cg_layers *layers)
{
    for (size_t i = layers->count; i-- > 0;) {
        char uuid[CG_UUID_LEN + 1];
        strcpy(uuid, layers->uuid[i]);
        if (!cg_volume_json_names(json, uuid))
            cg_layers_remove(layers, uuid);
    }
}

void cg_volume_json_forget(struct cg_volume_json *json)
{
    forget_unnamed(json, &json->mixed);
    if (!*json->instead) {
        forget_unnamed(json, &json->inherited);
    } else if (!cg_volume_json_names(json, json->instead) ||
               cg_volume_json_mixed(json, json->instead)) {
        cg_layers_clear(&json->inherited);
        json->instead[0] = '\0';
    }
}

bool cg_volume_json_shows(const struct cg_volume_json *json, const struct cg_layers *layers)
{
    return json->head.count > layers->count && cg_layers_begin_with(&json->head, layers) &&
           !cg_volume_json_mixed(json, layers->uuid[layers->count - 1]);
}

static bool adjacent_in(const struct cg_layers *layers, const char *lower, const char *upper)
{
    size_t i = 0;

    while (i < layers->count && strcmp(layers->uuid[i], lower) != 0 &&
           strcmp(layers->uuid[i], upper) != 0)
        i++;
    if (i == layers->count)
        return true;
    return strcmp(layers->uuid[i], lower) == 0 && i + 1 < layers->count &&
           strcmp(layers->uuid[i + 1], upper) == 0;
}

bool cg_volume_json_adjacent(const struct cg_volume_json *json, const char *lower,
                             const char *upper)
{
    if (!cg_volume_json_names(json, lower) || !adjacent_in(&json->head, lower, upper))
        return false;
    for (size_t i = 0; i < json->snapshots; i++)
        if (!adjacent_in(&json->snapshot[i].layers, lower, upper))
            return false;
    return true;
}

void cg_volume_json_drop(struct cg_volume_json *json, const char *uuid)
{
    cg_layers_remove(&json->head, uuid);
    for (size_t i = 0; i < json->snapshots; i++)
        cg_layers_remove(&json->snapshot[i].layers, uuid);
}
