#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/rbd/settings.h"

#define TIMEOUT 60 /* seconds */
#define AUDIT 0.01

static int copy(const char *key, const json_t *value, char **ret, struct cg_error *err)
{
    if (!json_is_string(value) || !*json_string_value(value))
        return cg_error_say(err, EINVAL, "cowgate.json: rbd.%s is not a string", key);
    free(*ret);
    *ret = strdup(json_string_value(value));
    return *ret ? 0 : cg_error_set(err, ENOMEM, "read the configuration");
}

static int read_cache(const json_t *value, enum cg_rbd_cache *ret, struct cg_error *err)
{
    static const char *const names[] = { "off", "writethrough", "writeback" };
    const char *text = json_string_value(value);

    for (unsigned i = 0; text && i < sizeof names / sizeof *names; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum cg_rbd_cache)i;
            return 0;
        }
    }
    return cg_error_say(err, EINVAL, "cowgate.json: rbd.cache is off, writethrough or writeback");
}

static int read_pools(const json_t *value, json_t **ret, struct cg_error *err)
{
    const char *pool;
    json_t *project;

    if (!json_is_object(value))
        return cg_error_say(err, EINVAL, "cowgate.json: rbd.pools is no object");
    json_object_foreach ((json_t *)value, pool, project) {
        if (!json_is_null(project) &&
            !(json_is_string(project) && cg_name_part_valid(json_string_value(project))))
            return cg_error_say(err, EINVAL,
                                "cowgate.json: rbd.pools: %s has the name of a project, or null",
                                pool);
    }
    *ret = json_deep_copy(value);
    return *ret ? 0 : cg_error_set(err, ENOMEM, "read the configuration");
}

static int read_key(const char *key, const json_t *value, struct cg_rbd_config *c,
                    struct cg_error *err)
{
    if (strcmp(key, "conf") == 0)
        return copy(key, value, &c->conf, err);
    if (strcmp(key, "id") == 0)
        return copy(key, value, &c->id, err);
    if (strcmp(key, "keyring") == 0)
        return copy(key, value, &c->keyring, err);
    if (strcmp(key, "cache") == 0)
        return read_cache(value, &c->cache, err);
    if (strcmp(key, "pools") == 0)
        return read_pools(value, &c->pools, err);
    if (strcmp(key, "timeout") == 0) {
        json_int_t n = json_integer_value(value);
        if (n < 1 || n > 86400)
            return cg_error_say(err, EINVAL, "cowgate.json: rbd.timeout is 1 to 86400 seconds");
        c->timeout = (unsigned)n;
        return 0;
    }
    if (strcmp(key, "audit") == 0) {
        c->audit = json_number_value(value);
        if (!json_is_number(value) || !(c->audit >= 0 && c->audit <= 1))
            return cg_error_say(err, EINVAL, "cowgate.json: rbd.audit is a share from 0 to 1");
        return 0;
    }
    return cg_error_say(err, EINVAL, "cowgate.json: rbd has no setting '%s'", key);
}

int cg_rbd_config_read(const json_t *json, struct cg_rbd_config *ret, struct cg_error *err)
{
    const char *key;
    json_t *value;

    *ret = (struct cg_rbd_config){ .timeout = TIMEOUT, .audit = AUDIT, .id = strdup("admin") };
    if (!ret->id)
        return cg_error_set(err, ENOMEM, "read the configuration");
    if (json && !json_is_object(json))
        return cg_error_say(err, EINVAL, "cowgate.json: rbd is no object");
    json_object_foreach ((json_t *)json, key, value) {
        int r = read_key(key, value, ret, err);
        if (r < 0)
            return r;
    }
    return 0;
}

void cg_rbd_config_clear(struct cg_rbd_config *c)
{
    free(c->conf);
    free(c->id);
    free(c->keyring);
    json_decref(c->pools);
    *c = (struct cg_rbd_config){ 0 };
}

/* True if the key of the configuration covers the namespace of the pool. */
static bool covers(const char *key, const char *pool, const char *namespace)
{
    size_t n = strlen(pool);

    if (strncmp(key, pool, n) != 0 || (key[n] && key[n] != '/'))
        return false;
    return !namespace || strcmp(key[n] ? key + n + 1 : "", namespace) == 0;
}

bool cg_rbd_config_allows(const struct cg_rbd_config *c, const char *pool, const char *namespace,
                          const char *project)
{
    const char *key;
    json_t *value;

    if (!c->pools)
        return !project;
    json_object_foreach (c->pools, key, value) {
        const char *of = json_string_value(value);
        if (covers(key, pool, namespace) && (!project || (of && strcmp(of, project) == 0)))
            return true;
    }
    return false;
}
