/* Opening: which layers an image stands on, and locks that keep them so.
 *
 * Whoever reads takes a shared lock on each layer's map.  The top layer's is held exclusively by a
 * writer: then the writer is asked to seal what it has, and that is read.  volume.json is read
 * again after the locks are there; if it changed meanwhile, all starts again.
 */
#include "config.h"

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
#include "core/volumes/volume.h"

/* How often to look whether somebody who reads an earlier moment here is closing: for a second. */
#define EARLIER_ATTEMPTS 25

/* What load finds out. */
struct found {
    struct cg_volume_json json;
    struct cg_layers layers;
    struct cg_layer **open;
    int parent_fd; /* the lock that its parent is kept by; -1 for none */
    bool asked;    /* the layers are what another process, which writes, sealed for us */
};

static void found_clear(struct found *f)
{
    cg_close(&f->parent_fd);
    f->parent_fd = -1;
    cg_volume_close_layers(f->open, f->layers.count);
    cg_layers_clear(&f->layers);
    cg_volume_json_clear(&f->json);
    f->open = NULL;
}

void cg_volume_dir_name(const struct cg_name *name, char ret[static CG_NAME_MAX])
{
    snprintf(ret, CG_NAME_MAX, "%s/%s%s", name->part[0], name->draft ? CG_DRAFT_PREFIX : "",
             name->part[1]);
}

static int no_volume(struct cg_volumes *space, const struct cg_name *name, struct cg_error *err)
{
    struct cg_name draft = *name;
    char path[CG_NAME_MAX], text[CG_NAME_MAX];
    struct stat st;

    draft.draft = true;
    cg_name_text(name, true, text);
    cg_volume_dir_name(&draft, path);
    if (name->draft || fstatat(space->fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return cg_error_say(err, ENOENT, "there is no volume %s", text);
    draft.snapshot[0] = '\0';
    return cg_error_say(err, ENOENT,
                        "there is no volume %s, only what an unfinished import or restore has of "
                        "%s: run that again, or delete it",
                        text, cg_name_text(&draft, true, path));
}

int cg_volume_open_dir(struct cg_volumes *space, const struct cg_name *name, int *ret_fd,
                       struct cg_error *err)
{
    char path[CG_NAME_MAX], text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    cg_volume_dir_name(name, path);
    for (unsigned attempt = 0;; attempt++) {
        struct stat have, want;
        CG_CLEANUP(cg_close)
        int fd = openat(space->fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
            return no_volume(space, name, err);
        if (fd < 0)
            return cg_error_set(err, errno, "open %s", text);
        bool locked = flock(fd, LOCK_SH | LOCK_NB) == 0;
        if ((!locked && errno != EWOULDBLOCK && errno != EINTR) || fstat(fd, &have) < 0)
            return cg_error_set(err, errno, "lock %s", text);
        /* Being deleted, or deleted or replaced before the lock was there?  Look again. */
        if (locked && fstatat(space->fd, path, &want, AT_SYMLINK_NOFOLLOW) == 0 &&
            want.st_dev == have.st_dev && want.st_ino == have.st_ino) {
            *ret_fd = fd;
            fd = -1;
            return 0;
        }
        if (!cg_writer_wait(attempt))
            return cg_error_say(err, EBUSY, "%s is being deleted or replaced", text);
    }
}

void cg_volume_close_layers(struct cg_layer **layers, size_t count)
{
    for (size_t i = 0; layers && i < count; i++)
        cg_layer_unref(layers[i]);
    free(layers);
}

/* Exclusively held is a layer below only while its writer gets done with it. */
static int lock_layer(struct cg_layer *layer, bool top, struct cg_error *err)
{
    for (unsigned attempt = 0;; attempt++) {
        int r = cg_layer_lock(layer, LOCK_SH | LOCK_NB, err);
        if (r != -EWOULDBLOCK || top)
            return r;
        if (!cg_writer_wait(attempt))
            return cg_error_say(err, EBUSY, "layer %s is in use by another process",
                                cg_layer_uuid(layer));
    }
}

int cg_volume_open_layers(int dirfd, const struct cg_layers *layers, bool sealed,
                          struct cg_layer ***ret_layers, struct cg_error *err)
{
    struct cg_layer **open = calloc(layers->count, sizeof *open);
    int r = open ? 0 : cg_error_set(err, ENOMEM, "open %zu layers", layers->count);

    for (size_t i = 0; r == 0 && i < layers->count; i++) {
        bool top = i + 1 == layers->count && !sealed;
        r = cg_layer_open(dirfd, layers->uuid[i], &open[i], err);
        if (r == 0)
            r = lock_layer(open[i], top, err);
    }
    if (r == -EMFILE)
        cg_error_say(err, EMFILE,
                     "too many open files: %zu layers take two each; raise the limit (ulimit -n), "
                     "and import the volume into a new one, which has one layer",
                     layers->count);
    if (r == 0 && cg_layer_size(open[layers->count - 1]) != layers->size)
        r = cg_error_say(err, EIO, "volume.json is damaged: its size is not that of layer %s",
                         layers->uuid[layers->count - 1]);
    if (r < 0) {
        cg_volume_close_layers(open, layers->count);
        return r;
    }
    *ret_layers = open;
    return 0;
}

int cg_volume_layers_of(struct cg_chain *chain, struct cg_layers *ret, struct cg_error *err)
{
    struct cg_layers layers = { .size = cg_chain_size(chain) };

    for (size_t i = 0; i < cg_chain_count(chain); i++) {
        int r = cg_layers_add(&layers, cg_layer_uuid(cg_chain_layer(chain, i)), err);
        if (r < 0) {
            cg_layers_clear(&layers);
            return r;
        }
    }
    *ret = layers;
    return 0;
}

/* Which layers are wanted, by volume.json. */
static int choose(const struct cg_volume *v, const struct cg_volume_json *json,
                  struct cg_layers *ret, struct cg_error *err)
{
    if (!*v->snapshot)
        return cg_layers_copy(&json->head, ret, err);
    const struct cg_volume_snapshot *s = cg_volume_json_snapshot(json, v->snapshot);
    if (!s)
        return cg_error_say(err, ENOENT, "there is no snapshot %s", v->label);
    return cg_layers_copy(&s->layers, ret, err);
}

/* One attempt.  1: something changed meanwhile, look again. */
static int load_once(struct cg_volume *v, struct found *f, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *before = NULL;
    CG_CLEANUP(cg_free) char *after = NULL;
    bool sealed = *v->snapshot;
    f->asked = false;
    int r = cg_volume_json_read(v->dirfd, &f->json, &before, err);

    if (r < 0 || (r = choose(v, &f->json, &f->layers, err)) < 0)
        return r;
    if (*f->json.parent && (r = cg_parent_lock(v->dirfd, &f->parent_fd, err)) < 0)
        return r;
    r = cg_volume_open_layers(v->dirfd, &f->layers, sealed, &f->open, err);
    if (r == -EWOULDBLOCK) {
        sealed = f->asked = true;
        cg_layers_clear(&f->layers);
        r = cg_change_ask_seal(v->dirfd, &f->layers, err);
        if (r == -ECONNRESET)
            return 1;
        if (r == 0)
            r = cg_volume_open_layers(v->dirfd, &f->layers, true, &f->open, err);
    }
    if (r < 0 && r != -ENOENT)
        return r;
    struct cg_error again;
    int missing = r;
    cg_volume_json_clear(&f->json);
    r = cg_volume_json_read(v->dirfd, &f->json, &after, &again);
    if (r < 0) {
        if (err)
            *err = again;
        return r;
    }
    bool same = strcmp(before, after) == 0;
    if (missing)
        return same ? missing : 1;
    /* What the writer sealed for us is still the lowest of the head (a flatten puts a layer below
     * and takes the parent away). */
    bool good = f->asked ? cg_volume_json_shows(&f->json, &f->layers) : same;
    return good ? 0 : 1;
}

static int load(struct cg_volume *v, struct found *f, struct cg_error *err)
{
    for (unsigned attempt = 0;; attempt++) {
        int r = load_once(v, f, err);
        if (r <= 0) {
            if (r < 0)
                found_clear(f);
            return r;
        }
        found_clear(f);
        if (!cg_writer_wait(attempt))
            return cg_error_say(err, EBUSY, "the writer does not answer");
    }
}

static struct cg_volume *new_volume(struct cg_volumes *space, const struct cg_name *name)
{
    struct cg_volume *v = calloc(1, sizeof *v);
    pthread_rwlockattr_t attr;

    if (!v)
        return NULL;
    v->space = space;
    v->refs = 1;
    v->dirfd = v->lock_fd = -1;
    cg_name_text(name, true, v->label);
    snprintf(v->snapshot, sizeof v->snapshot, "%s", name->snapshot);
    pthread_mutex_init(&v->change, NULL);
    /* A snapshot under steady writes gets its turn. */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&v->gate, &attr);
    pthread_rwlockattr_destroy(&attr);
    return v;
}

static int learn_dir(struct cg_volume *v, struct cg_error *err)
{
    struct stat st;

    if (fstat(v->dirfd, &st) < 0)
        return cg_error_set(err, errno, "stat");
    v->dev = st.st_dev;
    v->inode = st.st_ino;
    return 0;
}

static int make_chain(struct cg_volume *v, struct found *f, struct cg_error *err)
{
    struct cg_parent *parent = NULL;

    if (*f->json.parent) {
        int r = cg_parent_open(v->space, &f->json, f->parent_fd, &parent, err);
        if (r < 0)
            return r;
        f->parent_fd = -1;
    }
    v->head = cg_chain_new(f->layers.size, f->open, f->layers.count, parent);
    cg_parent_unref(parent);
    atomic_store(&v->size, f->layers.size);
    v->original_size = f->json.original_size;
    strcpy(v->filling, f->json.filling);
    if (!v->head)
        return cg_error_set(err, ENOMEM, "open a chain");
    bool replaced = *f->json.instead && !cg_volume_json_gathers(&f->json);
    return replaced ? cg_layers_copy(&f->json.inherited, &v->replaced, err) : 0;
}

static bool is_head_top(const struct cg_volume_json *json, struct cg_layer *layer)
{
    return strcmp(json->head.uuid[json->head.count - 1], cg_layer_uuid(layer)) == 0;
}

/* 1: what is to be followed has been settled meanwhile, look again. */
static int follow_once(struct cg_volume *v, struct cg_layer *top, struct cg_error *err)
{
    struct cg_volume_json json;
    char run[PATH_MAX], again[PATH_MAX];
    bool left, found;
    int r = cg_writer_run_dir(v->dirfd, run, &left, err);

    if (r < 0 || !left)
        return r;
    r = cg_layer_follow(top, run, &found, err);
    if (r < 0 || found)
        return r;
    r = cg_volume_json_read(v->dirfd, &json, NULL, err);
    if (r < 0)
        return r;
    bool sealed = !is_head_top(&json, top);
    cg_volume_json_clear(&json);
    if (sealed)
        return 0;
    r = cg_writer_run_dir(v->dirfd, again, &left, err);
    if (r < 0)
        return r;
    return left && strcmp(run, again) == 0 ? cg_writer_lost(run, err) : 1;
}

/* What a dead writer may have left belongs to the head's top layer only: the others were flushed
 * before they got one above them. */
static int follow(struct cg_volume *v, const struct found *f, struct cg_error *err)
{
    struct cg_layer *top = f->open[f->layers.count - 1];

    if (*v->snapshot || !is_head_top(&f->json, top))
        return 0;
    for (unsigned attempt = 0;; attempt++) {
        int r = follow_once(v, top, err);
        if (r <= 0)
            return r;
        if (!cg_writer_wait(attempt))
            return cg_error_say(err, EBUSY, "its writers keep changing");
    }
}

/* Somebody who writes and isn't about to end. */
static bool stays(int dirfd)
{
    struct cg_writer writer;

    return cg_writer_read(dirfd, &writer, NULL) == 0 && writer.pid != 0 && !writer.brief;
}

/* *ret_written: another process writes it. */
static int load_new(struct cg_volume *v, bool *ret_written, struct cg_error *err)
{
    struct found f = { .parent_fd = -1 };
    int r = load(v, &f, err);

    if (r < 0)
        return r;
    *ret_written = f.asked && stays(v->dirfd);
    r = follow(v, &f, err);
    if (r == 0)
        r = make_chain(v, &f, err);
    found_clear(&f);
    return r;
}

/* Who may write has to see the volume as it is, not as somebody here still does.  While another
 * process writes, nobody here can, and all read the same. */
static int open_new(struct cg_volumes *space, const struct cg_name *name, unsigned flags,
                    int *dirfd, struct cg_volume **ret_volume, struct cg_error *err)
{
    struct cg_volume *v = new_volume(space, name);
    bool written;

    if (!v)
        return cg_error_set(err, ENOMEM, "open a volume");
    v->dirfd = *dirfd;
    *dirfd = -1;
    int r = learn_dir(v, err);
    if (r == 0) {
        cg_volume_enlist(v);
        r = load_new(v, &written, err);
    }
    if (r < 0) {
        cg_error_prefix(err, r, "open %s", v->label);
        cg_volume_free(v);
        return r;
    }
    return cg_volume_publish(v, (flags & CG_OPEN_WRITE) && !*v->snapshot && !written, ret_volume);
}

static int open_once(struct cg_volumes *space, const struct cg_name *name, unsigned flags,
                     struct cg_volume **ret_volume, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dirfd = -1;
    struct cg_volume *v = NULL;
    int r = cg_volume_open_dir(space, name, &dirfd, err);

    if (r < 0)
        return r;
    if (!*name->snapshot)
        v = cg_volume_find(space, dirfd, flags & CG_OPEN_WRITE);
    if (!v)
        r = open_new(space, name, flags, &dirfd, &v, err);
    if (r != 0)
        return r;
    if ((flags & CG_OPEN_EXCLUSIVE) && (flags & CG_OPEN_WRITE) && !*name->snapshot)
        r = cg_volume_begin(v, err);
    if (r < 0) {
        cg_volume_unref(v);
        return r == -ESTALE ? CG_VOLUME_OVERTAKEN : r;
    }
    *ret_volume = v;
    return 0;
}

static int earlier(const struct cg_name *name, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    return cg_error_say(err, EBUSY,
                        "%s is still open here as it was before another process changed it: it can "
                        "be opened for writing when all who read that have closed it",
                        cg_name_text(name, true, text));
}

int cg_volume_open(struct cg_volumes *space, const struct cg_name *name, unsigned flags,
                   struct cg_volume **ret_volume, struct cg_error *err)
{
    for (unsigned attempt = 0;; attempt++) {
        char text[CG_NAME_MAX];
        int r = open_once(space, name, flags, ret_volume, err);
        if (r <= 0)
            return r;
        if (r == CG_VOLUME_EARLIER && attempt >= EARLIER_ATTEMPTS)
            return earlier(name, err);
        if (!cg_writer_wait(attempt))
            return cg_error_say(err, EBUSY, "others keep writing %s",
                                cg_name_text(name, true, text));
    }
}

int cg_volume_open_brief(struct cg_volumes *space, const struct cg_name *name,
                         struct cg_volume **ret_volume, struct cg_error *err)
{
    struct cg_name head = *name;
    struct cg_volume *v;
    int r;

    head.snapshot[0] = '\0';
    v = new_volume(space, &head);
    if (!v)
        return cg_error_set(err, ENOMEM, "open a volume");
    v->brief = true;
    r = cg_volume_open_dir(space, &head, &v->dirfd, err);
    if (r == 0)
        r = learn_dir(v, err);
    if (r == 0)
        r = cg_volume_begin(v, err);
    if (r < 0) {
        cg_volume_free(v);
        return r;
    }
    *ret_volume = v;
    return 0;
}

int cg_volume_check(const struct cg_volume *v, struct cg_error *err)
{
    if (atomic_load(&v->failed) < 0)
        return cg_error_say(err, EIO, "%s takes no writes until it's opened again", v->label);
    return 0;
}

struct cg_chain *cg_volume_head(struct cg_volume *v)
{
    CG_LOCK_SHARED(&v->gate);
    return cg_chain_ref(v->head);
}
