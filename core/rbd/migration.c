/* Images that fill themselves from a stream: Ceph's live migration, import-only
 * (docs.ceph.com, rbd/rbd-live-migration).  Each process that opens such an image reads the stream
 * until the migration is committed. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/base/bytes.h"
#include "core/rbd/migration_header.h"
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

/* What librbd says of it; -ENOTSUP if it doesn't know the stream. */
static int prepare_import(const struct cg_rbd_place *p, const char *image, const char *spec)
{
    rbd_image_options_t options;

    rbd_image_options_create(&options);
    int r = rbd_migration_prepare_import(spec, p->io, image, options);
    rbd_image_options_destroy(options);
    return r == -ENOSYS ? -ENOTSUP : r;
}

int cg_rbd_migrate_stream(void *self, const struct cg_name *name, const char *stream,
                          struct cg_error *err)
{
    struct cg_rbd_place p;
    int r = cg_rbd_place_head(self, name, "migrate to", &p, err);

    if (r < 0)
        return r;
    if (prepare_import(&p, CG_RBD_DRAFT "stream", unreachable(stream)) == -ENOTSUP)
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
    int r = cg_rbd_place_head(self, name, "migrate to", &p, err);

    if (r < 0)
        return r;
    r = prepare_import(&p, p.image, spec);
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", p.text);
    if (r == -ENOTSUP)
        return cg_error_say(err, ENOTSUP,
                            "prepare %s: this host's librbd can't read a stream of that kind "
                            "(nbd came with Ceph 19.2.3)",
                            p.text);
    return r < 0 ? cg_rbd_failed(r, err, "prepare %s from %s", p.text, spec) : 0;
}

struct stepping {
    int (*progress)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

static int stepped(uint64_t done, uint64_t total, void *opaque)
{
    struct stepping *s = opaque;

    if (s->progress)
        s->progress(s->opaque, done, total);
    return 0;
}

/* A string as Ceph encodes it, in len bytes. */
static bool decode_id(const uint8_t *text, int len, char ret[static CG_ID_MAX + 1])
{
    uint32_t n = len < 4 ? 0 : cg_le32(text);

    if (n == 0 || n > (uint32_t)len - 4 || n > CG_ID_MAX)
        return false;
    memcpy(ret, text + 4, n);
    ret[n] = '\0';
    return true;
}

/* What the pool's directory of images says; an image that is being made is there first. */
static int ask_directory(const struct cg_rbd_place *p, uint8_t *text, size_t size)
{
    uint8_t name[4 + sizeof p->image];
    size_t len = strlen(p->image);

    cg_put_le32(name, (uint32_t)len);
    memcpy(name + 4, p->image, len);
    return rados_exec(p->io, "rbd_directory", "rbd", "dir_get_id", (char *)name, 4 + len,
                      (char *)text, size);
}

/* The id of an image, which the object rbd_id.NAME has as its content.  librbd can't be asked: it
 * opens no image whose stream can't be reached, and says -ENOENT as of one that isn't there. */
static int find_id(const struct cg_rbd_place *p, char ret[static CG_ID_MAX + 1],
                   struct cg_error *err)
{
    char object[sizeof p->image + 16];
    uint8_t text[4 + CG_ID_MAX];

    snprintf(object, sizeof object, "rbd_id.%s", p->image);
    int r = rados_read(p->io, object, (char *)text, sizeof text, 0);
    if (r == -ENOENT)
        r = ask_directory(p, text, sizeof text);
    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no %s", p->text);
    if (r < 0)
        return cg_rbd_failed(r, err, "look for %s", p->text);
    return decode_id(text, r, ret)
               ? 0
               : cg_error_say(err, EIO, "look for %s: its id is damaged", p->text);
}

/* Half an image, without a header, is what whoever died at making or removing one leaves. */
static int has_header(const struct cg_rbd_place *p, const char *id, bool *ret, struct cg_error *err)
{
    char object[CG_ID_MAX + 16];
    uint64_t size;
    time_t time;

    snprintf(object, sizeof object, "rbd_header.%s", id);
    int r = rados_stat(p->io, object, &size, &time);
    *ret = r == 0;
    return r < 0 && r != -ENOENT ? cg_rbd_failed(r, err, "look for %s", p->text) : 0;
}

/* Also what is only half there. */
static int remove_target(const struct cg_rbd_place *p, struct stepping *s, struct cg_error *err)
{
    char id[CG_ID_MAX + 1];
    bool header;

    int r = find_id(p, id, err);
    if (r == 0)
        r = has_header(p, id, &header, err);
    if (r < 0)
        return r;
    return header ? rbd_migration_abort_with_progress(p->io, p->image, stepped, s)
                  : rbd_remove(p->io, p->image);
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

static int execute(struct cg_rbd *rbd, const struct cg_name *name, struct stepping *s,
                   struct cg_error *err)
{
    struct cg_rbd_place p;
    int r = cg_rbd_place_to_fill(rbd, name, &p, err);

    return r < 0 ? r : rbd_migration_execute_with_progress(p.io, p.image, stepped, s);
}

int cg_rbd_migrate_step(void *self, const struct cg_name *name, enum cg_migration_step step,
                        int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                        struct cg_error *err)
{
    static const char *const verbs[] = { "fill", "commit", "abort", "sparsify" };
    struct stepping s = { .progress = progress, .opaque = opaque };
    struct cg_rbd_place p;
    int r = cg_rbd_place_head(self, name, "migrate to", &p, err);

    if (r < 0)
        return r;
    if (step == CG_MIGRATION_SPARSIFY)
        r = sparsify(self, name, &s, err);
    else if (step == CG_MIGRATION_EXECUTE)
        r = execute(self, name, &s, err);
    else if (step == CG_MIGRATION_COMMIT)
        r = rbd_migration_commit_with_progress(p.io, p.image, stepped, &s);
    else
        r = remove_target(&p, &s, err);
    if (r == -EBUSY)
        return cg_error_say(err, EBUSY,
                            "%s %s: it is open elsewhere (one that died is forgotten after half a "
                            "minute)",
                            verbs[step], p.text);
    return r < 0 ? cg_rbd_failed(r, err, "%s %s", verbs[step], p.text) : 0;
}

static enum cg_migration_state state_of(uint8_t state)
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

/* Asks the image's header, which has to be there.  -ENOENT: it isn't migrating. */
static int ask_header(const struct cg_rbd_place *p, const char *id, const char *spec,
                      struct cg_migration_status *ret, struct cg_error *err)
{
    rados_read_op_t op = rados_create_read_op();
    struct cg_rbd_migration m = { 0 };
    char object[CG_ID_MAX + 16], *answer = NULL;
    size_t len = 0;
    int result = 0;

    snprintf(object, sizeof object, "rbd_header.%s", id);
    rados_read_op_exec(op, "rbd", "migration_get", "", 0, &answer, &len, &result);
    int r = rados_read_op_operate(op, p->io, object, 0);
    bool decoded = r == 0 && result == 0 && cg_rbd_migration_decode(answer, len, &m);
    if (decoded) {
        ret->state = state_of(m.state);
        ret->same =
            spec && m.target && strlen(spec) == m.spec_len && memcmp(spec, m.spec, m.spec_len) == 0;
        snprintf(ret->description, sizeof ret->description, "%.*s", (int)m.description_len,
                 m.description);
    }
    rados_buffer_free(answer);
    rados_release_read_op(op);
    r = r < 0 ? r : result;
    if (r == -ENOENT || r == -EINVAL) /* the class says either */
        return -ENOENT;
    if (r < 0)
        return cg_rbd_failed(r, err, "ask for the migration of %s", p->text);
    return decoded ? 0
                   : cg_error_say(err, EPROTO, "what %s says of its migration is unknown here",
                                  p->text);
}

/* Whoever lets go of the stream must know that nobody needs it: an image that has lost its name
 * still does. */
static int check_not_elsewhere(const struct cg_rbd_place *p, const char *id, struct cg_error *err)
{
    bool header = false;
    int r = *id ? has_header(p, id, &header, err) : 0;

    return header
               ? cg_error_say(err, EBUSY,
                              "the image that was %s is there, but was renamed or lies in Ceph's "
                              "trash: give it its name back first",
                              p->text)
               : r;
}

int cg_rbd_migrate_status(void *self, const struct cg_name *name, const char *image_id,
                          const char *spec, struct cg_migration_status *ret, struct cg_error *err)
{
    struct cg_migration_status status = { .state = CG_MIGRATION_NONE };
    struct cg_rbd_place p;
    struct cg_error why;
    bool header;

    int r = cg_rbd_place_to_look(self, name, &p, &why);
    if (r < 0) /* no pool of that name: it may have another, and the image in it is there */
        return cg_error_say(err, r == -ENOENT ? EIO : -r, "%s", why.message);
    r = find_id(&p, status.image_id, err);
    if (r == -ENOENT || (r == 0 && strcmp(status.image_id, image_id) != 0)) {
        int elsewhere = check_not_elsewhere(&p, image_id, err);
        r = elsewhere < 0 ? elsewhere : r;
    }
    if (r == 0)
        r = has_header(&p, status.image_id, &header, err);
    if (r < 0)
        return r;
    if (!header) {
        status.state = CG_MIGRATION_UNSETTLED;
        status.same = spec; /* there was no image before that was saved */
    } else {
        r = ask_header(&p, status.image_id, spec, &status, err);
    }
    if (r < 0 && r != -ENOENT)
        return r;
    *ret = status;
    return 0;
}
