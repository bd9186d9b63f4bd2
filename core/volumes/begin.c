/* Becoming the writer of a volume: the lock, a look whether the volume is still what was opened,
 * what a dead writer left, the socket, and a top layer that nobody else reads. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/change.h"
#include "core/volumes/tidy.h"
#include "core/volumes/map.h"
#include "core/volumes/volume.h"
#include "core/volumes/work_map.h"

/* Removes what an interrupted change left: files that volume.json doesn't name. */
static void remove_unnamed(struct cg_volume *v)
{
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(v->dirfd, ".", 0);
    struct dirent *e;

    while (dir && (e = readdir(dir))) {
        char uuid[CG_UUID_LEN + 1] = "";
        size_t len = strlen(e->d_name);
        bool layer = len > CG_UUID_LEN && (strcmp(e->d_name + CG_UUID_LEN, ".data") == 0 ||
                                           strcmp(e->d_name + CG_UUID_LEN, ".map") == 0);
        if (strncmp(e->d_name, "volume.json.tmp-", 16) == 0)
            unlinkat(v->dirfd, e->d_name, 0);
        if (!layer)
            continue;
        memcpy(uuid, e->d_name, CG_UUID_LEN);
        if (cg_uuid_valid(uuid) && !cg_volume_json_names(&v->json, uuid))
            cg_layer_remove(v->dirfd, uuid, v->run);
    }
}

/* Sealed layers were flushed; a working map of one is what a process didn't get to remove. */
static void forget_sealed(struct cg_volume *v)
{
    for (size_t i = 0; i + 1 < v->json.head.count; i++)
        cg_map_forget(v->dirfd, v->json.head.uuid[i], v->run);
}

/* Where in head the layers begin that mine shows; -1 if head shows something else.  below: one may
 * have come below them, between them and their parent, or instead of it (flatten). */
static long place_of(const struct cg_layers *head, const struct cg_layers *mine, bool below)
{
    for (size_t at = 0; at + mine->count <= head->count; at++) {
        struct cg_layers rest = { .count = head->count - at, .uuid = head->uuid + at };
        if (cg_layers_begin_with(&rest, mine))
            return at == 0 || below ? (long)at : -1;
    }
    return -1;
}

static int stale(struct cg_volume *v, struct cg_error *err)
{
    return cg_error_say(err, ESTALE,
                        "%s was written by another process since it was opened: open it again",
                        v->label);
}

/* The layers above number `from` have nothing in them: somebody made a snapshot, resized, or
 * looked. */
static int check_empty(struct cg_volume *v, struct cg_layer **layers, size_t from, size_t count,
                       struct cg_error *err)
{
    for (size_t i = from; i < count; i++) {
        bool empty;
        int r = cg_layer_is_empty(layers[i], &empty, err);
        if (r < 0)
            return r;
        if (!empty)
            return stale(v, err);
    }
    return 0;
}

/* What a killed writer acknowledged is in its working map only. */
static int follow(struct cg_volume *v, struct cg_layer *top, bool left, struct cg_error *err)
{
    bool found;

    if (!left)
        return 0;
    int r = cg_layer_follow(top, v->run, &found, err);
    return r < 0 || found ? r : cg_writer_lost(v->run, err);
}

/* What a layer stands for by now is that layer in mine too. */
static int replace(const struct cg_volume_json *json, struct cg_layers *mine, bool *ret_replaced,
                   struct cg_error *err)
{
    size_t gone = *json->instead && !cg_volume_json_gathers(json)
                      ? cg_layers_replaced(mine, &json->inherited, json->instead)
                      : 0;

    *ret_replaced = gone > 0;
    if (!gone)
        return 0;
    mine->count -= gone;
    memmove(mine->uuid, mine->uuid + gone, mine->count * sizeof *mine->uuid);
    return cg_layers_insert(mine, json->instead, err);
}

/* The layers that this handle has been showing, as the volume would have them now. */
static int mine_now(struct cg_volume *v, struct cg_layers *ret, bool *ret_replaced,
                    struct cg_error *err)
{
    struct cg_layers mine;
    int r = cg_volume_layers_of(v->head, &mine, err);

    if (r < 0)
        return r;
    r = replace(&v->json, &mine, ret_replaced, err);
    if (r == 0 && !*ret_replaced && !cg_volume_json_names(&v->json, v->filling)) { /* given up */
        cg_layers_remove(&mine, v->filling);
        r = replace(&v->json, &mine, ret_replaced, err);
    }
    if (r < 0)
        cg_layers_clear(&mine);
    else
        *ret = mine;
    return r;
}

/* Checks that the volume shows what this handle has been showing, and goes on with its chain of
 * now. */
static int refresh_chain(struct cg_volume *v, bool left, struct cg_error *err)
{
    struct cg_parent *parent = cg_chain_parent(v->head);
    struct cg_layers *head = &v->json.head;
    struct cg_layer **open = NULL;
    struct cg_layers mine;
    bool replaced;
    int r = mine_now(v, &mine, &replaced, err);

    if (r < 0)
        return r;
    long at = place_of(head, &mine, parent || *v->json.filling);
    size_t above = at < 0 ? 0 : (size_t)at + mine.count;
    bool same = !replaced && at == 0 && head->size == cg_chain_size(v->head) &&
                above == head->count && mine.count == cg_chain_count(v->head) &&
                !parent == !*v->json.parent;
    cg_layers_clear(&mine);
    if (at < 0 || head->size < cg_chain_size(v->head))
        return stale(v, err);
    if (same) /* followed when it was opened; nobody has written it since */
        return left && !cg_layer_left(cg_chain_top(v->head), v->run) ? cg_writer_lost(v->run, err)
                                                                     : 0;
    r = cg_volume_open_layers(v->dirfd, head, true, &open, err);
    if (r < 0)
        return r;
    r = follow(v, open[head->count - 1], left, err);
    if (r == 0)
        r = check_empty(v, open, above, head->count, err);
    struct cg_chain *chain =
        r < 0 ? NULL : cg_chain_new(head->size, open, head->count, *v->json.parent ? parent : NULL);
    cg_volume_close_layers(open, head->count);
    if (!chain)
        return r < 0 ? r : cg_error_set(err, ENOMEM, "open a chain");
    cg_change_show_locked(v, chain);
    return 0;
}

/* For a change only, nothing is read: the parent isn't needed. */
static int load_chain(struct cg_volume *v, bool left, struct cg_error *err)
{
    struct cg_layer **open;
    int r = cg_volume_open_layers(v->dirfd, &v->json.head, true, &open, err);

    if (r < 0)
        return r;
    r = follow(v, open[v->json.head.count - 1], left, err);
    if (r == 0) {
        v->head = cg_chain_new(v->json.head.size, open, v->json.head.count, NULL);
        r = v->head ? 0 : cg_error_set(err, ENOMEM, "open a chain");
    }
    cg_volume_close_layers(open, v->json.head.count);
    return r;
}

int cg_volume_describe(struct cg_volume *v, bool brief, struct cg_error *err)
{
    struct cg_writer writer = { .pid = getpid(), .brief = brief };
    int r = cg_boot_id(writer.boot, err);

    if (r < 0)
        return r;
    snprintf(writer.run, sizeof writer.run, "%s", v->maps ? v->run : "");
    snprintf(writer.socket, sizeof writer.socket, "%s", v->socket);
    return cg_writer_describe(v->lock_fd, &writer, err);
}

/* The socket answers before anything says that it's there. */
static int start_control(struct cg_volume *v, struct cg_error *err)
{
    char run[PATH_MAX];
    struct stat st;
    int r = cg_run_dir(run, sizeof run, err);

    if (r < 0)
        return r;
    if (fstat(v->lock_fd, &st) < 0)
        return cg_error_set(err, errno, "stat the lock of %s", v->label);
    if ((size_t)snprintf(v->socket, sizeof v->socket, "%s/%s-%llx.sock", run, v->json.uuid,
                         (unsigned long long)st.st_ino) >= sizeof v->socket)
        return cg_error_set(err, ENAMETOOLONG, "socket in %s", run);
    r = cg_control_start(v->socket, cg_change_answer, v, &v->control, err);
    return r < 0 ? r : cg_volume_describe(v, false, err);
}

/* A top layer that somebody else reads, or a clone has, gets another above it. */
static int own_top(struct cg_volume *v, bool left, struct cg_error *err)
{
    struct cg_layer *top = cg_chain_top(v->head);
    char uuid[CG_UUID_LEN + 1];
    struct cg_error ignored;
    int r = cg_layer_lock(top, LOCK_EX | LOCK_NB, err);

    if (r == 0 && !cg_layer_shared(top)) {
        r = cg_layer_begin(top, v->run, err);
        if (r < 0) /* nobody writes into it: others may read it */
            cg_layer_lock(top, LOCK_SH, &ignored);
        return r;
    }
    if (r < 0 && r != -EWOULDBLOCK)
        return r;
    snprintf(uuid, sizeof uuid, "%s", cg_layer_uuid(top));
    r = cg_layer_lock(top, LOCK_SH, err); /* an attempt in vain let go of it */
    if (r == 0 && left)
        r = cg_layer_settle(v->dirfd, uuid, v->run, err);
    if (r == 0)
        r = cg_change_push_locked(v, err);
    if (r == 0) /* it's sealed now */
        cg_map_forget(v->dirfd, uuid, v->run);
    return r;
}

/* What counts is on disk before the lock file says that no working map counts. */
static int begin_brief(struct cg_volume *v, bool left, struct cg_error *err)
{
    const char *top = cg_layer_uuid(cg_chain_top(v->head));
    int r = left ? cg_layer_settle(v->dirfd, top, v->run, err) : 0;

    if (r < 0)
        return r;
    v->maps = false;
    r = cg_volume_describe(v, true, err);
    if (r == 0)
        cg_map_forget(v->dirfd, top, v->run);
    return r;
}

/* The working map is there before the lock file says that it counts. */
static int begin_writing(struct cg_volume *v, bool left, struct cg_error *err)
{
    struct cg_error ignored;
    int r = start_control(v, err);

    if (r == 0)
        r = own_top(v, left, err);
    if (r < 0)
        return r;
    v->maps = true;
    r = cg_volume_describe(v, false, err);
    if (r < 0) { /* nobody may write into the top, this process neither */
        atomic_store(&v->failed, r);
        cg_layer_lock(cg_chain_top(v->head), LOCK_SH, &ignored);
        return r;
    }
    atomic_store(&v->writing, true);
    return 0;
}

static int begin_locked(struct cg_volume *v, struct cg_error *err)
{
    bool left;
    int r = cg_writer_run_dir(v->dirfd, v->run, &left, err);

    v->maps = r < 0 || left;
    if (r == 0 && atomic_load(&v->failed) < 0)
        r = cg_error_say(err, EIO, "it takes no writes until it's opened again");
    if (r == 0)
        r = cg_volume_json_read(v->dirfd, &v->json, NULL, err);
    if (r == 0)
        r = v->head ? refresh_chain(v, left, err) : load_chain(v, left, err);
    if (r < 0)
        return r;
    if (!left) /* of a writer that had ended: it would be taken for the truth */
        cg_map_forget(v->dirfd, cg_layer_uuid(cg_chain_top(v->head)), v->run);
    remove_unnamed(v);
    forget_sealed(v);
    cg_work_map_clean(v->run);
    r = v->brief ? begin_brief(v, left, err) : begin_writing(v, left, err);
    if (r == 0)
        cg_tidy_locked(v);
    return r;
}

/* *ret_control: to be stopped after a failure, without the lock. */
static int begin(struct cg_volume *v, struct cg_control **ret_control, struct cg_error *err)
{
    CG_LOCK(&v->change);
    if (v->lock_fd >= 0)
        return 0;
    int r = cg_writer_lock(v->dirfd, v->label, &v->lock_fd, err);
    if (r < 0)
        return r;
    r = begin_locked(v, err);
    if (r < 0) {
        /* Out of the next writer's way before it can come; the rest when v->change is free. */
        cg_control_hide(v->control);
        *ret_control = v->control;
        v->control = NULL;
        cg_volume_json_clear(&v->json);
        if (!v->maps) /* as it was */
            cg_writer_clear(v->lock_fd);
        close(v->lock_fd);
        v->lock_fd = -1;
        return cg_error_prefix(err, r, "write %s", v->label);
    }
    return 0;
}

/* Who opens the volume meanwhile waits for the outcome, to share this one if it's the writer. */
static void set_beginning(struct cg_volume *v, bool beginning)
{
    CG_LOCK(&v->space->lock);
    v->beginning += beginning ? 1u : -1u;
    if (!beginning)
        pthread_cond_broadcast(&v->space->settled);
}

int cg_volume_begin(struct cg_volume *v, struct cg_error *err)
{
    struct cg_control *control = NULL;

    set_beginning(v, true);
    int r = begin(v, &control, err);
    cg_control_stop(control);
    set_beginning(v, false);
    return r;
}
