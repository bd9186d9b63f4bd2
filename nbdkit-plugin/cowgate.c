#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/gateway.h"
#include "nbdkit-plugin/ending.h"

/* The NBD face: an export is an image, its name the image's name.  Clients can say nothing else, so
 * they reach neither paths nor URIs.
 *
 * Thread model: nbdkit calls from any number of threads, several of one connection at a time; the
 * image takes that as it is.  The globals are set before nbdkit forks and only read afterwards,
 * except connections, which has a lock; nothing starts a thread before that.  Callbacks that use
 * images hold ending_gate shared: the thread that ends the server closes all behind it. */
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* nbdkit sends no longer lists. */
#define EXPORTS_MAX 10000

/* Extents told in one answer; the client asks again from where they end. */
#define EXTENTS_MAX 4096

static char *root;
static char *project;
static char *export_name; /* what the empty export name means; NULL: nothing */
static char *socket_path; /* to remove at the end */
static char *ready;       /* what to say when clients can connect */
static char **only;       /* the names to serve, with a NULL; or NULL: all */
static size_t only_count, only_allocated;
static bool read_only, detect_zeros;
static struct cg_gateway *gateway;

struct connection {
    struct cg_image *image;
    struct cg_name name;
    char what[CG_NAME_MAX]; /* it is, in a few words */
    char description[2 * CG_NAME_MAX + 8];
    struct connection *next; /* guarded by connections_lock */
};

static pthread_mutex_t connections_lock = PTHREAD_MUTEX_INITIALIZER;
static struct connection *connections; /* guarded by connections_lock */

/* Logs the message and tells nbdkit the errno, as one that NBD can carry or EIO: nbdkit makes
 * EINVAL of those that NBD doesn't know, as if the client were to blame. */
static void failed(int r, const struct cg_error *err)
{
    int known[] = { EPERM,  EROFS, EIO,       ENOMEM,  EINVAL,   ENOSPC,
                    EDQUOT, EFBIG, EOVERFLOW, ENOTSUP, ESHUTDOWN };
    int errnum = r == -EBUSY ? EPERM : EIO;

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i] == -r)
            errnum = known[i];
    }
    nbdkit_error("%s", err->message);
    nbdkit_set_error(errnum);
}

static int result(int r, const struct cg_error *err)
{
    if (r == 0)
        return 0;
    failed(r, err);
    return -1;
}

static void end_connection(struct connection *c)
{
    cg_image_unref(c->image);
    free(c);
}

static int close_images(bool alone, bool *ret_idle)
{
    int worst = 0;
    struct cg_error err;

    CG_LOCK(&connections_lock);
    *ret_idle = !connections;
    for (struct connection *c = connections; c; c = c->next) {
        int r = cg_image_flush(c->image, &err);
        if (r < 0)
            nbdkit_error("%s", err.message);
        worst = worst < 0 ? worst : r;
    }
    if (!alone)
        return worst;
    while (connections) {
        struct connection *c = connections;
        connections = c->next;
        end_connection(c);
    }
    cg_gateway_free(gateway);
    gateway = NULL;
    return worst;
}

static void cowgate_unload(void)
{
    bool idle;

    /* nbdkit closes no connection any more once it quits; all threads are gone. */
    close_images(true, &idle);
    free(root);
    free(project);
    free(export_name);
    free(socket_path);
    free(ready);
    for (size_t i = 0; i < only_count; i++)
        free(only[i]);
    free(only);
}

static int set_once(char **field, const char *key, const char *value)
{
    if (*field) {
        nbdkit_error("%s is given twice", key);
        return -1;
    }
    *field = strdup(value);
    if (!*field) {
        nbdkit_error("%s: %m", key);
        return -1;
    }
    return 0;
}

static int set_path(char **field, const char *key, const char *value)
{
    /* nbdkit goes to / when it becomes a daemon. */
    CG_CLEANUP(cg_free) char *path = nbdkit_absolute_path(value);

    return path ? set_once(field, key, path) : -1;
}

static int set_export(const char *value)
{
    struct cg_error err;
    struct cg_name name;

    return result(cg_name_parse(value, &name, &err), &err) < 0
               ? -1
               : set_once(&export_name, "export", value);
}

static int add_only(const char *value)
{
    char **v = cg_array_room(only, only_count + 1, &only_allocated, sizeof *only);

    if (!v) {
        nbdkit_error("only: %m");
        return -1;
    }
    only = v;
    only[only_count] = NULL;
    if (set_once(&only[only_count], "only", value) < 0)
        return -1;
    only[++only_count] = NULL;
    return 0;
}

static int set_bool(bool *field, const char *value)
{
    int r = nbdkit_parse_bool(value);

    *field = r == 1;
    return r < 0 ? -1 : 0;
}

static int cowgate_config(const char *key, const char *value)
{
    if (strcmp(key, "root") == 0)
        return set_path(&root, key, value);
    if (strcmp(key, "project") == 0)
        return set_once(&project, key, value);
    if (strcmp(key, "only") == 0)
        return add_only(value);
    if (strcmp(key, "export") == 0)
        return set_export(value);
    if (strcmp(key, "readonly") == 0)
        return set_bool(&read_only, value);
    if (strcmp(key, "detect-zeros") == 0)
        return set_bool(&detect_zeros, value);
    if (strcmp(key, "socket") == 0)
        return set_path(&socket_path, key, value);
    if (strcmp(key, "ready") == 0)
        return set_once(&ready, key, value);
    nbdkit_error("unknown parameter '%s': there are root, project, only, readonly, detect-zeros, "
                 "export, socket and ready",
                 key);
    return -1;
}

static int cowgate_get_ready(void)
{
    struct cg_gateway_options options = {
        .serving = true,
        .root = root,
        .project = project,
        .only = (const char *const *)only,
        .read_only = read_only,
        .detect_zeros = detect_zeros,
    };
    struct cg_error err;

    cg_files_raise_limit();
    int r = ending_prepare(socket_path, &err);
    if (r == 0)
        r = cg_gateway_new(&options, &gateway, &err);
    return result(r, &err);
}

static void warn(const char *message)
{
    nbdkit_error("warning: %s", message);
}

static int cowgate_after_fork(void)
{
    struct cg_error err;

    if (result(ending_start(close_images, &err), &err) < 0 ||
        (!read_only && result(cg_gateway_watch_pool(gateway, warn, &err), &err) < 0))
        return -1;
    if (ready)
        fprintf(stderr, "%s\n", ready);
    return 0;
}

struct listing {
    struct nbdkit_exports *exports;
    size_t count;
};

static int list_export(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct listing *l = opaque;

    if (l->count++ >= EXPORTS_MAX)
        return 0;
    if (nbdkit_add_export(l->exports, entry->name, entry->description) < 0)
        return cg_error_set(err, errno, "list %s", entry->name);
    return 0;
}

static int cowgate_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    struct listing l = { .exports = exports };
    const struct cg_name all = { .space = CG_NAME_ROOT };
    struct cg_error err;

    (void)readonly;
    (void)is_tls;
    CG_LOCK_SHARED(&ending_gate);
    int r = cg_gateway_list_all(gateway, &all, list_export, &l, &err);
    if (r == 0 && l.count > EXPORTS_MAX)
        nbdkit_error("%zu exports are not listed: a list has at most %d; they can be opened by "
                     "name",
                     l.count - EXPORTS_MAX, EXPORTS_MAX);
    if (r < 0 && l.count > 0) { /* the rest is worth having */
        nbdkit_error("some exports are not listed: %s", err.message);
        r = 0;
    }
    return result(r, &err);
}

static const char *cowgate_default_export(int readonly, int is_tls)
{
    (void)readonly;
    (void)is_tls;
    if (!export_name)
        nbdkit_error("the client asked for the empty export name, which means nothing here (see "
                     "export=NAME)");
    return export_name;
}

/* What an export is, in a few words. */
static void describe(const struct cg_name *asked, const struct cg_name *name,
                     char ret[static CG_NAME_MAX])
{
    char text[CG_NAME_MAX], part[32] = "";

    cg_name_text(name, true, text);
    if (name->partition)
        snprintf(part, sizeof part, "partition %u of ", name->partition);
    const char *kind = "image";
    if (name->space == CG_NAME_BACKUPS)
        kind = name->qcow2 ? "history up to point" : "point";
    else if (name->snapshot[0])
        kind = "snapshot";
    else if (name->space == CG_NAME_VOLUMES)
        kind = "volume";
    bool resolved = asked->parts > 2 && strcmp(asked->part[2], name->part[2]) != 0;
    snprintf(ret, CG_NAME_MAX, "%s%s%s %.900s", part, resolved ? "latest " : "", kind, text);
}

static int open_image(const char *text, bool write, struct connection *c, struct cg_error *err)
{
    struct cg_name asked, name;
    struct cg_space *space;
    int r = cg_name_parse(text, &asked, err);

    if (r < 0)
        return r;
    name = asked;
    r = cg_gateway_space(gateway, &name, &space, err);
    if (r == 0)
        r = cg_space_resolve(space, &name, err);
    if (r == 0)
        r = cg_gateway_open(gateway, &name, write ? CG_OPEN_WRITE : CG_OPEN_READ, &c->image, err);
    if (r == 0) {
        describe(&asked, &name, c->what);
        c->name = name;
    }
    return r;
}

static void *cowgate_open(int readonly)
{
    const char *text = nbdkit_export_name();
    struct connection *c = text ? calloc(1, sizeof *c) : NULL;
    struct cg_error err;

    if (!c) {
        nbdkit_error("open: %m");
        return NULL;
    }
    CG_LOCK_SHARED(&ending_gate);
    cg_gateway_look_at_pool(gateway);
    int r = open_image(text, !readonly, c, &err);
    if (r == 0) {
        CG_LOCK(&connections_lock);
        c->next = connections;
        connections = c;
        return c;
    }
    cg_error_prefix(&err, r, "open export '%.200s'", text);
    failed(r, &err);
    free(c);
    return NULL;
}

static void cowgate_close(void *handle)
{
    struct connection *c = handle;
    CG_LOCK_SHARED(&ending_gate);

    pthread_mutex_lock(&connections_lock);
    struct connection **at = &connections;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    pthread_mutex_unlock(&connections_lock);
    end_connection(c);
}

/* For people, and at the end for a client that connects again, like attach's: whether it is the
 * same still.  nbdkit calls it in the handshake of a client that asks. */
static const char *cowgate_export_description(void *handle)
{
    struct connection *c = handle;
    char id[CG_NAME_MAX];
    struct cg_error err;
    CG_LOCK_SHARED(&ending_gate);

    int r = cg_gateway_image_id(gateway, &c->name, id, &err);
    if (r < 0) {
        nbdkit_error("describe %s: %s", c->what, err.message);
        return c->what;
    }
    snprintf(c->description, sizeof c->description, "%s, id %s", c->what, id);
    return c->description;
}

static int64_t cowgate_get_size(void *handle)
{
    struct connection *c = handle;
    CG_LOCK_SHARED(&ending_gate);

    return (int64_t)cg_image_size(c->image);
}

static int cowgate_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                              uint32_t *maximum)
{
    struct connection *c = handle;
    struct cg_block_size size;
    CG_LOCK_SHARED(&ending_gate);

    cg_image_block_size(c->image, &size);
    *minimum = size.minimum;
    *preferred = size.preferred;
    *maximum = size.maximum;
    return 0;
}

static int cowgate_can_write(void *handle)
{
    struct connection *c = handle;
    CG_LOCK_SHARED(&ending_gate);

    return !cg_image_read_only(c->image);
}

static int cowgate_can_trim(void *handle)
{
    struct connection *c = handle;
    CG_LOCK_SHARED(&ending_gate);

    return cg_image_can_trim(c->image);
}

/* Also of flush, zero, fast zero and extents: core does them for every image. */
static int cowgate_can(void *handle)
{
    (void)handle;
    return 1;
}

static int cowgate_can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int cowgate_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NATIVE;
}

static int cowgate_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct connection *c = handle;
    struct cg_error err;
    CG_LOCK_SHARED(&ending_gate);

    (void)flags;
    return result(cg_image_pread(c->image, buf, count, offset, &err), &err);
}

static unsigned fua(uint32_t flags)
{
    return flags & NBDKIT_FLAG_FUA ? CG_FUA : 0;
}

static int cowgate_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
                          uint32_t flags)
{
    struct connection *c = handle;
    struct cg_error err;
    CG_LOCK_SHARED(&ending_gate);

    return result(cg_image_pwrite(c->image, buf, count, offset, fua(flags), &err), &err);
}

static int cowgate_flush(void *handle, uint32_t flags)
{
    struct connection *c = handle;
    struct cg_error err;
    CG_LOCK_SHARED(&ending_gate);

    (void)flags;
    return result(cg_image_flush(c->image, &err), &err);
}

static int cowgate_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct connection *c = handle;
    struct cg_error err;
    CG_LOCK_SHARED(&ending_gate);

    return result(cg_image_trim(c->image, count, offset, fua(flags), &err), &err);
}

static int cowgate_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct connection *c = handle;
    struct cg_error err;
    unsigned f = fua(flags);
    CG_LOCK_SHARED(&ending_gate);

    if (flags & NBDKIT_FLAG_MAY_TRIM)
        f |= CG_MAY_TRIM;
    if (flags & NBDKIT_FLAG_FAST_ZERO)
        f |= CG_FAST;
    int r = cg_image_zero(c->image, count, offset, f, &err);
    if (r == -ENOTSUP && (f & CG_FAST)) { /* an answer, not a failure */
        nbdkit_debug("%s", err.message);
        nbdkit_set_error(ENOTSUP);
        return -1;
    }
    return result(r, &err);
}

static uint32_t extent_flags(enum cg_extent_type type)
{
    switch (type) {
    case CG_HOLE:
        return NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
    case CG_ZERO:
        return NBDKIT_EXTENT_ZERO;
    case CG_DATA:
        break;
    }
    return 0;
}

/* The list never reaches beyond the range that was asked for: servers before the fix of
 * CVE-2025-47711 can be crashed by one that does. */
static int cowgate_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                           struct nbdkit_extents *extents)
{
    struct connection *c = handle;
    CG_CLEANUP(cg_extents_clear) struct cg_extents e;
    struct cg_error err;
    CG_LOCK_SHARED(&ending_gate);

    cg_extents_init(&e, offset, offset + count, flags & NBDKIT_FLAG_REQ_ONE ? 1 : EXTENTS_MAX);
    int r = cg_image_extents(c->image, &e, &err);
    for (size_t i = 0; r == 0 && i < e.count; i++) {
        if (nbdkit_add_extent(extents, e.v[i].off, e.v[i].len, extent_flags(e.v[i].type)) < 0)
            return -1;
    }
    return result(r, &err);
}

static int cowgate_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct connection *c = handle;
    CG_LOCK_SHARED(&ending_gate);

    (void)flags;
    cg_image_prefetch(c->image, count, offset);
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "cowgate",
    .longname = "cowgate, a gateway for block volumes",
    .version = PACKAGE_VERSION,
    .description = "serves volumes, snapshots and backup points by name",
    .magic_config_key = "root",
    .config_help = "root=DIR        The root made by 'cowgate init' (default: $COWGATE_ROOT or the "
                   "user's).\n"
                   "project=P       Serve only this project.\n"
                   "only=NAME       Serve only this image (may be given several times).\n"
                   "readonly=true   Open nothing for writing.\n"
                   "detect-zeros=true  Look for zeros in what can't change.\n"
                   "export=NAME     What the empty export name means (default: nothing).\n"
                   "socket=PATH     A unix socket to remove at the end.\n"
                   "ready=TEXT      What to print when clients can connect.",
    .unload = cowgate_unload,
    .config = cowgate_config,
    .get_ready = cowgate_get_ready,
    .after_fork = cowgate_after_fork,
    .cleanup = ending_finish,
    .list_exports = cowgate_list_exports,
    .default_export = cowgate_default_export,
    .open = cowgate_open,
    .close = cowgate_close,
    .export_description = cowgate_export_description,
    .get_size = cowgate_get_size,
    .block_size = cowgate_block_size,
    .can_write = cowgate_can_write,
    .can_flush = cowgate_can,
    .can_trim = cowgate_can_trim,
    .can_zero = cowgate_can,
    .can_fast_zero = cowgate_can,
    .can_extents = cowgate_can,
    .can_multi_conn = cowgate_can,
    .can_fua = cowgate_can_fua,
    .can_cache = cowgate_can_cache,
    .pread = cowgate_pread,
    .pwrite = cowgate_pwrite,
    .flush = cowgate_flush,
    .trim = cowgate_trim,
    .zero = cowgate_zero,
    .extents = cowgate_extents,
    .cache = cowgate_cache,
};

NBDKIT_REGISTER_PLUGIN(plugin)
