#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "core/base/cleanup.h"
#include "core/image/nbd_pool.h"

/* Thread model: any thread; lock guards what is marked and is never held while something is sent or
 * waited for.  A handle is used by one thread at a time: the one that borrowed it.
 *
 * A connection that breaks ends the pool.  There is no reconnecting. */

#define CONNECTIONS_MAX 16
#define HANDSHAKE_SECONDS 30 /* without a word from the server */

struct cg_nbd_pool {
    char *uri;
    int64_t size; /* of the export: another one behind the same URI isn't ours */
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct nbd_handle *idle[CONNECTIONS_MAX]; /* by lock, as are all below */
    unsigned idle_count;
    unsigned connections; /* idle, borrowed or being made */
    unsigned connections_max;
    bool dead;
};

int cg_nbd_failed(const char *uri, const char *what, uint64_t len, uint64_t off,
                  struct cg_error *err)
{
    int errnum = nbd_get_errno() > 0 ? nbd_get_errno() : EIO;
    const char *text = nbd_get_error() ? nbd_get_error() : "unknown error";

    if (len == 0)
        return cg_error_say(err, errnum, "%s %s: %s", what, uri, text);
    return cg_error_say(err, errnum, "%s %llu bytes at %llu of %s: %s", what,
                        (unsigned long long)len, (unsigned long long)off, uri, text);
}

/* Not merely "ready": a prefetch may still be under way. */
static bool is_alive(struct nbd_handle *h)
{
    return nbd_aio_is_dead(h) == 0 && nbd_aio_is_closed(h) == 0;
}

/* The handshake, unless the server is silent in it: one that hangs is said to be so. */
static int shake_hands(struct nbd_handle *h, const char *uri, struct cg_error *err)
{
    if (nbd_aio_connect_uri(h, uri) < 0)
        return cg_nbd_failed(uri, "connect to", 0, 0, err);
    while (nbd_aio_is_connecting(h) == 1) {
        int r = nbd_poll(h, HANDSHAKE_SECONDS * 1000);
        if (r < 0)
            return cg_nbd_failed(uri, "connect to", 0, 0, err);
        if (r == 0)
            return cg_error_say(err, ETIMEDOUT, "connect to %s: no answer within %d s", uri,
                                HANDSHAKE_SECONDS);
    }
    return nbd_aio_is_ready(h) == 1 ? 0 : cg_nbd_failed(uri, "connect to", 0, 0, err);
}

static int connect_to(const char *uri, struct nbd_handle **ret_handle, struct cg_error *err)
{
    struct nbd_handle *h = nbd_create();
    int r;

    /* The URI is the operator's, so it may name files (of keys): clients of a face can't give one.
     * Requests are aligned here as far as the export's end lets them be. */
    if (h && nbd_set_uri_allow_local_file(h, true) == 0 &&
        nbd_set_strict_mode(h, nbd_get_strict_mode(h) & ~(uint32_t)LIBNBD_STRICT_ALIGN) == 0 &&
        nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
        r = shake_hands(h, uri, err);
    else
        r = cg_nbd_failed(uri, "connect to", 0, 0, err);
    if (r < 0)
        nbd_close(h);
    else
        *ret_handle = h;
    return r;
}

/* Whether the server still has its end open, as far as can be seen without asking it. */
static bool is_connected(struct nbd_handle *h)
{
    struct pollfd p = { .fd = is_alive(h) ? nbd_aio_get_fd(h) : -1, .events = POLLRDHUP };

    return p.fd >= 0 && poll(&p, 1, 0) == 0;
}

/* Politely, but without waiting for an answer that may never come; and not to a server that is
 * gone: libnbd (1.14 at least) then looks at the request that it has just freed. */
static void disconnect(struct nbd_handle *h)
{
    if (is_connected(h))
        nbd_aio_disconnect(h, 0);
    nbd_close(h);
}

/* A connection in the place that was reserved for it.  NULL if the server takes no more: then those
 * that are there will do. */
static struct nbd_handle *connect_more(struct cg_nbd_pool *p)
{
    struct nbd_handle *h = NULL;

    if (connect_to(p->uri, &h, NULL) == 0) {
        if (nbd_get_size(h) == p->size && nbd_can_multi_conn(h) == 1)
            return h;
        disconnect(h);
    }
    CG_LOCK(&p->lock);
    p->connections--;
    p->connections_max = p->connections;
    return NULL;
}

/* Takes an idle connection, or reserves the place for a new one (*ret_handle is NULL then), or
 * waits until either can be had. */
static int take(struct cg_nbd_pool *p, struct nbd_handle **ret_handle, struct cg_error *err)
{
    CG_LOCK(&p->lock);

    while (!p->dead && p->idle_count == 0 && p->connections >= p->connections_max)
        pthread_cond_wait(&p->freed, &p->lock);
    if (p->dead)
        return cg_error_say(err, EIO, "the connection to %s was lost", p->uri);
    if (p->idle_count > 0)
        *ret_handle = p->idle[--p->idle_count];
    else
        p->connections++;
    return 0;
}

int cg_nbd_borrow(struct cg_nbd_pool *p, struct nbd_handle **ret_handle, struct cg_error *err)
{
    struct nbd_handle *h = NULL;

    while (!h) {
        int r = take(p, &h, err);
        if (r < 0)
            return r;
        if (!h)
            h = connect_more(p);
    }
    *ret_handle = h;
    return 0;
}

struct nbd_handle *cg_nbd_borrow_idle(struct cg_nbd_pool *p)
{
    CG_LOCK(&p->lock);

    return !p->dead && p->idle_count > 0 ? p->idle[--p->idle_count] : NULL;
}

void cg_nbd_give_back(struct cg_nbd_pool *p, struct nbd_handle *h)
{
    bool alive = is_alive(h);

    if (!alive)
        nbd_close(h);
    CG_LOCK(&p->lock);
    if (alive) {
        p->idle[p->idle_count++] = h;
        pthread_cond_signal(&p->freed);
    } else {
        p->connections--;
        p->dead = true;
        pthread_cond_broadcast(&p->freed);
    }
}

int cg_nbd_done(struct cg_nbd_pool *p, struct nbd_handle *h, int result, const char *what,
                uint64_t len, uint64_t off, struct cg_error *err)
{
    int r = result < 0 ? cg_nbd_failed(p->uri, what, len, off, err) : 0;

    if (r < 0 && !is_alive(h))
        r = cg_error_prefix(err, -EIO, "the connection was lost");
    cg_nbd_give_back(p, h);
    return r;
}

int cg_nbd_pool_new(const char *uri, struct cg_nbd_pool **ret_pool, struct cg_error *err)
{
    struct cg_nbd_pool *p = calloc(1, sizeof *p);
    int r;

    if (!p)
        return cg_error_set(err, ENOMEM, "connect to %s", uri);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->freed, NULL);
    p->uri = strdup(uri);
    r = p->uri ? connect_to(uri, &p->idle[0], err)
               : cg_error_set(err, ENOMEM, "connect to %s", uri);
    if (r < 0)
        goto fail;
    p->idle_count = p->connections = p->connections_max = 1;
    p->size = nbd_get_size(p->idle[0]);
    *ret_pool = p;
    return 0;
fail:
    cg_nbd_pool_free(p);
    return r;
}

void cg_nbd_pool_grow(struct cg_nbd_pool *p, unsigned connections)
{
    CG_LOCK(&p->lock);

    p->connections_max = connections < CONNECTIONS_MAX ? connections : CONNECTIONS_MAX;
}

void cg_nbd_pool_free(struct cg_nbd_pool *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->idle_count; i++)
        disconnect(p->idle[i]);
    pthread_cond_destroy(&p->freed);
    pthread_mutex_destroy(&p->lock);
    free(p->uri);
    free(p);
}
