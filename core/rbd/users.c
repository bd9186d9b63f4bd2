#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/cluster.h"
#include "core/rbd/users.h"

#define NAMED 4 /* more than that are counted */

static void name_children(const rbd_linked_image_spec_t *v, size_t count,
                          char ret[static CG_RBD_USERS_TEXT])
{
    size_t n = 0;

    ret[0] = '\0';
    for (size_t i = 0; i < count && i < NAMED && n < CG_RBD_USERS_TEXT; i++) {
        const char *ns = v[i].pool_namespace ? v[i].pool_namespace : "";
        n += (size_t)snprintf(ret + n, CG_RBD_USERS_TEXT - n, "%srbd/%s%s%s/%s%s", i ? ", " : "",
                              v[i].pool_name, *ns ? "/" : "", ns, v[i].image_name,
                              v[i].trash ? " (in Ceph's trash)" : "");
    }
    if (count > NAMED && n < CG_RBD_USERS_TEXT)
        snprintf(ret + n, CG_RBD_USERS_TEXT - n, " and %zu more", count - NAMED);
}

int cg_rbd_children(rbd_image_t image, size_t *ret_count, char ret[static CG_RBD_USERS_TEXT],
                    struct cg_error *err)
{
    CG_CLEANUP(cg_free) rbd_linked_image_spec_t *v = NULL;
    size_t count = 16;
    int r;

    do {
        free(v);
        v = calloc(count + 1, sizeof *v);
        if (!v)
            return cg_error_set(err, ENOMEM, "list clones");
        r = rbd_list_children3(image, v, &count);
    } while (r == -ERANGE);
    if (r < 0)
        return cg_rbd_failed(r, err, "list clones");
    name_children(v, count, ret);
    rbd_linked_image_spec_list_cleanup(v, count);
    *ret_count = count;
    return 0;
}

int cg_rbd_writers(rbd_image_t image, size_t *ret_count, char ret[static CG_RBD_USERS_TEXT],
                   struct cg_error *err)
{
    rbd_image_watcher_t v[16];
    size_t count = sizeof v / sizeof *v;

    int r = rbd_watchers_list(image, v, &count);
    if (r < 0 && r != -ERANGE)
        return cg_rbd_failed(r, err, "ask who has the image open");
    snprintf(ret, CG_RBD_USERS_TEXT, "a client");
    if (r == 0 && count > 0)
        snprintf(ret, CG_RBD_USERS_TEXT, "the client at %s", v[0].addr);
    if (r == 0)
        rbd_watchers_list_cleanup(v, count);
    *ret_count = count;
    return 0;
}

/* Those of people first, in their order. */
static int sort_snaps(rbd_image_t image, struct cg_rbd_snaps *s)
{
    for (int i = 0; i < s->all; i++) {
        rbd_snap_namespace_type_t type;
        int r = rbd_snap_get_namespace_type(image, s->v[i].id, &type);
        if (r < 0)
            return r;
        if (type != RBD_SNAP_NAMESPACE_TYPE_USER)
            continue;
        rbd_snap_info_t snap = s->v[i];
        s->v[i] = s->v[s->count];
        s->v[s->count++] = snap;
    }
    return 0;
}

int cg_rbd_snaps_read(rbd_image_t image, struct cg_rbd_snaps *ret, struct cg_error *err)
{
    struct cg_rbd_snaps s = { 0 };
    int max = 16, n;

    do {
        free(s.v);
        s.v = calloc((size_t)max + 1, sizeof *s.v);
        if (!s.v)
            return cg_error_set(err, ENOMEM, "list snapshots");
        n = rbd_snap_list(image, s.v, &max);
    } while (n == -ERANGE);
    if (n < 0) {
        free(s.v);
        return cg_rbd_failed(n, err, "list snapshots");
    }
    s.all = n;
    n = sort_snaps(image, &s);
    if (n < 0) {
        cg_rbd_snaps_clear(&s);
        return cg_rbd_failed(n, err, "list snapshots");
    }
    *ret = s;
    return 0;
}

void cg_rbd_snaps_clear(struct cg_rbd_snaps *s)
{
    for (int i = 0; i < s->all; i++)
        free((char *)s->v[i].name);
    free(s->v);
    *s = (struct cg_rbd_snaps){ 0 };
}
