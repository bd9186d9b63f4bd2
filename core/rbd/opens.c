#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"

/* Thread model: lock guards the list and the entries' refs, state and result; it isn't held while
 * the cluster is asked.  Who needs what another opens or closes waits for changed. */

/* CLOSING: librbd still has what was acknowledged and not written; others don't see it. */
enum state { OPENING, OPEN, CLOSING };

struct cg_rbd_shared {
    struct cg_rbd_shared *next;
    struct cg_rbd_opens *opens;
    char text[CG_NAME_MAX];
    bool write;
    enum state state;
    unsigned refs;
    int result; /* of the opening */
    struct cg_error err;
    struct cg_rbd_image *image;
};

struct cg_rbd_opens {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct cg_rbd_shared *list;
};

struct cg_rbd_opens *cg_rbd_opens_new(void)
{
    struct cg_rbd_opens *o = calloc(1, sizeof *o);
    pthread_condattr_t attr;

    if (o) {
        pthread_mutex_init(&o->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&o->changed, &attr);
        pthread_condattr_destroy(&attr);
    }
    return o;
}

void cg_rbd_opens_free(struct cg_rbd_opens *o)
{
    if (!o)
        return;
    pthread_mutex_lock(&o->lock);
    bool used = o->list; /* by librbd, which still closes something */
    pthread_mutex_unlock(&o->lock);
    if (used)
        return;
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

/* What others can use: also a writer by who reads the head, if only that shows what was written. */
static bool fits(const struct cg_rbd_shared *s, const struct cg_name *name, const char *text,
                 bool write)
{
    if (strcmp(s->text, text) != 0)
        return false;
    if (s->state == OPENING || !s->image)
        return s->write == write && (write || name->snapshot[0]);
    if (cg_rbd_image_shut_out(s->image)) /* what it still has is lost */
        return false;
    if (s->write && cg_rbd_image_writes_back(s->image))
        return true;
    /* What is read as it is now is opened now. */
    return s->write == write && (write || name->snapshot[0]);
}

static void forget(void *opaque)
{
    struct cg_rbd_shared *s = opaque;

    pthread_mutex_lock(&s->opens->lock);
    for (struct cg_rbd_shared **at = &s->opens->list; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    pthread_cond_broadcast(&s->opens->changed);
    pthread_mutex_unlock(&s->opens->lock);
    free(s);
}

/* Gives an open back; the last one closes. */
static void put(void *opaque)
{
    struct cg_rbd_shared *s = opaque;
    struct cg_rbd_image *image = s->image;

    pthread_mutex_lock(&s->opens->lock);
    bool last = --s->refs == 0;
    if (last)
        s->state = CLOSING;
    pthread_mutex_unlock(&s->opens->lock);
    if (!last)
        return;
    if (image && s->write && cg_rbd_image_writes_back(image)) {
        cg_rbd_image_close_then(image, forget, s);
        return;
    }
    forget(s);
    cg_rbd_image_close(image);
}

/* Finds what is open or being opened, waiting for what is being closed: NULL, with 0, if nobody has
 * it open that way. */
static int find_locked(struct cg_rbd *rbd, const struct cg_name *name, const char *text, bool write,
                       struct cg_rbd_shared **ret, struct cg_error *err)
{
    struct cg_rbd_opens *o = rbd->opens;
    struct timespec deadline;
    struct cg_rbd_shared *s;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += rbd->config.timeout;
    for (;;) {
        s = o->list;
        while (s && !fits(s, name, text, write))
            s = s->next;
        if (!s || s->state != CLOSING)
            break;
        if (pthread_cond_timedwait(&o->changed, &o->lock, &deadline) == ETIMEDOUT)
            return cg_error_say(err, ETIMEDOUT,
                                "%s: the cluster hasn't taken yet what was written to it before "
                                "(rbd.cache is writeback)",
                                text);
    }
    *ret = s;
    return 0;
}

static struct cg_rbd_shared *add_locked(struct cg_rbd_opens *o, const char *text, bool write)
{
    struct cg_rbd_shared *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    *s = (struct cg_rbd_shared){ .next = o->list, .opens = o, .write = write, .refs = 1 };
    strcpy(s->text, text);
    o->list = s;
    return s;
}

static void open_added(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_shared *s)
{
    struct cg_rbd_image *image = NULL;
    int r = cg_rbd_open_once(rbd, name, s->write, &image, &s->err);

    CG_LOCK(&s->opens->lock);
    s->state = OPEN;
    s->result = r;
    s->image = image;
    pthread_cond_broadcast(&s->opens->changed);
}

static int get(struct cg_rbd *rbd, const struct cg_name *name, unsigned flags,
               struct cg_rbd_shared **ret_shared, struct cg_error *err)
{
    struct cg_rbd_opens *o = rbd->opens;
    bool write = (flags & CG_OPEN_WRITE) && !name->snapshot[0];
    struct cg_rbd_shared *s = NULL, *added = NULL;
    char text[CG_NAME_MAX];

    cg_name_text(name, true, text);
    pthread_mutex_lock(&o->lock);
    int r = find_locked(rbd, name, text, write, &s, err);
    if (r == 0 && s)
        s->refs++;
    else if (r == 0)
        s = added = add_locked(o, text, write);
    while (r == 0 && s && !added && s->state == OPENING)
        pthread_cond_wait(&o->changed, &o->lock);
    pthread_mutex_unlock(&o->lock);
    if (r < 0)
        return r;
    if (!s)
        return cg_error_set(err, ENOMEM, "open %s", text);
    if (added)
        open_added(rbd, name, added);
    r = s->result;
    if (r < 0)
        cg_error_say(err, -r, "%s", s->err.message);
    else if (write && (flags & CG_OPEN_EXCLUSIVE)) /* others of this process share it */
        r = cg_rbd_image_lock(s->image, err);
    if (r < 0) {
        put(s);
        return r;
    }
    *ret_shared = s;
    return 0;
}

int cg_rbd_share(struct cg_rbd *rbd, const struct cg_name *name, struct cg_rbd_shared **ret_shared,
                 struct cg_error *err)
{
    return get(rbd, name, CG_OPEN_READ, ret_shared, err);
}

void cg_rbd_unshare(struct cg_rbd_shared *s)
{
    if (s)
        put(s);
}

void cg_rbd_unshare_cleanup(struct cg_rbd_shared **s)
{
    cg_rbd_unshare(*s);
}

rbd_image_t cg_rbd_shared_handle(struct cg_rbd_shared *s)
{
    return cg_rbd_image_handle(s->image);
}

int cg_rbd_open(void *self, const struct cg_name *name, unsigned flags, struct cg_image **ret_image,
                struct cg_error *err)
{
    struct cg_rbd_shared *s;

    int r = get(self, name, flags, &s, err);
    if (r < 0)
        return r;
    r = cg_rbd_image_wrap(s->image, !(flags & CG_OPEN_WRITE), put, s, ret_image, err);
    if (r < 0)
        put(s);
    return r;
}
