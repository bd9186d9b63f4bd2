#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "core/base/array.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/json.h"
#include "core/jobs/migration.h"

#define FORMAT 1
#define RECORD "migration.json"
#define RECORD_MAX (16 << 20)
#define LOCK_PATIENCE 10 /* seconds */

static const char *const phases[] = { "preparing", "ready", "committing", "aborting" };

void cg_migration_record_clear(struct cg_migration_record *record)
{
    free(record->spec);
    free(record->image);
    memset(record, 0, sizeof *record);
}

int cg_migration_dir(const char *root, const struct cg_name *target, char ret[static PATH_MAX],
                     struct cg_error *err)
{
    char text[CG_NAME_MAX];

    cg_name_text(target, true, text);
    if (target->snapshot[0] || target->partition || target->space != CG_NAME_RBD)
        return cg_error_say(err, EINVAL,
                            "%s can't be the target of a migration: write rbd/POOL/IMAGE", text);
    for (char *p = text; *p; p++) {
        if (*p == '/')
            *p = '+';
    }
    if (snprintf(ret, PATH_MAX, "%s/migrations/%s", root, text) >= PATH_MAX)
        return cg_error_set(err, ENAMETOOLONG, "%s/migrations", root);
    return 0;
}

static int add(struct cg_migration_record *r, const char *name, const char *snapshot)
{
    void *v = cg_array_room(r->image, r->count, &r->allocated, sizeof *r->image);

    if (!v)
        return -ENOMEM;
    r->image = v;
    snprintf(r->image[r->count].name, sizeof r->image->name, "%s", name);
    snprintf(r->image[r->count].snapshot, sizeof r->image->snapshot, "%s", snapshot);
    r->count++;
    return 0;
}

/* What later steps rely on. */
static bool is_whole(const struct cg_migration_record *r)
{
    struct cg_name name;
    size_t contents = 0;

    for (size_t i = 0; i < r->count; i++) {
        if (cg_name_parse(r->image[i].name, &name, NULL) < 0)
            return false;
        contents += !r->image[i].snapshot[0];
    }
    if (r->count > 0 && (contents != 1 || r->image[r->count - 1].snapshot[0]))
        return false;
    if (r->spec || r->phase == CG_MIGRATION_READY || r->phase == CG_MIGRATION_COMMITTING)
        return r->spec && r->count > 0 && r->address[0] && r->size > 0 &&
               (strcmp(r->stream, "nbd") == 0 || strcmp(r->stream, "file") == 0);
    return true;
}

/* 0, -EINVAL for what isn't a record, or -ENOMEM. */
static int from_json(const json_t *json, struct cg_migration_record *ret)
{
    char phase[16];
    json_t *v;
    size_t i;

    json_int_t bytes = json_integer_value(json_object_get(json, "size"));
    if (bytes < 0 || !cg_json_text(json, "target", ret->target, sizeof ret->target) ||
        !cg_json_text(json, "source", ret->source, sizeof ret->source) ||
        !cg_json_text(json, "uuid", ret->uuid, sizeof ret->uuid) || !cg_uuid_valid(ret->uuid) ||
        !cg_json_text(json, "stream", ret->stream, sizeof ret->stream) ||
        !cg_json_text(json, "address", ret->address, sizeof ret->address) ||
        !cg_json_text(json, "listen", ret->listen, sizeof ret->listen) ||
        !cg_json_text(json, "certificates", ret->certificates, sizeof ret->certificates) ||
        !cg_json_text(json, "image_id", ret->image_id, sizeof ret->image_id) ||
        !cg_json_text(json, "phase", phase, sizeof phase))
        return -EINVAL;
    ret->size = (uint64_t)bytes;
    ret->snapshots = json_is_true(json_object_get(json, "snapshots"));
    ret->own = json_is_true(json_object_get(json, "own"));
    ret->verify_peer = json_is_true(json_object_get(json, "verify_peer"));
    ret->insecure = json_is_true(json_object_get(json, "insecure"));
    for (i = 0; i < sizeof phases / sizeof *phases && strcmp(phases[i], phase); i++)
        ;
    if (i == sizeof phases / sizeof *phases)
        return -EINVAL;
    ret->phase = (enum cg_migration_phase)i;
    const char *spec = json_string_value(json_object_get(json, "spec"));
    if (spec && !(ret->spec = strdup(spec)))
        return -ENOMEM;
    json_array_foreach (json_object_get(json, "images"), i, v) {
        struct cg_migration_image image;
        if (!cg_json_text(v, "name", image.name, sizeof image.name) ||
            !cg_json_text(v, "snapshot", image.snapshot, sizeof image.snapshot))
            return -EINVAL;
        if (add(ret, image.name, image.snapshot) < 0)
            return -ENOMEM;
    }
    return is_whole(ret) ? 0 : -EINVAL;
}

static json_t *to_json(const struct cg_migration_record *r)
{
    json_t *images = json_array();

    for (size_t i = 0; i < r->count; i++)
        json_array_append_new(images, json_pack("{s:s,s:s}", "name", r->image[i].name, "snapshot",
                                                r->image[i].snapshot));
    return json_pack("{s:i,s:s,s:s,s:b,s:s,s:s,s:s,s:s,s:b,s:s,s:s,s:b,s:b,s:s*,s:I,s:s,s:o}",
                     "format", FORMAT, "target", r->target, "source", r->source, "snapshots",
                     r->snapshots, "uuid", r->uuid, "phase", phases[r->phase], "stream", r->stream,
                     "address", r->address, "own", r->own, "listen", r->listen, "certificates",
                     r->certificates, "verify_peer", r->verify_peer, "insecure", r->insecure,
                     "spec", r->spec, "size", (json_int_t)r->size, "image_id", r->image_id,
                     "images", images);
}

int cg_migration_record_decode(const char *text, size_t len, struct cg_migration_record *ret,
                               struct cg_error *err)
{
    json_error_t where;
    CG_CLEANUP(cg_json_cleanup) json_t *json = json_loadb(text, len, 0, &where);

    memset(ret, 0, sizeof *ret);
    if (!json)
        return cg_error_say(err, EINVAL, "line %d: %s", where.line, where.text);
    json_int_t format = json_integer_value(json_object_get(json, "format"));
    if (format > FORMAT)
        return cg_error_say(err, ENOTSUP, "it has format %lld, this cowgate knows up to %d",
                            (long long)format, FORMAT);
    int r = format < 1 ? -EINVAL : from_json(json, ret);
    if (r == 0)
        return 0;
    cg_migration_record_clear(ret);
    return r == -EINVAL ? cg_error_say(err, EINVAL, "it is not the record of a migration")
                        : cg_error_set(err, -r, "read it");
}

/* A copy in the directory of another would be taken for that one's. */
static bool belongs_in(const struct cg_migration_record *record, const char *dir)
{
    char own[PATH_MAX];
    struct cg_name target;

    return cg_name_parse(record->target, &target, NULL) == 0 &&
           cg_migration_dir("", &target, own, NULL) == 0 &&
           strcmp(strrchr(own, '/'), strrchr(dir, '/')) == 0;
}

static int read_record(const char *dir, struct cg_migration_record *ret, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    char path[PATH_MAX];
    size_t len;

    memset(ret, 0, sizeof *ret);
    if (snprintf(path, sizeof path, "%s/%s", dir, RECORD) >= PATH_MAX)
        return cg_error_set(err, ENAMETOOLONG, "%s", dir);
    int r = cg_file_read(AT_FDCWD, path, RECORD_MAX, &text, &len, err);
    if (r < 0)
        return r;
    r = cg_migration_record_decode(text, len, ret, err);
    if (r < 0)
        return cg_error_prefix(err, r, "%s", path);
    if (belongs_in(ret, dir))
        return 0;
    r = cg_error_say(err, EINVAL, "%s is the record of a migration into %s", path, ret->target);
    cg_migration_record_clear(ret);
    return r;
}

int cg_migration_read(const char *root, const struct cg_name *target,
                      struct cg_migration_record *ret, struct cg_error *err)
{
    char dir[PATH_MAX], text[CG_NAME_MAX];
    int r = cg_migration_dir(root, target, dir, err);

    if (r == 0)
        r = read_record(dir, ret, err);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no migration into %s",
                            cg_name_text(target, true, text));
    return r;
}

void cg_migration_close(struct cg_migration *m)
{
    if (!m)
        return;
    cg_migration_record_clear(&m->record);
    if (m->lock >= 0)
        close(m->lock);
    free(m->dir);
    free(m);
}

void cg_migration_cleanup(struct cg_migration **m)
{
    cg_migration_close(*m);
}

/* Who only looks after a server that ended is done in a moment; who fills or commits isn't. */
static int lock_soon(int fd)
{
    const struct timespec pause = { .tv_nsec = 50000000 };
    int r;

    for (int i = 0; (r = flock(fd, LOCK_EX | LOCK_NB)) < 0 && errno == EWOULDBLOCK; i++) {
        if (i == LOCK_PATIENCE * 20)
            return r;
        nanosleep(&pause, NULL);
    }
    return r;
}

/* Locks the directory, which somebody may remove until that is done: -ENOENT then. */
static int lock_dir(const char *dir, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat ours, there;

    if (fd < 0)
        return cg_error_set(err, errno, "open %s", dir);
    if (lock_soon(fd) < 0)
        return errno == EWOULDBLOCK
                   ? cg_error_say(err, EBUSY, "another process is at this migration")
                   : cg_error_set(err, errno, "lock %s", dir);
    if (fstat(fd, &ours) < 0 || stat(dir, &there) < 0 || ours.st_ino != there.st_ino)
        return cg_error_set(err, ENOENT, "open %s", dir);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static int open_locked(const char *dir, struct cg_migration **ret, struct cg_error *err)
{
    struct cg_migration *m = calloc(1, sizeof *m);

    if (!m)
        return cg_error_set(err, ENOMEM, "open %s", dir);
    m->lock = -1;
    m->dir = strdup(dir);
    int r = m->dir ? lock_dir(dir, &m->lock, err) : cg_error_set(err, ENOMEM, "open %s", dir);
    if (r < 0) {
        cg_migration_close(m);
        return r;
    }
    *ret = m;
    return 0;
}

int cg_migration_open(const char *root, const struct cg_name *target, struct cg_migration **ret,
                      struct cg_error *err)
{
    CG_CLEANUP(cg_migration_cleanup) struct cg_migration *m = NULL;
    char dir[PATH_MAX], text[CG_NAME_MAX];
    int r = cg_migration_dir(root, target, dir, err);

    if (r == 0)
        r = open_locked(dir, &m, err);
    if (r == 0)
        r = read_record(dir, &m->record, err);
    if (r == -ENOENT && m) { /* left by one that died when it had just begun, or all but ended */
        r = cg_tree_remove(AT_FDCWD, dir, err);
        r = r < 0 ? r : -ENOENT;
    }
    cg_name_text(target, true, text);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no migration into %s", text);
    if (r < 0)
        return cg_error_prefix(err, r, "%s", text);
    *ret = m;
    m = NULL;
    return 0;
}

/* A new record, or that of the same migration. */
static int begin(struct cg_migration *m, const char *target, const char *source, bool snapshots,
                 struct cg_error *err)
{
    int r = read_record(m->dir, &m->record, err);

    if (r == 0 && (strcmp(m->record.source, source) || m->record.snapshots != snapshots))
        return cg_error_say(
            err, EBUSY, "%s is being migrated from %s%s already: commit or abort that first",
            target, m->record.source, m->record.snapshots ? " with its snapshots" : "");
    if (r != -ENOENT)
        return r;
    snprintf(m->record.target, sizeof m->record.target, "%s", target);
    snprintf(m->record.source, sizeof m->record.source, "%s", source);
    m->record.snapshots = snapshots;
    cg_uuid(m->record.uuid);
    r = cg_migration_save(m, err);
    if (r < 0)
        rmdir(m->dir);
    return r;
}

int cg_migration_begin(const char *root, const struct cg_name *target, const char *source,
                       bool snapshots, struct cg_migration **ret, struct cg_error *err)
{
    CG_CLEANUP(cg_migration_cleanup) struct cg_migration *m = NULL;
    char dir[PATH_MAX], text[CG_NAME_MAX];

    cg_name_text(target, true, text);
    if (strlen(source) >= CG_NAME_MAX)
        return cg_error_set(err, ENAMETOOLONG, "%.100s…", source);
    int r = cg_migration_dir(root, target, dir, err);
    while (r == 0 && !m) {
        r = cg_dir_make(AT_FDCWD, dir, 0700, err);
        if (r == 0)
            r = open_locked(dir, &m, err);
        if (r == -ENOENT) /* somebody has removed it in between */
            r = 0;
    }
    if (r == 0)
        r = begin(m, text, source, snapshots, err);
    if (r < 0)
        return cg_error_prefix(err, r, "migrate %s into %s", source, text);
    *ret = m;
    m = NULL;
    return 0;
}

int cg_migration_save(struct cg_migration *m, struct cg_error *err)
{
    CG_CLEANUP(cg_json_cleanup) json_t *json = to_json(&m->record);
    CG_CLEANUP(cg_free) char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;

    if (!text)
        return cg_error_say(err, EINVAL, "%s or %s is not UTF-8", m->record.source,
                            m->record.address);
    return cg_file_replace(m->lock, RECORD, text, strlen(text), 0600, err);
}

int cg_migration_add(struct cg_migration *m, const char *name, const char *snapshot,
                     struct cg_error *err)
{
    int r = add(&m->record, name, snapshot);

    return r < 0 ? cg_error_set(err, -r, "migrate %s", name) : 0;
}

int cg_migration_end(struct cg_migration *m, struct cg_error *err)
{
    /* The record first: without it the rest means nothing. */
    if (unlinkat(m->lock, RECORD, 0) < 0 && errno != ENOENT)
        return cg_error_set(err, errno, "remove %s/%s", m->dir, RECORD);
    return cg_tree_remove(AT_FDCWD, m->dir, err);
}

int cg_migration_list(const char *root,
                      int (*fn)(void *opaque, const struct cg_name *target, struct cg_error *err),
                      void *opaque, struct cg_error *err)
{
    char path[PATH_MAX];
    struct cg_name name;
    int r = 0;

    if (snprintf(path, sizeof path, "%s/migrations", root) >= PATH_MAX)
        return cg_error_set(err, ENAMETOOLONG, "%s/migrations", root);
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(AT_FDCWD, path, 0);
    if (!dir)
        return errno == ENOENT ? 0 : cg_error_set(err, errno, "open %s", path);
    for (struct dirent *e; r == 0 && (e = readdir(dir));) {
        for (char *p = e->d_name; *p; p++) {
            if (*p == '+')
                *p = '/';
        }
        if (cg_name_parse(e->d_name, &name, NULL) == 0)
            r = fn(opaque, &name, err);
    }
    return r;
}
