#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/page.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/jobs/restore_look.h"

struct marking {
    uint8_t *look;
    uint64_t size; /* of the point */
};

/* Chunks that are zeros as a whole. */
static int mark_zeros(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct marking *m = opaque;
    uint64_t end = e->off + e->len;

    (void)err;
    if (e->type == CG_DATA)
        return 0;
    for (uint64_t c = (e->off + CG_CHUNK_SIZE - 1) / CG_CHUNK_SIZE; c * CG_CHUNK_SIZE < end; c++) {
        if (c * CG_CHUNK_SIZE + cg_chunk_len(m->size, c) <= end)
            m->look[c] = CG_LOOK_ZEROS;
    }
    return 0;
}

/* An image may describe in pieces what is one; zeros that follow each other are one extent. */
struct joining {
    struct marking marking;
    struct cg_extent zeros; /* len 0: none */
};

static int join_zeros(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct joining *j = opaque;

    if (e->type != CG_DATA) {
        if (j->zeros.len == 0)
            j->zeros = *e;
        else
            j->zeros.len += e->len;
        return 0;
    }
    int r = mark_zeros(&j->marking, &j->zeros, err);
    j->zeros.len = 0;
    return r;
}

static int look_for_zeros(struct cg_image *target, uint64_t size, uint8_t *look,
                          struct cg_error *err)
{
    struct joining j = { .marking = { look, size }, .zeros = { .type = CG_HOLE } };
    int r = cg_image_walk(target, 0, size, join_zeros, &j, err);

    return r == 0 ? mark_zeros(&j.marking, &j.zeros, err) : r;
}

/* What trusting needs: 0, or -ENOTSUP with the reason. */
static int check_trust(struct cg_project *project, const struct cg_point *point,
                       const struct cg_restore_options *o, struct cg_name *ret_from,
                       struct cg_error *err)
{
    const struct cg_identity *was = &point->source.identity;
    struct cg_identity head, snapshot;

    if (!o->space)
        return cg_error_say(err, ENOTSUP, "the target's changes aren't recorded");
    if (!was->image[0] || !was->snapshot[0] || !point->source.snapshot[0])
        return cg_error_say(err, ENOTSUP, "the point isn't of a snapshot");
    int r = cg_space_identify(o->space, o->name, &head, err);
    if (r < 0)
        return r;
    if (strcmp(head.image, was->image) != 0)
        return cg_error_say(err, ENOTSUP, "the point is of another image");
    if (strcmp(head.parent, was->parent) != 0)
        return cg_error_say(err, ENOTSUP, "the target was flattened since the point");
    *ret_from = *o->name;
    snprintf(ret_from->snapshot, sizeof ret_from->snapshot, "%s", point->source.snapshot);
    if (cg_space_identify(o->space, ret_from, &snapshot, err) < 0 ||
        strcmp(snapshot.image, was->image) != 0 || strcmp(snapshot.snapshot, was->snapshot) != 0)
        return cg_error_say(err, ENOTSUP, "the point's snapshot is gone");
    r = cg_project_distrusted(project, point, err);
    if (r == 1)
        return cg_error_say(err, ENOTSUP, "an audit found the diff since the point wrong");
    return r;
}

static int mark_changed(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct marking *m = opaque;
    uint64_t end = cg_min(e->off + e->len, m->size);

    (void)err;
    for (uint64_t c = e->off / CG_CHUNK_SIZE; c * CG_CHUNK_SIZE < end; c++)
        m->look[c] = CG_LOOK_READ;
    return 0;
}

static int trust(struct cg_project *project, const struct cg_point *point,
                 const struct cg_restore_options *o, uint8_t *look, struct cg_error *err)
{
    uint64_t chunks = cg_chunk_count(point->size);
    struct marking m = { look, point->size };
    struct cg_name from;

    int r = check_trust(project, point, o, &from, err);
    if (r < 0)
        return r;
    memset(look, CG_LOOK_RIGHT, chunks);
    r = cg_space_diff(o->space, &from, o->name, mark_changed, &m, err);
    if (r < 0)
        memset(look, CG_LOOK_READ, chunks);
    return r;
}

int cg_restore_look(struct cg_project *project, const struct cg_point *point,
                    struct cg_image *target, const struct cg_restore_options *o, uint8_t *look,
                    char ret_why[static CG_RESTORE_WHY], struct cg_error *err)
{
    struct cg_error why;

    ret_why[0] = '\0';
    if (o->fresh)
        return 0;
    if (o->trust_diff) {
        /* Whatever is wrong with the diff, reading needs none. */
        if (trust(project, point, o, look, &why) == 0)
            return 0;
        snprintf(ret_why, CG_RESTORE_WHY, "%.200s", why.message);
    }
    return look_for_zeros(target, point->size, look, err);
}
