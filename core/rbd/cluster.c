#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/rbd/cluster.h"

/* Thread model: lock guards the connection and the list of pools while they are made; both then
 * stay as they are.  It is held while connecting: all who come meanwhile want just that. */

struct pool {
    struct pool *next;
    char *name, *namespace;
    rados_ioctx_t io;
};

struct cg_rbd_cluster {
    const struct cg_rbd_config *config;
    pthread_mutex_t lock;
    rados_t rados; /* NULL until connected */
    struct pool *pools;
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
    }
    return c;
}

void cg_rbd_cluster_free(struct cg_rbd_cluster *c)
{
    if (!c || atomic_load(&c->pins) > 0)
        return; /* librados waits for what is unanswered: for ever, if the cluster is gone */
    while (c->pools) {
        struct pool *p = c->pools;
        c->pools = p->next;
        rados_ioctx_destroy(p->io);
        free(p->name);
        free(p->namespace);
        free(p);
    }
    if (c->rados)
        rados_shutdown(c->rados);
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

static int configure(const struct cg_rbd_config *config, rados_t rados, struct cg_error *err)
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
        { "rbd_cache", config->cache == CG_RBD_CACHE_OFF ? "false" : "true" },
        { "rbd_cache_policy",
          config->cache == CG_RBD_CACHE_WRITEBACK ? "writeback" : "writethrough" },
        { "rbd_cache_writethrough_until_flush", "false" },
        /* Whoever gives up waiting for a write takes its buffer away. */
        { "rbd_disable_zero_copy_writes", "true" },
        { "rbd_concurrent_management_ops", "32" },
    };

    int r = rados_conf_read_file(rados, config->conf);
    if (r < 0)
        return cg_rbd_failed(r, err, "read %s",
                             config->conf ? config->conf : "ceph.conf ($CEPH_CONF, /etc/ceph)");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *s = &settings[i];
        r = s->value ? rados_conf_set(rados, s->key, s->value) : 0;
        if (r < 0 && r != -ENOENT) /* an option that this version doesn't have */
            return cg_rbd_failed(r, err, "set Ceph's option %s to %s", s->key, s->value);
    }
    return 0;
}

static int connect_locked(struct cg_rbd_cluster *c, struct cg_error *err)
{
    rados_t rados;

    if (c->rados)
        return 0;
    int r = rados_create(&rados, c->config->id);
    if (r < 0)
        return cg_rbd_failed(r, err, "start librados");
    r = configure(c->config, rados, err);
    if (r == 0) {
        r = rados_connect(rados);
        if (r == -ENOENT)
            r = cg_error_say(err, EACCES,
                             "connect to Ceph as client.%s: no key found in its keyring",
                             c->config->id);
        else if (r < 0)
            r = cg_rbd_failed(r, err, "connect to Ceph as client.%s", c->config->id);
    }
    if (r < 0) {
        rados_shutdown(rados);
        return r;
    }
    c->rados = rados;
    return 0;
}

static int open_pool(struct cg_rbd_cluster *c, const char *name, const char *namespace,
                     rados_ioctx_t *ret, struct cg_error *err)
{
    struct pool *p = calloc(1, sizeof *p);

    if (!p || !(p->name = strdup(name)) || !(p->namespace = strdup(namespace))) {
        if (p)
            free(p->name);
        free(p);
        return cg_error_set(err, ENOMEM, "open pool %s", name);
    }
    int r = rados_ioctx_create(c->rados, name, &p->io);
    if (r < 0) {
        free(p->name);
        free(p->namespace);
        free(p);
        if (r == -ENOENT)
            return cg_error_say(err, ENOENT, "there is no pool %s in the Ceph cluster", name);
        return cg_rbd_failed(r, err, "open pool %s", name);
    }
    rados_ioctx_set_namespace(p->io, namespace);
    /* A full pool is an error, not a wait. */
    rados_set_pool_full_try(p->io);
    p->next = c->pools;
    c->pools = p;
    *ret = p->io;
    return 0;
}

int cg_rbd_cluster_pool(struct cg_rbd_cluster *c, const char *name, const char *namespace,
                        rados_ioctx_t *ret, struct cg_error *err)
{
    CG_LOCK(&c->lock);
    int r = connect_locked(c, err);

    if (r < 0)
        return r;
    for (struct pool *p = c->pools; p; p = p->next) {
        if (strcmp(p->name, name) == 0 && strcmp(p->namespace, namespace) == 0) {
            *ret = p->io;
            return 0;
        }
    }
    return open_pool(c, name, namespace, ret, err);
}

int cg_rbd_cluster_fsid(struct cg_rbd_cluster *c, char ret[static CG_RBD_FSID + 1],
                        struct cg_error *err)
{
    CG_LOCK(&c->lock);
    int r = connect_locked(c, err);

    if (r == 0)
        r = rados_cluster_fsid(c->rados, ret, CG_RBD_FSID + 1);
    return r < 0 ? cg_rbd_failed(r, err, "ask for the cluster's id") : 0;
}

int cg_rbd_cluster_pools(struct cg_rbd_cluster *c,
                         int (*fn)(void *opaque, const char *pool, struct cg_error *err),
                         void *opaque, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *buf = NULL;
    int size = 0, n = 0;

    {
        CG_LOCK(&c->lock);
        int r = connect_locked(c, err);
        if (r < 0)
            return r;
    }
    do { /* until no pool was made in between */
        size = n + 1;
        free(buf);
        buf = calloc(1, (size_t)size);
        if (!buf)
            return cg_error_set(err, ENOMEM, "list pools");
        n = rados_pool_list(c->rados, buf, (size_t)size);
        if (n < 0)
            return cg_rbd_failed(n, err, "list pools");
    } while (n > size);
    for (const char *p = buf; *p; p += strlen(p) + 1) {
        int r = fn(opaque, p, err);
        if (r != 0)
            return r;
    }
    return 0;
}
