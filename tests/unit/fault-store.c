#include "config.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tests/unit/fault-store.h"

struct fault_store {
    struct cg_store store;
    struct cg_store *inner;
    struct fault_store_faults *f;
};

struct fault_session {
    struct cg_store_session session;
    struct cg_store_session *inner;
};

static bool is_last(struct fault_store *s, unsigned *ret_call)
{
    *ret_call = atomic_fetch_add(&s->f->calls, 1) + 1;
    return s->f->kill_at && *ret_call >= s->f->kill_at;
}

/* Before a call: 0, or the injected failure. */
static int before(struct fault_store *s, const char *what, const char *path, bool *ret_last,
                  struct cg_error *err)
{
    unsigned call;

    if (s->f->before)
        s->f->before(s->f->opaque, what, path);
    *ret_last = is_last(s, &call);
    if (*ret_last && !s->f->kill_after)
        raise(SIGKILL);
    if (!s->f->faults)
        return 0;
    unsigned n = atomic_fetch_add(&s->f->faults->calls, 1) + 1;
    if (n == s->f->faults->fail_at)
        return cg_error_say(err, EIO, "fault %u injected: %s %s", n, what, path);
    return 0;
}

static int after(bool last, int r)
{
    if (last)
        raise(SIGKILL);
    return r;
}

#define STORE(store) struct fault_store *s = (struct fault_store *)(store)
#define SESSION(session)                                                                           \
    struct fault_session *x = (struct fault_session *)(session);                                   \
    STORE(x->session.store)
#define CALL(what, path, call)                                                                     \
    do {                                                                                           \
        bool last;                                                                                 \
        int r = before(s, what, path, &last, err);                                                 \
        return r < 0 ? r : after(last, call);                                                      \
    } while (0)

static int get(struct cg_store *store, const char *path, void *buf, size_t size, size_t *ret_len,
               uint64_t *ret_total, struct cg_error *err)
{
    STORE(store);
    CALL("get", path, s->inner->ops->get(s->inner, path, buf, size, ret_len, ret_total, err));
}

static int list(struct cg_store *store, const char *path, cg_store_list_fn *fn, void *opaque,
                struct cg_error *err)
{
    STORE(store);
    CALL("list", path, s->inner->ops->list(s->inner, path, fn, opaque, err));
}

static int create(struct cg_store *store, const char *path, const void *buf, size_t len,
                  struct cg_error *err)
{
    STORE(store);
    CALL("create", path, s->inner->ops->create(s->inner, path, buf, len, err));
}

static int remove_(struct cg_store *store, const char *path, struct cg_error *err)
{
    STORE(store);
    CALL("remove", path, s->inner->ops->remove(s->inner, path, err));
}

static int lock(struct cg_store *store, const char *path, struct cg_error *err)
{
    STORE(store);
    CALL("lock", path, s->inner->ops->lock(s->inner, path, err));
}

static void unlock(struct cg_store *store, int lock)
{
    STORE(store);
    s->inner->ops->unlock(s->inner, lock);
}

static int session_begin(struct cg_store *store, const char *project, const char *volume,
                         const char *id, struct cg_store_session **ret_session,
                         struct cg_error *err)
{
    STORE(store);
    struct fault_session *x = malloc(sizeof *x);
    bool last;

    assert(x);
    x->session.store = store;
    int r = before(s, "session_begin", volume, &last, err);
    if (r == 0)
        r = s->inner->ops->session_begin(s->inner, project, volume, id, &x->inner, err);
    if (r < 0)
        free(x);
    else
        *ret_session = &x->session;
    return after(last, r);
}

static int session_write(struct cg_store_session *session, const void *buf, size_t len,
                         struct cg_error *err)
{
    SESSION(session);
    CALL("session_write", "", s->inner->ops->session_write(x->inner, buf, len, err));
}

static int session_put(struct cg_store_session *session, const char *path, const void *header,
                       size_t header_len, const void *payload, size_t payload_len,
                       struct cg_error *err)
{
    SESSION(session);
    CALL("session_put", path,
         s->inner->ops->session_put(x->inner, path, header, header_len, payload, payload_len, err));
}

static int session_sync(struct cg_store_session *session, struct cg_error *err)
{
    SESSION(session);
    CALL("session_sync", "", s->inner->ops->session_sync(x->inner, err));
}

static int session_commit(struct cg_store_session *session, const char *path, struct cg_error *err)
{
    SESSION(session);
    CALL("session_commit", path, s->inner->ops->session_commit(x->inner, path, err));
}

static void session_end(struct cg_store_session *session)
{
    SESSION(session);
    unsigned call;
    bool last = is_last(s, &call);

    if (last && !s->f->kill_after)
        raise(SIGKILL);
    s->inner->ops->session_end(x->inner);
    after(last, 0);
    free(x);
}

static int session_alive(struct cg_store *store, const char *project, const char *id,
                         struct cg_error *err)
{
    STORE(store);
    CALL("session_alive", id, s->inner->ops->session_alive(s->inner, project, id, err));
}

static void close_(struct cg_store *store)
{
    STORE(store);
    s->inner->ops->close(s->inner);
    free(s);
}

static const struct cg_store_ops fault_ops = {
    .name = "faulty",
    .get = get,
    .list = list,
    .create = create,
    .remove = remove_,
    .lock = lock,
    .unlock = unlock,
    .session_begin = session_begin,
    .session_write = session_write,
    .session_put = session_put,
    .session_sync = session_sync,
    .session_commit = session_commit,
    .session_end = session_end,
    .session_alive = session_alive,
    .close = close_,
};

struct cg_store *fault_store_new(struct cg_store *inner, struct fault_store_faults *f)
{
    struct fault_store *s = malloc(sizeof *s);

    assert(s);
    *s = (struct fault_store){ { &fault_ops }, inner, f };
    return &s->store;
}
