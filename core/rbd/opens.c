#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"

/* Thread model: lock guards the list and the entries' refs, opening and result; it isn't held while
 * the cluster is asked.  Who opens what another is opening waits for changed. */

struct shared {
    struct shared *next;
    struct cg_rbd_opens *opens;
    char text[CG_NAME_MAX];
    bool write, opening;
    unsigned refs;
    int result; /* of the opening */
    struct cg_error err;
    struct cg_rbd_image *image;
};

struct cg_rbd_opens {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct shared *list;
};

struct cg_rbd_opens *cg_rbd_opens_new(void)
{
    struct cg_rbd_opens *o = calloc(1, sizeof *o);

    if (o) {
        pthread_mutex_init(&o->lock, NULL);
        pthread_cond_init(&o->changed, NULL);
    }
    return o;
}

void cg_rbd_opens_free(struct cg_rbd_opens *o)
{
    if (!o)
        return;
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static struct shared *find_locked(struct cg_rbd_opens *o, const char *text, bool write)
{
    for (struct shared *s = o->list; s; s = s->next) {
        bool useless = !s->opening && s->image && cg_rbd_image_shut_out(s->image);
        if (s->write == write && !useless && strcmp(s->text, text) == 0)
            return s;
    }
    return NULL;
}

/* Gives an open back; the last one closes. */
static void put(void *opaque)
{
    struct shared *s = opaque;

    pthread_mutex_lock(&s->opens->lock);
    bool last = --s->refs == 0;
    for (struct shared **at = &s->opens->list; last && *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    pthread_mutex_unlock(&s->opens->lock);
    if (last) {
        cg_rbd_image_close(s->image);
        free(s);
    }
}

/* One more user of what is open or being opened; NULL if nobody has it open that way. */
static struct shared *join_locked(struct cg_rbd_opens *o, const char *text, bool write)
{
    struct shared *s = find_locked(o, text, write);

    if (!s)
        return NULL;
    s->refs++;
    while (s->opening)
        pthread_cond_wait(&o->changed, &o->lock);
    return s;
}

static struct shared *add_locked(struct cg_rbd_opens *o, const char *text, bool write)
{
    struct shared *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    *s = (struct shared){ .next = o->list, .opens = o, .write = write, .opening = true, .refs = 1 };
    strcpy(s->text, text);
    o->list = s;
    return s;
}

static void open_added(struct cg_rbd *rbd, const struct cg_name *name, struct shared *s,
                       bool exclusive)
{
    int r = cg_rbd_open_once(rbd, name, s->write, &s->image, &s->err);

    if (r == 0 && exclusive)
        r = cg_rbd_image_lock(s->image, &s->err);
    CG_LOCK(&s->opens->lock);
    s->opening = false;
    s->result = r;
    pthread_cond_broadcast(&s->opens->changed);
}

static int get(struct cg_rbd *rbd, const struct cg_name *name, unsigned flags,
               struct shared **ret_shared, struct cg_error *err)
{
    struct cg_rbd_opens *o = rbd->opens;
    bool write = (flags & CG_OPEN_WRITE) && !name->snapshot[0];
    bool exclusive = write && (flags & CG_OPEN_EXCLUSIVE);
    char text[CG_NAME_MAX];
    bool added = false;

    cg_name_text(name, true, text);
    /* What is read as it is now is opened now. */
    bool shares = write || name->snapshot[0];
    pthread_mutex_lock(&o->lock);
    struct shared *s = shares ? join_locked(o, text, write) : NULL;
    if (!s) {
        s = add_locked(o, text, write);
        added = true;
    }
    pthread_mutex_unlock(&o->lock);
    if (!s)
        return cg_error_set(err, ENOMEM, "open %s", text);
    if (added)
        open_added(rbd, name, s, exclusive);
    int r = s->result;
    if (r < 0)
        cg_error_say(err, -r, "%s", s->err.message);
    else if (exclusive && !added)
        r = cg_error_say(err, EBUSY, "%s is open for writing in this process", text);
    if (r < 0) {
        put(s);
        return r;
    }
    *ret_shared = s;
    return 0;
}

int cg_rbd_open(void *self, const struct cg_name *name, unsigned flags, struct cg_image **ret_image,
                struct cg_error *err)
{
    struct shared *s;

    int r = get(self, name, flags, &s, err);
    if (r < 0)
        return r;
    r = cg_rbd_image_wrap(s->image, put, s, ret_image, err);
    if (r < 0)
        put(s);
    return r;
}
