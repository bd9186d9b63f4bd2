/* Closing: a writer flushes while it can still be opened and asked, then ends what it began. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/tidy.h"
#include "core/volumes/volume.h"

/* Ends what a writer began.  What can't be flushed is left for the next one to go on with. */
static void end_writing(struct cg_volume *v)
{
    struct cg_layer *top = cg_chain_top(v->head);
    struct cg_error ignored;

    cg_tidy_locked(v);
    /* All is on disk, then the lock file says so, then the working map goes. */
    if (atomic_load(&v->failed) == 0 && cg_layer_flush(top, &ignored) == 0 &&
        cg_writer_clear(v->lock_fd) == 0)
        cg_layer_end(top, &ignored);
}

/* Lets go of all that v has. */
static void release(struct cg_volume *v)
{
    cg_control_stop(v->control); /* from here on nobody else knows v */
    if (v->lock_fd >= 0 && v->head)
        end_writing(v);
    cg_chain_unref(v->head);
    if (v->lock_fd >= 0)
        close(v->lock_fd);
    if (v->dirfd >= 0)
        close(v->dirfd);
    cg_volume_json_clear(&v->json);
    cg_layers_clear(&v->replaced);
    pthread_rwlock_destroy(&v->gate);
    pthread_mutex_destroy(&v->change);
}

/* Gives back a reference; true if it was the last: then leave follows. */
static bool let_go(struct cg_volume *v)
{
    CG_LOCK(&v->space->lock);
    if (--v->refs > 0)
        return false;
    v->leaving++;
    return true;
}

static bool reopened_locked(struct cg_volume *v)
{
    return v->leaving == 1 && v->refs > 0;
}

static bool reopened(struct cg_volume *v)
{
    CG_LOCK(&v->space->lock);
    return reopened_locked(v);
}

/* While this process is ending, others that want to write wait instead of being refused: a server's
 * successor comes while it still flushes.  Taken back if somebody opened the volume here. */
static void say_ending(struct cg_volume *v, bool ending)
{
    struct cg_error ignored;
    CG_LOCK(&v->change);

    if (!atomic_load(&v->writing) || !(ending || reopened(v)))
        return;
    cg_volume_describe(v, ending, &ignored);
    atomic_store(&v->says_ending, ending);
}

/* True if the caller has to end the volume: nobody has opened it again since.  Nobody frees it
 * before the last has left. */
static bool leave(struct cg_volume *v)
{
    for (;;) {
        pthread_mutex_lock(&v->space->lock);
        bool unsay = reopened_locked(v) && atomic_load(&v->says_ending);
        if (!unsay)
            v->ending = --v->leaving == 0 && v->refs == 0;
        bool ending = v->ending;
        pthread_mutex_unlock(&v->space->lock);
        if (!unsay)
            return ending;
        say_ending(v, false);
    }
}

static void forget(struct cg_volume *v)
{
    CG_LOCK(&v->space->lock);
    for (struct cg_volume **at = &v->space->open; *at; at = &(*at)->next) {
        if (*at == v) {
            *at = v->next;
            break;
        }
    }
    for (struct cg_volume *other = v->space->open; v->lock_fd >= 0 && other; other = other->next)
        if (other->dev == v->dev && other->inode == v->inode && !*other->snapshot)
            other->overtaken = other->loading;
    pthread_cond_broadcast(&v->space->settled);
}

void cg_volume_free(struct cg_volume *v)
{
    release(v);
    forget(v);
    assert(atomic_load(&v->retired) == 0);
    free(v);
}

/* The long part of ending, while the volume can still be opened and asked: a client that comes back
 * at once finds it as it was. */
static void flush_before_end(struct cg_volume *v)
{
    struct cg_error ignored;

    say_ending(v, true);
    if (!atomic_load(&v->writing) || atomic_load(&v->failed) < 0)
        return;
    struct cg_chain *head = cg_volume_head(v);
    cg_layer_flush(cg_chain_top(head), &ignored);
    cg_chain_unref(head);
}

void cg_volume_unref(struct cg_volume *v)
{
    if (!v || !let_go(v))
        return;
    flush_before_end(v);
    if (leave(v))
        cg_volume_free(v);
}
