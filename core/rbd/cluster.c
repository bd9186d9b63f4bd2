#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/cleanup.h"
#include "core/rbd/cluster.h"

/* Thread model: lock guards the lists of connections and of pools, and how their making stands;
 * what was made then stays as it is.  It isn't held while the cluster is asked: who needs what
 * another is making waits for made, and fails as that one does. */

struct making {
    bool on;
    unsigned users; /* who makes it and who waits */
    int result;
    struct cg_error err;
};

struct pool {
    struct pool *next;
    struct making making;
    char *name, *namespace;
    rados_ioctx_t io;
    atomic_uint left; /* see cg_rbd_cluster_left */
};

struct connection {
    struct connection *next;
    struct making making;
    enum cg_rbd_purpose purpose;
    bool shut_out; /* used by what is open, and by nothing else */
    rados_t rados;
    struct pool *pools;
};

struct cg_rbd_cluster {
    const struct cg_rbd_config *config;
    pthread_mutex_t lock;
    pthread_cond_t made;
    struct connection *connections;
    atomic_uint pins;
};

int cg_rbd_failed(int r, struct cg_error *err, const char *fmt, ...)
{
    char what[CG_ERROR_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    switch (-r) {
    case ESHUTDOWN:
        return cg_error_say(err, EIO,
                            "%s: the cluster has shut this client out (blocklisted), because "
                            "another took over its lock: open it again",
                            what);
    case EDQUOT:
        return cg_error_say(err, ENOSPC, "%s: the pool is full (its quota is reached)", what);
    case EROFS:
        return cg_error_say(err, EROFS, "%s: another client holds the image's lock and keeps it",
                            what);
    default:
        return cg_error_set(err, -r, "%s", what);
    }
}

struct cg_rbd_cluster *cg_rbd_cluster_new(const struct cg_rbd_config *config)
{
    struct cg_rbd_cluster *c = calloc(1, sizeof *c);

    if (c) {
        c->config = config;
        pthread_mutex_init(&c->lock, NULL);
        pthread_cond_init(&c->made, NULL);
    }
    return c;
}

static void free_pool(struct pool *p)
{
    if (p->io)
        rados_ioctx_destroy(p->io);
    free(p->name);
    free(p->namespace);
    free(p);
}

void cg_rbd_cluster_free(struct cg_rbd_cluster *c)
{
    if (!c || atomic_load(&c->pins) > 0)
        return; /* librados waits for what is unanswered: for ever, if the cluster is gone */
    while (c->connections) {
        struct connection *n = c->connections;
        c->connections = n->next;
        while (n->pools) {
            struct pool *p = n->pools;
            n->pools = p->next;
            free_pool(p);
        }
        rados_shutdown(n->rados);
        free(n);
    }
    pthread_cond_destroy(&c->made);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void cg_rbd_cluster_pin(struct cg_rbd_cluster *c)
{
    atomic_fetch_add(&c->pins, 1);
}

void cg_rbd_cluster_unpin(struct cg_rbd_cluster *c)
{
    atomic_fetch_sub(&c->pins, 1);
}

struct setting {
    const char *key, *value;
};

static int configure(const struct cg_rbd_config *config, rados_t rados, enum cg_rbd_purpose purpose,
                     struct cg_error *err)
{
    char timeout[16];
    snprintf(timeout, sizeof timeout, "%u", config->timeout);
    const struct setting settings[] = {
        { "keyring", config->keyring },
        /* Nothing but a face prints. */
        { "log_to_stderr", "false" },
        { "err_to_stderr", "false" },
        { "client_mount_timeout", timeout },
        { "rados_mon_op_timeout", timeout },
        { "rados_osd_op_timeout", purpose == CG_RBD_LOOK ? timeout : "0" },
        { "rbd_cache", config->cache == CG_RBD_CACHE_OFF ? "false" : "true" },
        { "rbd_cache_policy",
          config->cache == CG_RBD_CACHE_WRITEBACK ? "writeback" : "writethrough" },
        { "rbd_cache_writethrough_until_flush", "false" },
        /* Whoever gives up waiting for a write takes its buffer away. */
        { "rbd_disable_zero_copy_writes", "true" },
        /* A stream gives one piece at a time: more would only wait for it, in the way of guests. */
        { "rbd_concurrent_management_ops", purpose == CG_RBD_FILL ? "3" : "32" },
    };

    int r = rados_conf_read_file(rados, config->conf);
    if (r < 0) /* never -ENOENT, which says that an image is gone */
        return cg_error_say(err, r == -ENOENT ? EIO : -r, "read %s: %s",
                            config->conf ? config->conf : "ceph.conf ($CEPH_CONF, /etc/ceph)",
                            strerror(-r));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *s = &settings[i];
        r = s->value ? rados_conf_set(rados, s->key, s->value) : 0;
        if (r < 0 && r != -ENOENT) /* an option that this version doesn't have */
            return cg_rbd_failed(r, err, "set Ceph's option %s to %s", s->key, s->value);
    }
    return 0;
}

static int begin(const struct cg_rbd_config *config, enum cg_rbd_purpose purpose, rados_t *ret,
                 struct cg_error *err)
{
    rados_t rados;

    int r = rados_create(&rados, config->id);
    if (r < 0)
        return cg_rbd_failed(r, err, "start librados");
    r = configure(config, rados, purpose, err);
    if (r == 0) {
        r = rados_connect(rados);
        if (r == -ENOENT || r == -EACCES || r == -EPERM)
            r = cg_error_say(err, EACCES,
                             "connect to Ceph as client.%s: the cluster knows no such user, or the "
                             "keyring (rbd.keyring in cowgate.json) hasn't its key",
                             config->id);
        else if (r == -ETIMEDOUT)
            r = cg_error_say(err, ETIMEDOUT,
                             "connect to Ceph as client.%s: no monitor answered within %u s",
                             config->id, config->timeout);
        else if (r < 0)
            r = cg_rbd_failed(r, err, "connect to Ceph as client.%s", config->id);
    }
    if (r < 0) {
        rados_shutdown(rados);
        return r;
    }
    *ret = rados;
    return 0;
}

/* One more who waits for what is being made.  True: it came to nothing, and this was the last. */
static bool join_locked(struct cg_rbd_cluster *c, struct making *m, int *ret_result,
                        struct cg_error *err)
{
    m->users++;
    while (m->on)
        pthread_cond_wait(&c->made, &c->lock);
    m->users--;
    *ret_result = m->result < 0 ? cg_error_say(err, -m->result, "%s", m->err.message) : 0;
    return m->result < 0 && m->users == 0;
}

/* The maker is done.  True: it came to nothing, and nobody waits. */
static bool made_locked(struct cg_rbd_cluster *c, struct making *m, int r, struct cg_error *err)
{
    m->on = false;
    m->result = r;
    m->users--;
    if (r < 0)
        cg_error_say(err, -r, "%s", m->err.message);
    pthread_cond_broadcast(&c->made);
    return r < 0 && m->users == 0;
}

static int make_connection(struct cg_rbd_cluster *c, struct connection *n, struct cg_error *err)
{
    int r = begin(c->config, n->purpose, &n->rados, &n->making.err);

    CG_LOCK(&c->lock);
    for (struct connection **at = &c->connections; r < 0 && *at; at = &(*at)->next) {
        if (*at == n) {
            *at = n->next;
            break;
        }
    }
    if (made_locked(c, &n->making, r, err))
        free(n);
    return r;
}

static int get_connection(struct cg_rbd_cluster *c, enum cg_rbd_purpose purpose,
                          struct connection **ret, struct cg_error *err)
{
    int r = 0;

    pthread_mutex_lock(&c->lock);
    struct connection *n = c->connections;
    while (n && (n->purpose != purpose || n->shut_out))
        n = n->next;
    *ret = n;
    if (n) {
        if (join_locked(c, &n->making, &r, err))
            free(n);
        pthread_mutex_unlock(&c->lock);
        return r;
    }
    n = calloc(1, sizeof *n);
    if (n) {
        *n = (struct connection){ .next = c->connections, .purpose = purpose };
        n->making = (struct making){ .on = true, .users = 1 };
        c->connections = n;
    }
    pthread_mutex_unlock(&c->lock);
    *ret = n;
    return n ? make_connection(c, n, err) : cg_error_set(err, ENOMEM, "connect to Ceph");
}

static void probed(rados_completion_t completion, void *opaque)
{
    (void)completion;
    sem_post(opaque);
}

/* Asks the pool for something, with a time limit that the requests after it don't have: a cluster
 * that is away when a command begins is an error, not a wait. */
static int probe(rados_ioctx_t io, unsigned timeout)
{
    rados_completion_t completion;
    sem_t answered;
    struct timespec deadline;
    uint64_t size;
    time_t time;
    int r = 0;

    sem_init(&answered, 0, 0);
    if (rados_aio_create_completion2(&answered, probed, &completion) < 0)
        return -ENOMEM;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout;
    int started = rados_aio_stat(io, "rbd_directory", completion, &size, &time);
    while (started == 0 && (r = sem_clockwait(&answered, CLOCK_MONOTONIC, &deadline)) < 0 &&
           errno == EINTR)
        ;
    if (r < 0) {
        rados_aio_cancel(io, completion);
        sem_wait(&answered);
        r = -ETIMEDOUT;
    }
    if (started == 0)
        rados_aio_wait_for_complete_and_cb(completion);
    rados_aio_release(completion);
    sem_destroy(&answered);
    return r;
}

static int open_pool(struct cg_rbd_cluster *c, struct connection *n, struct pool *p,
                     struct cg_error *err)
{
    int r = rados_ioctx_create(n->rados, p->name, &p->io);

    if (r == -ENOENT)
        return cg_error_say(err, ENOENT, "there is no pool %s in the Ceph cluster", p->name);
    if (r < 0)
        return cg_rbd_failed(r, err, "open pool %s", p->name);
    rados_ioctx_set_namespace(p->io, p->namespace);
    /* A full pool is an error, not a wait. */
    rados_set_pool_full_try(p->io);
    if (n->purpose != CG_RBD_LOOK && probe(p->io, c->config->timeout) == -ETIMEDOUT)
        return cg_error_say(err, ETIMEDOUT, "open pool %s: the cluster didn't answer within %u s",
                            p->name, c->config->timeout);
    return 0;
}

static int make_pool(struct cg_rbd_cluster *c, struct connection *n, struct pool *p,
                     struct cg_error *err)
{
    int r = open_pool(c, n, p, &p->making.err);

    CG_LOCK(&c->lock);
    for (struct pool **at = &n->pools; r < 0 && *at; at = &(*at)->next) {
        if (*at == p) {
            *at = p->next;
            break;
        }
    }
    if (made_locked(c, &p->making, r, err))
        free_pool(p);
    return r;
}

static struct pool *add_pool_locked(struct connection *n, const char *name, const char *namespace)
{
    struct pool *p = calloc(1, sizeof *p);

    if (!p || !(p->name = strdup(name)) || !(p->namespace = strdup(namespace))) {
        if (p)
            free_pool(p);
        return NULL;
    }
    p->making = (struct making){ .on = true, .users = 1 };
    p->next = n->pools;
    n->pools = p;
    return p;
}

static int get_pool(struct cg_rbd_cluster *c, struct connection *n, const char *name,
                    const char *namespace, struct pool **ret, struct cg_error *err)
{
    int r = 0;

    pthread_mutex_lock(&c->lock);
    struct pool *p = n->pools;
    while (p && (strcmp(p->name, name) != 0 || strcmp(p->namespace, namespace) != 0))
        p = p->next;
    *ret = p;
    if (p) {
        if (join_locked(c, &p->making, &r, err))
            free_pool(p);
        pthread_mutex_unlock(&c->lock);
        return r;
    }
    *ret = p = add_pool_locked(n, name, namespace);
    pthread_mutex_unlock(&c->lock);
    return p ? make_pool(c, n, p, err) : cg_error_set(err, ENOMEM, "open pool %s", name);
}

int cg_rbd_cluster_pool(struct cg_rbd_cluster *c, enum cg_rbd_purpose purpose, const char *name,
                        const char *namespace, rados_ioctx_t *ret, struct cg_error *err)
{
    struct connection *n;
    struct pool *p;

    int r = get_connection(c, purpose, &n, err);
    if (r == 0)
        r = get_pool(c, n, name, namespace, &p, err);
    if (r == 0)
        *ret = p->io;
    return r;
}

atomic_uint *cg_rbd_cluster_left(struct cg_rbd_cluster *c, rados_ioctx_t io)
{
    CG_LOCK(&c->lock);
    for (struct connection *n = c->connections; n; n = n->next) {
        for (struct pool *p = n->pools; p; p = p->next) {
            if (!p->making.on && p->io == io)
                return &p->left;
        }
    }
    return NULL;
}

/* The connection that io belongs to. */
static struct connection *connection_of_locked(struct cg_rbd_cluster *c, rados_ioctx_t io)
{
    struct connection *n = c->connections;

    while (n && (n->making.on || n->rados != rados_ioctx_get_cluster(io)))
        n = n->next;
    return n;
}

void cg_rbd_cluster_shut_out(struct cg_rbd_cluster *c, rados_ioctx_t io)
{
    CG_LOCK(&c->lock);
    connection_of_locked(c, io)->shut_out = true;
}

bool cg_rbd_cluster_is_shut_out(struct cg_rbd_cluster *c, rados_ioctx_t io)
{
    CG_LOCK(&c->lock);
    return connection_of_locked(c, io)->shut_out;
}

/* The connection for looking. */
static int look(struct cg_rbd_cluster *c, rados_t *ret, struct cg_error *err)
{
    struct connection *n;

    int r = get_connection(c, CG_RBD_LOOK, &n, err);
    if (r == 0)
        *ret = n->rados;
    return r;
}

int cg_rbd_cluster_fsid(struct cg_rbd_cluster *c, char ret[static CG_RBD_FSID + 1],
                        struct cg_error *err)
{
    rados_t rados = NULL;

    int r = look(c, &rados, err);
    if (r < 0)
        return r;
    r = rados_cluster_fsid(rados, ret, CG_RBD_FSID + 1);
    return r < 0 ? cg_rbd_failed(r, err, "ask for the cluster's id") : 0;
}

int cg_rbd_cluster_pools(struct cg_rbd_cluster *c,
                         int (*fn)(void *opaque, const char *pool, struct cg_error *err),
                         void *opaque, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *buf = NULL;
    int size = 0, n = 0;
    rados_t rados = NULL;

    int r = look(c, &rados, err);
    if (r < 0)
        return r;
    do { /* until no pool was made in between */
        size = n + 1;
        free(buf);
        buf = calloc(1, (size_t)size);
        if (!buf)
            return cg_error_set(err, ENOMEM, "list pools");
        n = rados_pool_list(rados, buf, (size_t)size);
        if (n < 0)
            return cg_rbd_failed(n, err, "list pools");
    } while (n > size);
    for (const char *p = buf; *p; p += strlen(p) + 1) {
        r = fn(opaque, p, err);
        if (r != 0)
            return r;
    }
    return 0;
}
