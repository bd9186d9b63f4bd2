#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "core/backups/history_points.h"
#include "core/backups/holds.h"
#include "core/base/array.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"

#define DIGEST 32

struct choosing {
    uint64_t last;
    struct cg_history_points *points;
};

static int choose(void *opaque, const char *name, const struct cg_point *head, const char *why,
                  struct cg_error *err)
{
    struct choosing *c = opaque;
    struct cg_history_points *p = c->points;

    if (!head)
        return cg_error_say(err, EIO, "point %s can't be read, so that the history isn't known: %s",
                            name, why);
    if (head->sequence > c->last)
        return 0;
    void *v = cg_array_room(p->v, p->count, &p->allocated, sizeof *p->v);
    if (!v)
        return cg_error_set(err, ENOMEM, "list a history");
    p->v = v;
    struct cg_history_name *n = &p->v[p->count++];
    strcpy(n->name, name);
    n->sequence = head->sequence;
    return 0;
}

static int by_sequence(const void *a, const void *b)
{
    const struct cg_history_name *x = a, *y = b;

    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

int cg_history_points(struct cg_project *project, const char *volume, const char *last,
                      struct cg_history_points *ret, struct cg_error *err)
{
    struct choosing c = { .points = ret };
    struct cg_point *head;

    *ret = (struct cg_history_points){ 0 };
    int r = cg_project_head(project, volume, last, &head, err);
    if (r < 0)
        return r;
    c.last = head->sequence;
    cg_point_free(head);
    r = cg_project_heads(project, volume, choose, &c, &head, NULL, err);
    if (r < 0)
        return r;
    cg_point_free(head);
    if (ret->count == 0)
        return cg_error_say(err, ENOENT, "point %s is gone", last);
    qsort(ret->v, ret->count, sizeof *ret->v, by_sequence);
    return 0;
}

void cg_history_points_clear(struct cg_history_points *points)
{
    free(points->v);
    *points = (struct cg_history_points){ 0 };
}

static int digest(const void *text, size_t len, uint8_t ret[static DIGEST], struct cg_error *err)
{
    unsigned size = DIGEST;

    return EVP_Digest(text, len, ret, &size, EVP_sha256(), NULL) == 1
               ? 0
               : cg_error_set(err, ENOMEM, "identify a history");
}

int cg_history_identify(struct cg_project *project, const char *volume, const char *last,
                        char ret[static CG_ID_MAX + 1], struct cg_error *err)
{
    CG_CLEANUP(cg_history_points_clear) struct cg_history_points p;
    uint8_t sum[DIGEST];

    int r = cg_history_points(project, volume, last, &p, err);
    if (r < 0)
        return r;
    /* What the heads have of them: no other point of the volume gets the same sequence. */
    const size_t line = CG_PART_MAX + 24;
    CG_CLEANUP(cg_free) char *text = malloc(p.count * line);
    size_t len = 0;
    if (!text)
        return cg_error_set(err, ENOMEM, "identify a history");
    for (size_t i = 0; i < p.count; i++)
        len += (size_t)snprintf(text + len, line, "%s %" PRIu64 "\n", p.v[i].name, p.v[i].sequence);
    r = digest(text, len, sum, err);
    for (size_t i = 0; r == 0 && i < DIGEST; i++)
        snprintf(ret + 2 * i, 3, "%02x", sum[i]);
    return r;
}

/* A point's own uuid among those of one holder: the first bytes of a digest (RFC 9562, version 8).
 */
static int own_uuid(const char *uuid, const char *point, char ret[static CG_UUID_LEN + 1],
                    struct cg_error *err)
{
    char text[CG_UUID_LEN + CG_PART_MAX + 2];
    uint8_t d[DIGEST];
    int n = snprintf(text, sizeof text, "%.36s/%s", uuid, point);

    int r = digest(text, (size_t)n, d, err);
    if (r < 0)
        return r;
    snprintf(ret, CG_UUID_LEN + 1,
             "%02x%02x%02x%02x-%02x%02x-8%01x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", d[0], d[1],
             d[2], d[3], d[4], d[5], d[6] & 15, d[7], (d[8] & 0x3f) | 0x80, d[9], d[10], d[11],
             d[12], d[13], d[14], d[15]);
    return 0;
}

struct releasing {
    struct cg_project *project;
    const char *volume, *uuid;
    int result; /* the first failure */
};

static int release_one(void *opaque, const char *point, struct cg_error *err)
{
    struct releasing *x = opaque;
    char own[CG_UUID_LEN + 1];
    struct cg_error why;

    int r = own_uuid(x->uuid, point, own, &why);
    if (r == 0)
        r = cg_point_release(x->project, x->volume, point, own, &why);
    if (r < 0 && x->result == 0)
        x->result = cg_error_say(err, -r, "%s", why.message);
    return 0;
}

/* Of all the volume's points, as one that can't be read doesn't tell whether it was held. */
int cg_history_release(struct cg_project *project, const char *volume, const char *uuid,
                       struct cg_error *err)
{
    struct releasing x = { project, volume, uuid, 0 };
    int r = cg_project_points(project, volume, release_one, &x, err);

    return r < 0 ? r : x.result;
}

int cg_history_hold(struct cg_project *project, const char *volume, const char *last,
                    const char *uuid, struct cg_error *err)
{
    CG_CLEANUP(cg_history_points_clear) struct cg_history_points p;
    char own[CG_UUID_LEN + 1];

    int r = cg_history_points(project, volume, last, &p, err);
    for (size_t i = 0; r == 0 && i < p.count; i++) {
        r = own_uuid(uuid, p.v[i].name, own, err);
        if (r == 0)
            r = cg_point_hold(project, volume, p.v[i].name, own, err);
        if (r < 0)
            cg_history_release(project, volume, uuid, NULL);
    }
    return r;
}
