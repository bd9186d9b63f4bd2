/* Snapshots of several images at one moment.
 *
 * Who writes an image has its lock and gives it to whoever asks for it, but not while something is
 * being done to the image that needs the lock.  So the images are locked one by one, and for each a
 * snapshot is begun and held up: librbd asks those who watch for it before it takes one.  From then
 * on the lock stays here, and a client that wants to write waits for it.  When all snapshots are
 * held up and all locks are here, that is the moment, and they go on.
 *
 * Two who do this at once would take the other's snapshot for their own, so they take turns, in the
 * order of the images' names.  If a snapshot of another kind comes in between, which shows in being
 * asked twice, it's done again.
 *
 * Thread model: each snapshot is taken by a thread, which holds nothing; librbd calls asked() in
 * one of its own.  moment.lock guards the members' state, asked and result. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"
#include "core/rbd/turn.h"

#define TRIES 20  /* for an image's lock */
#define MOMENTS 5 /* for all */

/* TAKING: librbd is at it and will ask.  HELD_UP: it waits for us.  GOING: it needn't any more. */
enum state { IDLE, TAKING, HELD_UP, GOING, ENDED };

struct moment;

struct member {
    struct moment *moment;
    const struct cg_name *name; /* of the snapshot */
    char text[CG_NAME_MAX];
    rados_ioctx_t io; /* NULL until it's our turn there */
    struct cg_rbd_image *im;
    uint64_t watch; /* 0: none */
    pthread_t thread;
    bool running; /* the thread is to be joined */
    bool made;    /* the snapshot is there */
    enum state state;
    unsigned asked; /* how often, since the snapshot was begun */
    int result;     /* of the snapshot that has ended */
};

struct moment {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t count;
    struct member *v;
};

static rbd_image_t handle(const struct member *m)
{
    return cg_rbd_image_handle(m->im);
}

/* Somebody is about to take a snapshot of the image. */
static void asked(void *opaque)
{
    struct member *m = opaque;

    pthread_mutex_lock(&m->moment->lock);
    m->asked++;
    bool mine = m->state == TAKING;
    if (mine) {
        m->state = HELD_UP;
        pthread_cond_broadcast(&m->moment->changed);
    }
    pthread_mutex_unlock(&m->moment->lock);
    if (!mine)
        rbd_quiesce_complete(handle(m), m->watch, 0);
}

static void resumed(void *opaque)
{
    (void)opaque;
}

static void *take(void *arg)
{
    struct member *m = arg;
    int r = rbd_snap_create(handle(m), m->name->snapshot);

    CG_LOCK(&m->moment->lock);
    m->state = ENDED;
    m->result = r;
    pthread_cond_broadcast(&m->moment->changed);
    return NULL;
}

static bool owner(const struct member *m)
{
    int is_owner = 0;

    return rbd_is_exclusive_lock_owner(handle(m), &is_owner) == 0 && is_owner;
}

static int write_nothing(void *arg, rbd_image_t image)
{
    (void)arg;
    ssize_t n = rbd_write(image, 0, 0, "");
    return n < 0 ? (int)n : 0;
}

/* Takes the lock as a writer does, so that others may ask for it. */
static int lock_image(struct member *m, struct cg_error *err)
{
    struct cg_rbd_doing *doing = calloc(1, sizeof *doing);
    uint64_t features;
    int r;

    if (!doing)
        return cg_error_set(err, ENOMEM, "snapshot");
    *doing = (struct cg_rbd_doing){ .run = write_nothing, .free = free };
    if (!cg_rbd_image_limited(m->im, doing, &r))
        return cg_rbd_image_failed(m->im, -ETIMEDOUT, "lock", err);
    free(doing);
    if (r == 0)
        r = rbd_get_features(handle(m), &features);
    if (r == -EROFS)
        return cg_error_say(
            err, EBUSY, "%s: a client that writes the image doesn't let go of its lock", m->text);
    if (r == 0 && !(features & RBD_FEATURE_EXCLUSIVE_LOCK))
        return cg_error_say(err, ENOTSUP,
                            "%s: the image hasn't the feature exclusive-lock, so its writers can't "
                            "be made to wait: take the snapshots one by one",
                            m->text);
    return r < 0 ? cg_rbd_image_failed(m->im, r, "lock", err) : 0;
}

/* Begins the snapshot.  Returns what it has come to: HELD_UP or ENDED. */
static int begin(struct member *m, struct cg_error *err)
{
    pthread_mutex_lock(&m->moment->lock);
    m->state = TAKING;
    m->asked = 0;
    pthread_mutex_unlock(&m->moment->lock);
    int r = pthread_create(&m->thread, NULL, take, m);
    if (r != 0) {
        m->state = IDLE;
        return cg_error_set(err, r, "start a thread");
    }
    m->running = true;
    CG_LOCK(&m->moment->lock);
    while (m->state == TAKING)
        pthread_cond_wait(&m->moment->changed, &m->moment->lock);
    return (int)m->state;
}

/* Lets a snapshot that is held up go on: also one that isn't wanted, as it may be another's. */
static void let_go(struct member *m)
{
    pthread_mutex_lock(&m->moment->lock);
    bool held_up = m->state == HELD_UP;
    if (held_up)
        m->state = GOING;
    pthread_mutex_unlock(&m->moment->lock);
    if (held_up)
        rbd_quiesce_complete(handle(m), m->watch, 0);
}

/* Waits for a snapshot that was begun. */
static int end(struct member *m)
{
    if (!m->running)
        return m->result;
    pthread_join(m->thread, NULL);
    m->running = false;
    m->state = IDLE;
    m->made = m->result == 0;
    return m->result;
}

static void take_back(struct member *m)
{
    let_go(m);
    end(m);
    if (m->made)
        rbd_snap_remove(handle(m), m->name->snapshot);
    m->made = false;
}

static int failed(const struct member *m, int r, struct cg_error *err)
{
    if (r == -EEXIST)
        return cg_error_say(err, EEXIST, "%s exists already", m->text);
    return cg_rbd_failed(r, err, "create snapshot %s", m->text);
}

/* Begins a snapshot and holds it up with the lock here. */
static int hold_up(struct member *m, struct cg_error *err)
{
    for (unsigned i = 0; i < TRIES; i++) {
        int r = lock_image(m, err);
        if (r == 0)
            r = begin(m, err);
        if (r < 0)
            return r;
        if (r == HELD_UP && owner(m))
            return 0;
        if (r == ENDED && end(m) < 0)
            return failed(m, m->result, err);
        take_back(m); /* the lock went before the snapshot was begun */
    }
    return cg_error_say(err, EBUSY, "%s: other clients take the image's lock away again and again",
                        m->text);
}

static int all_held_up(struct moment *mo, struct cg_error *err)
{
    for (size_t i = 0; i < mo->count; i++) {
        int r = hold_up(&mo->v[i], err);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < mo->count; i++) { /* one that had died may be taken for dead */
        if (!owner(&mo->v[i]))
            return cg_error_say(err, EBUSY, "%s: the image's lock was lost", mo->v[i].text);
    }
    return 0;
}

/* -EAGAIN: others took snapshots too. */
static int try_moment(struct moment *mo, struct cg_error *err)
{
    int r = all_held_up(mo, err);

    for (size_t i = 0; r == 0 && i < mo->count; i++)
        let_go(&mo->v[i]);
    for (size_t i = 0; r == 0 && i < mo->count; i++) {
        struct member *m = &mo->v[i];
        if (end(m) < 0)
            r = failed(m, m->result, err);
        else if (m->asked != 1)
            r = cg_error_say(err, EAGAIN, "%s: other clients take snapshots of the image", m->text);
    }
    for (size_t i = 0; r < 0 && i < mo->count; i++)
        take_back(&mo->v[i]);
    return r;
}

static int snapshot_all(struct moment *mo, struct cg_error *err)
{
    int r = -EAGAIN;

    for (unsigned i = 0; r == -EAGAIN && i < MOMENTS; i++)
        r = try_moment(mo, err);
    return r == -EAGAIN ? -EBUSY : r;
}

static int by_text(const void *a, const void *b)
{
    const struct member *x = a, *y = b;

    return strcmp(x->text, y->text);
}

static int begin_turn(struct cg_rbd *rbd, struct member *m, struct cg_error *err)
{
    struct cg_rbd_place p;

    int r = cg_rbd_place(rbd, m->name, &p, err);
    if (r == 0)
        r = cg_rbd_turn_begin(p.io, rbd->config.timeout, err);
    if (r == 0)
        m->io = p.io;
    return r < 0 ? cg_error_prefix(err, r, "snapshot %s", m->text) : 0;
}

static int open_members(struct cg_rbd *rbd, struct moment *mo, struct cg_error *err)
{
    for (size_t i = 0; i < mo->count; i++) {
        struct member *m = &mo->v[i];
        if (i > 0 && strncmp(m->text, m[-1].text, strcspn(m->text, "@") + 1) == 0)
            return cg_error_say(err, EINVAL,
                                "%s and %s: of one image there is one snapshot at a moment",
                                m[-1].text, m->text);
        int r = begin_turn(rbd, m, err);
        if (r == 0)
            r = cg_rbd_open_head(rbd, m->name, &m->im, err);
        if (r < 0)
            return r;
        r = rbd_quiesce_watch(handle(m), asked, resumed, m, &m->watch);
        if (r < 0)
            return cg_rbd_image_failed(m->im, r, "watch", err);
    }
    return 0;
}

static void close_moment(struct moment *mo)
{
    for (size_t i = 0; i < mo->count; i++) {
        struct member *m = &mo->v[i];
        if (m->watch)
            rbd_quiesce_unwatch(handle(m), m->watch);
        cg_rbd_image_close(m->im);
    }
    for (size_t i = 0; i < mo->count; i++) {
        if (mo->v[i].io)
            cg_rbd_turn_end(mo->v[i].io);
    }
    free(mo->v);
    pthread_cond_destroy(&mo->changed);
    pthread_mutex_destroy(&mo->lock);
}

int cg_rbd_snapshot_moment(struct cg_rbd *rbd, const struct cg_name *names, size_t count,
                           struct cg_error *err)
{
    struct moment mo = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

    mo.v = calloc(count, sizeof *mo.v);
    if (!mo.v)
        return cg_error_set(err, ENOMEM, "snapshot");
    mo.count = count;
    for (size_t i = 0; i < count; i++) {
        mo.v[i] = (struct member){ .moment = &mo, .name = &names[i] };
        cg_name_text(&names[i], true, mo.v[i].text);
    }
    qsort(mo.v, count, sizeof *mo.v, by_text);
    int r = open_members(rbd, &mo, err);
    if (r == 0)
        r = snapshot_all(&mo, err);
    close_moment(&mo);
    return r;
}
