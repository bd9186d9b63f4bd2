#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/rbd/cluster.h"
#include "core/rbd/marks.h"

#define PREFIX "cowgate."
#define KEY_MAX 256
#define AT_ONCE 64 /* keys asked for at a time */

/* Calls fn with each key that begins with prefix, and its value. */
static int each_key(rbd_image_t image, const char *prefix,
                    int (*fn)(void *opaque, const char *key, const char *value), void *opaque)
{
    size_t keys_size = AT_ONCE * KEY_MAX, values_size = AT_ONCE * KEY_MAX;
    char start[KEY_MAX];

    snprintf(start, sizeof start, "%s", prefix);
    for (;;) {
        CG_CLEANUP(cg_free) char *keys = calloc(1, keys_size + 1);
        CG_CLEANUP(cg_free) char *values = calloc(1, values_size + 1);
        size_t keys_len = keys_size, values_len = values_size;
        if (!keys || !values)
            return -ENOMEM;
        int r = rbd_metadata_list(image, start, AT_ONCE, keys, &keys_len, values, &values_len);
        if (r == -ERANGE) {
            keys_size = keys_len;
            values_size = values_len;
            continue;
        }
        if (r < 0)
            return r;
        const char *k = keys, *v = values;
        for (; k < keys + keys_len && *k; k += strlen(k) + 1, v += strlen(v) + 1) {
            if (strncmp(k, prefix, strlen(prefix)) != 0 || strlen(k) >= sizeof start)
                return 0; /* they come in order */
            r = fn(opaque, k, v);
            if (r < 0)
                return r;
            strcpy(start, k);
        }
        if (k == keys)
            return 0;
    }
}

/* "cowgate.IMAGE." */
static int image_prefix(rbd_image_t image, char ret[static KEY_MAX])
{
    char id[32];
    int r = rbd_get_id(image, id, sizeof id);

    if (r == 0)
        snprintf(ret, KEY_MAX, PREFIX "%s.", id);
    return r;
}

struct reading {
    size_t skip;
    struct cg_rbd_marks marks;
};

static int read_mark(void *opaque, const char *key, const char *value)
{
    struct reading *rd = opaque;
    struct cg_rbd_mark m;

    if (!cg_rbd_mark_key_decode(key + rd->skip, value, &m))
        return 0;
    struct cg_rbd_mark *v = realloc(rd->marks.v, (rd->marks.count + 1) * sizeof *v);
    if (!v)
        return -ENOMEM;
    v[rd->marks.count++] = m;
    rd->marks.v = v;
    return 0;
}

int cg_rbd_marks_read(rbd_image_t image, struct cg_rbd_marks *ret, struct cg_error *err)
{
    struct reading rd = { 0 };
    char prefix[KEY_MAX];
    int r = image_prefix(image, prefix);

    if (r == 0) {
        rd.skip = strlen(prefix);
        r = each_key(image, prefix, read_mark, &rd);
    }
    if (r < 0) {
        cg_rbd_marks_clear(&rd.marks);
        return cg_rbd_failed(r, err, "read the image's metadata");
    }
    *ret = rd.marks;
    return 0;
}

void cg_rbd_marks_clear(struct cg_rbd_marks *marks)
{
    free(marks->v);
    *marks = (struct cg_rbd_marks){ 0 };
}

const struct cg_rbd_mark *cg_rbd_marks_holder(const struct cg_rbd_marks *marks, uint64_t snapshot)
{
    for (size_t i = 0; i < marks->count; i++) {
        const struct cg_rbd_mark *m = &marks->v[i];
        if (!m->protection && (!snapshot || m->snapshot == snapshot))
            return m;
    }
    return NULL;
}

bool cg_rbd_marks_protected(const struct cg_rbd_marks *marks, uint64_t snapshot)
{
    for (size_t i = 0; i < marks->count; i++) {
        if (marks->v[i].protection && marks->v[i].snapshot == snapshot)
            return true;
    }
    return false;
}

static int mark_key(rbd_image_t image, const struct cg_rbd_mark *m, char ret[static KEY_MAX],
                    struct cg_error *err)
{
    int r = image_prefix(image, ret);

    if (r < 0)
        return cg_rbd_failed(r, err, "identify the image");
    cg_rbd_mark_key_encode(ret, KEY_MAX, m);
    return 0;
}

int cg_rbd_mark_set(rbd_image_t image, const struct cg_rbd_mark *mark, struct cg_error *err)
{
    char key[KEY_MAX], host[65] = "";
    int r = mark_key(image, mark, key, err);

    if (r < 0)
        return r;
    gethostname(host, sizeof host - 1);
    r = rbd_metadata_set(image, key, host);
    return r < 0 ? cg_rbd_failed(r, err, "write the image's metadata") : 0;
}

int cg_rbd_mark_remove(rbd_image_t image, const struct cg_rbd_mark *mark, struct cg_error *err)
{
    char key[KEY_MAX];
    int r = mark_key(image, mark, key, err);

    if (r == 0)
        r = rbd_metadata_remove(image, key);
    return r < 0 && r != -ENOENT ? cg_rbd_failed(r, err, "write the image's metadata") : 0;
}

struct disowning {
    rbd_image_t image;
    char own[KEY_MAX];
};

static int disown(void *opaque, const char *key, const char *value)
{
    struct disowning *d = opaque;

    (void)value;
    if (strncmp(key, d->own, strlen(d->own)) != 0)
        rbd_metadata_remove(d->image, key);
    return 0;
}

void cg_rbd_marks_disown(rbd_image_t clone)
{
    struct disowning d = { .image = clone };

    if (image_prefix(clone, d.own) == 0)
        each_key(clone, PREFIX, disown, &d); /* what stays says nothing about the clone */
}
