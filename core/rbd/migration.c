/* Images that fill themselves from a stream: Ceph's live migration, import-only
 * (docs.ceph.com, rbd/rbd-live-migration).  Each process that opens such an image reads the stream
 * until the migration is committed. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"

/* A stream that can't be there: a librbd that knows its kind fails to reach it, one that doesn't
 * says so before it looks. */
static const char *unreachable(const char *stream)
{
    if (strcmp(stream, "nbd") == 0)
        return "{\"type\":\"raw\",\"stream\":{\"type\":\"nbd\",\"uri\":"
               "\"nbd+unix:///?socket=/nonexistent/cowgate\"}}";
    return "{\"type\":\"raw\",\"stream\":{\"type\":\"file\",\"file_path\":"
           "\"/nonexistent/cowgate\"}}";
}

int cg_rbd_migrate_stream(void *self, const struct cg_name *name, const char *stream,
                          struct cg_error *err)
{
    struct cg_rbd_place p;
    rbd_image_options_t options;
    int r = cg_rbd_place_head(self, name, "migrate to", &p, err);

    if (r < 0)
        return r;
    rbd_image_options_create(&options);
    r = rbd_migration_prepare_import(unreachable(stream), p.io, CG_RBD_DRAFT "stream", options);
    rbd_image_options_destroy(options);
    if (r == -ENOSYS || r == -EOPNOTSUPP)
        return cg_error_say(err, ENOTSUP,
                            "this host's librbd can't read a stream of the kind '%s' (nbd came "
                            "with Ceph 19.2.3)",
                            stream);
    return 0;
}

int cg_rbd_migrate_prepare(void *self, const struct cg_name *name, const char *spec,
                           struct cg_error *err)
{
    struct cg_rbd_place p;
    rbd_image_options_t options;
    int r = cg_rbd_place_head(self, name, "migrate to", &p, err);

    if (r < 0)
        return r;
    rbd_image_options_create(&options);
    r = rbd_migration_prepare_import(spec, p.io, p.image, options);
    rbd_image_options_destroy(options);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", p.text);
    if (r == -ENOSYS || r == -EOPNOTSUPP)
        return cg_error_say(err, ENOTSUP,
                            "prepare %s: this host's librbd can't read a stream of that kind "
                            "(nbd came with Ceph 19.2.3)",
                            p.text);
    return r < 0 ? cg_rbd_failed(r, err, "prepare %s from %s", p.text, spec) : 0;
}

struct stepping {
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
    bool can_cancel, cancelled;
};

static int stepped(uint64_t done, uint64_t total, void *opaque)
{
    struct stepping *s = opaque;

    if (s->progress && s->progress(s->opaque, done, total) && s->can_cancel)
        s->cancelled = true;
    return s->cancelled ? -ECANCELED : 0;
}

/* Objects of zeros go.  Never before the commit: what is missing would be read from the stream
 * again. */
static int sparsify(struct cg_rbd *rbd, const struct cg_name *name, struct stepping *s,
                    struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    int r = cg_rbd_open_once(rbd, name, true, &im, err);

    return r < 0 ? r : rbd_sparsify_with_progress(cg_rbd_image_handle(im), 4096, stepped, s);
}

int cg_rbd_migrate_step(void *self, const struct cg_name *name, enum cg_migration_step step,
                        int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                        struct cg_error *err)
{
    static const char *const verbs[] = { "fill", "commit", "abort", "sparsify" };
    struct stepping s = { .progress = progress,
                          .opaque = opaque,
                          .can_cancel = step == CG_MIGRATION_EXECUTE };
    struct cg_rbd_place p;
    int r = cg_rbd_place_head(self, name, "migrate to", &p, err);

    if (r < 0)
        return r;
    if (step == CG_MIGRATION_SPARSIFY)
        r = sparsify(self, name, &s, err);
    else if (step == CG_MIGRATION_EXECUTE)
        r = rbd_migration_execute_with_progress(p.io, p.image, stepped, &s);
    else if (step == CG_MIGRATION_COMMIT)
        r = rbd_migration_commit_with_progress(p.io, p.image, stepped, &s);
    else
        r = rbd_migration_abort_with_progress(p.io, p.image, stepped, &s);
    if (r < 0 && s.cancelled)
        return cg_error_say(err, ECANCELED, "%s %s: interrupted", verbs[step], p.text);
    if (r == -EBUSY)
        return cg_error_say(err, EBUSY,
                            "%s %s: it is open elsewhere (one that died is forgotten after half a "
                            "minute)",
                            verbs[step], p.text);
    return r < 0 ? cg_rbd_failed(r, err, "%s %s", verbs[step], p.text) : 0;
}

static enum cg_migration_state state_of(rbd_image_migration_state_t state)
{
    switch (state) {
    case RBD_IMAGE_MIGRATION_STATE_PREPARED:
        return CG_MIGRATION_PREPARED;
    case RBD_IMAGE_MIGRATION_STATE_EXECUTING:
        return CG_MIGRATION_EXECUTING;
    case RBD_IMAGE_MIGRATION_STATE_EXECUTED:
        return CG_MIGRATION_EXECUTED;
    default:
        return CG_MIGRATION_UNSETTLED;
    }
}

/* Whether an image is filled from spec.  librbd tells that only of one that it can open, for which
 * the stream must be there; the image's header says it always: the answer of its class to
 * migration_get has the spec in it, in json_spirit's compact form, keys sorted. */
static int compare_spec(const struct cg_rbd_place *p, const char *id, const char *spec,
                        bool *ret_same, struct cg_error *err)
{
    const size_t snapshots = 1 << 20; /* far more than an image can have */
    size_t size = strlen(spec) + snapshots;
    CG_CLEANUP(cg_free) char *answer = malloc(size);
    char object[64 + CG_ID_MAX];

    if (!answer)
        return cg_error_set(err, ENOMEM, "ask for the migration of %s", p->text);
    snprintf(object, sizeof object, "rbd_header.%s", id);
    int r = rados_exec(p->io, object, "rbd", "migration_get", "", 0, answer, size);
    if (r < 0)
        return cg_rbd_failed(r, err, "ask for the migration of %s", p->text);
    *ret_same = memmem(answer, (size_t)r, spec, strlen(spec)) != NULL;
    return 0;
}

/* The id of an image that can be opened. */
static int find_id(struct cg_rbd *rbd, const struct cg_name *name, char ret[static CG_ID_MAX + 1],
                   struct cg_error *err)
{
    CG_CLEANUP(cg_rbd_image_cleanup) struct cg_rbd_image *im = NULL;
    int r = cg_rbd_open_once(rbd, name, false, &im, err);

    if (r < 0)
        return r;
    r = rbd_get_id(cg_rbd_image_handle(im), ret, CG_ID_MAX + 1);
    return r < 0 ? cg_rbd_image_failed(im, r, "identify", err) : 0;
}

int cg_rbd_migrate_status(void *self, const struct cg_name *name, const char *spec,
                          struct cg_migration_status *ret, struct cg_error *err)
{
    rbd_image_migration_status_t status;
    struct cg_rbd_place p;
    int r = cg_rbd_place_head(self, name, "ask for the migration of", &p, err);

    if (r < 0)
        return r;
    *ret = (struct cg_migration_status){ .state = CG_MIGRATION_NONE };
    r = rbd_migration_status(p.io, p.image, &status, sizeof status);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", p.text);
    if (r == -EINVAL) /* what librbd says of an image that isn't migrating */
        return find_id(self, name, ret->image_id, err);
    if (r < 0)
        return cg_rbd_failed(r, err, "ask for the migration of %s", p.text);
    ret->state = state_of(status.state);
    snprintf(ret->image_id, sizeof ret->image_id, "%s",
             status.dest_image_id ? status.dest_image_id : "");
    snprintf(ret->description, sizeof ret->description, "%s",
             status.state_description ? status.state_description : "");
    rbd_migration_status_cleanup(&status);
    return spec ? compare_spec(&p, ret->image_id, spec, &ret->same, err) : 0;
}
