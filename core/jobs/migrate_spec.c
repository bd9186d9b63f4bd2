#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/jobs/migrate_spec.h"

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* The path of a file address; NULL for a URI of another kind. */
static const char *path_of(const char *address)
{
    if (address[0] == '/')
        return address;
    return starts_with(address, "file:///") ? address + 7 : NULL;
}

/* Where in an NBD URI the export's name belongs: behind the first '/' after "://", or where that
 * is missing (*ret_slash).  NULL if it has one already. */
static const char *export_place(const char *uri, bool *ret_slash)
{
    const char *authority = strstr(uri, "://") + 3;
    const char *p = authority + strcspn(authority, "/?#");

    *ret_slash = *p == '/';
    if (*ret_slash)
        p++;
    return *p == '\0' || *p == '?' ? p : NULL;
}

const char *cg_migrate_stream(const char *address, struct cg_error *err)
{
    bool slash;

    if (path_of(address))
        return "file";
    if (cg_arg_kind(address) != CG_ARG_URI) {
        cg_error_say(err, EINVAL,
                     "'%s' is no address: write nbd://HOST:PORT of a server or the absolute path "
                     "of a mount",
                     address);
        return NULL;
    }
    if (!export_place(address, &slash)) {
        cg_error_say(err, EINVAL,
                     "'%s' names an export: give the server alone, as in nbd://HOST:PORT", address);
        return NULL;
    }
    return "nbd";
}

bool cg_migrate_is_local(const char *address)
{
    static const char *const loopback[] = { "localhost", "127.", "[::1]" };

    if (path_of(address) || starts_with(address, "nbd+unix:") || starts_with(address, "nbds+unix:"))
        return true;
    const char *host = strstr(address, "://") + 3;
    for (size_t i = 0; i < sizeof loopback / sizeof *loopback; i++) {
        if (starts_with(host, loopback[i]))
            return true;
    }
    return false;
}

bool cg_migrate_is_wildcard(const char *listen)
{
    return starts_with(listen, "0.0.0.0:") || starts_with(listen, "[::]:");
}

int cg_migrate_location(const char *address, const char *name, char ret[static CG_NAME_MAX * 2],
                        struct cg_error *err)
{
    const char *path = path_of(address);
    int n;

    if (!cg_migrate_stream(address, err))
        return -EINVAL;
    if (path) {
        n = snprintf(ret, CG_NAME_MAX * 2, "%s/%s", path, name);
    } else {
        bool slash;
        const char *place = export_place(address, &slash);
        n = snprintf(ret, CG_NAME_MAX * 2, "%.*s%s%s%s", (int)(place - address), address,
                     slash ? "" : "/", name, place);
    }
    return n < CG_NAME_MAX * 2 ? 0 : cg_error_set(err, ENAMETOOLONG, "%s", address);
}

bool cg_migrate_is_qcow2(const char *name)
{
    struct cg_name parsed;

    return cg_name_parse(name, &parsed, NULL) == 0 && parsed.qcow2;
}

/* {"type": …, "stream": {…}} of one image. */
static json_t *one(const char *address, const char *name, struct cg_error *err)
{
    char location[CG_NAME_MAX * 2];
    const char *stream = cg_migrate_stream(address, err);

    if (cg_migrate_location(address, name, location, err) < 0)
        return NULL;
    json_t *json =
        json_pack("{s:s,s:{s:s,s:s}}", "type", cg_migrate_is_qcow2(name) ? "qcow" : "raw", "stream",
                  "type", stream, strcmp(stream, "nbd") == 0 ? "uri" : "file_path", location);
    if (!json)
        cg_error_say(err, EINVAL, "%s is not UTF-8", location);
    return json;
}

int cg_migrate_spec(const char *address, const struct cg_migration_image *images, size_t count,
                    json_t **ret_spec, struct cg_error *err)
{
    json_t *snapshots = json_array(), *spec = NULL;

    for (size_t i = 0; i < count; i++) {
        json_t *json = one(address, images[i].name, err);
        if (!json) {
            json_decref(snapshots);
            json_decref(spec);
            return -EINVAL;
        }
        if (images[i].snapshot[0]) {
            json_object_set_new(json, "name", json_string(images[i].snapshot));
            json_array_append_new(snapshots, json);
        } else {
            json_decref(spec);
            spec = json;
        }
    }
    if (json_array_size(snapshots) > 0)
        json_object_set(spec, "snapshots", snapshots);
    json_decref(snapshots);
    *ret_spec = spec;
    return 0;
}

int cg_migrate_native_spec(const struct cg_name *name, const char *cluster, const char *client,
                           json_t **ret_spec, struct cg_error *err)
{
    bool has_namespace = name->parts == 3;
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    if (name->space != CG_NAME_RBD || !name->snapshot[0] || name->partition)
        return cg_error_say(err, EINVAL,
                            "%s isn't a whole snapshot in Ceph: only rbd/POOL/IMAGE@SNAPSHOT has a "
                            "native spec",
                            text);
    json_t *json = json_pack("{s:s,s:s*,s:s*,s:s,s:s*,s:s,s:s}", "type", "native", "cluster_name",
                             cluster, "client_name", client, "pool_name", name->part[0],
                             "pool_namespace", has_namespace ? name->part[1] : NULL, "image_name",
                             name->part[name->parts - 1], "snap_name", name->snapshot);
    if (!json)
        return cg_error_say(err, EINVAL, "the cluster's or the client's name is not UTF-8");
    *ret_spec = json;
    return 0;
}
