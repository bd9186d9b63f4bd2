/* Thread model: one thread looks, and those who call cg_pool_watch_look; lock guards what was said
 * last and whether the end has come. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>

#include "core/base/cleanup.h"
#include "core/base/size.h"
#include "core/pool_spare.h"
#include "core/pool_watch.h"
#include "core/space.h"

struct cg_pool_watch {
    const char *pool;
    unsigned level, interval;
    void (*say)(const char *message);
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    unsigned said; /* the percentage that was said last; 0: it's below the level */
    bool ending;
};

struct room {
    uint64_t size, free; /* bytes; free for this user */
    unsigned percent;    /* of what this user may have that is used, rounded up */
};

static int find_room(const char *pool, struct room *ret, struct cg_error *err)
{
    struct statvfs st;

    if (statvfs(pool, &st) < 0)
        return cg_error_set(err, errno, "look at the pool %s", pool);
    uint64_t used = st.f_blocks - st.f_bfree, all = used + st.f_bavail;
    *ret = (struct room){ .size = (uint64_t)st.f_blocks * st.f_frsize,
                          .free = (uint64_t)st.f_bavail * st.f_frsize,
                          .percent = all ? (unsigned)((100 * used + all - 1) / all) : 100 };
    return 0;
}

static void say_full(const char *pool, const struct room *room, char *ret, size_t ret_size)
{
    char size[CG_SIZE_TEXT], left[CG_SIZE_TEXT];

    cg_size_text(size, room->size);
    cg_size_text(left, room->free);
    snprintf(
        ret, ret_size,
        "the pool's file system is %u %% full: %s of %s are free at %.300s; volumes that find no "
        "room get errors until there is some",
        room->percent, left, size, pool);
}

bool cg_pool_full(const char *pool, unsigned level, char *ret_text, size_t size)
{
    struct room room;

    if (find_room(pool, &room, NULL) < 0 || room.percent < level)
        return false;
    say_full(pool, &room, ret_text, size);
    return true;
}

int cg_pool_info(const char *pool, unsigned level, struct cg_space *volumes, json_t **ret_info,
                 struct cg_error *err)
{
    struct cg_space_usage usage;
    struct room room;
    int r = find_room(pool, &room, err);

    if (r == 0)
        r = cg_space_usage(volumes, &usage, err);
    if (r < 0)
        return r;
    uint64_t over = usage.reserve > room.free ? usage.reserve - room.free : 0;
    json_t *info = json_pack("{s:s, s:I, s:I, s:i, s:i, s:b, s:I, s:I, s:I}", "path", pool, "size",
                             (json_int_t)room.size, "free_bytes", (json_int_t)room.free, "percent",
                             (int)room.percent, "warn", (int)level, "full", room.percent >= level,
                             "volumes", (json_int_t)usage.images, "reserve",
                             (json_int_t)usage.reserve, "overcommitted_bytes", (json_int_t)over);
    if (!info)
        return cg_error_set(err, ENOMEM, "describe the pool");
    *ret_info = info;
    return 0;
}

static void look_locked(struct cg_pool_watch *w)
{
    struct room room;
    char text[512];

    if (find_room(w->pool, &room, NULL) < 0)
        return;
    cg_pool_spare_keep(w->pool, room.free);
    if (room.percent >= w->level && room.percent > w->said) {
        say_full(w->pool, &room, text, sizeof text);
        w->say(text);
    } else if (room.percent < w->level && w->said) {
        snprintf(text, sizeof text, "the pool's file system has room again: it's %u %% full",
                 room.percent);
        w->say(text);
    }
    w->said = room.percent < w->level ? 0 : room.percent > w->said ? room.percent : w->said;
}

void cg_pool_watch_look(struct cg_pool_watch *w)
{
    if (!w)
        return;
    CG_LOCK(&w->lock);
    look_locked(w);
}

static void *watch_main(void *arg)
{
    struct cg_pool_watch *w = arg;
    CG_LOCK(&w->lock);

    while (!w->ending) {
        struct timespec until;
        look_locked(w);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += w->interval;
        while (!w->ending && pthread_cond_timedwait(&w->wake, &w->lock, &until) == 0)
            ;
    }
    return NULL;
}

/* Signals are others' business. */
static int start_thread(struct cg_pool_watch *w)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&w->thread, NULL, watch_main, w);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static void free_watch(struct cg_pool_watch *w)
{
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

int cg_pool_watch_start(const char *pool, unsigned level, unsigned interval,
                        void (*say)(const char *message), struct cg_pool_watch **ret_watch,
                        struct cg_error *err)
{
    struct cg_pool_watch *w = calloc(1, sizeof *w);
    pthread_condattr_t attr;

    if (!w)
        return cg_error_set(err, ENOMEM, "watch the pool");
    w->pool = pool;
    w->level = level;
    w->interval = interval;
    w->say = say;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_condattr_destroy(&attr);
    int r = start_thread(w);
    if (r != 0) {
        free_watch(w);
        return cg_error_set(err, r, "start a thread");
    }
    *ret_watch = w;
    return 0;
}

static void tell_to_end(struct cg_pool_watch *w)
{
    CG_LOCK(&w->lock);
    w->ending = true;
    pthread_cond_signal(&w->wake);
}

void cg_pool_watch_stop(struct cg_pool_watch *w)
{
    if (!w)
        return;
    tell_to_end(w);
    pthread_join(w->thread, NULL);
    free_watch(w);
}
