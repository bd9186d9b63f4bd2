/* Where a repository's objects lie: a directory, later also a bucket.  Paths are relative to the
 * repository's top and contain no "..".  Everything may be called from any thread.
 *
 * What is visible is whole: no reader ever sees a part of an object or of a file under its name.
 */
#ifndef CG_BACKUPS_STORE_H
#define CG_BACKUPS_STORE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct cg_store;
struct cg_store_session;

/* Returning non-zero ends the listing with that result. */
typedef int cg_store_list_fn(void *opaque, const char *name, struct cg_error *err);

struct cg_store_ops {
    const char *name;
    /* Reads the first bytes of path, at most size.  *ret_len gets how many, *ret_total (may be
     * NULL) how many there are.  -ENOENT: nothing there. */
    int (*get)(struct cg_store *store, const char *path, void *buf, size_t size, size_t *ret_len,
               uint64_t *ret_total, struct cg_error *err);
    /* The names directly below path, in no particular order; -ENOENT if there is no such level. */
    int (*list)(struct cg_store *store, const char *path, cg_store_list_fn *fn, void *opaque,
                struct cg_error *err);
    /* Creates path with these bytes, exclusively and durably.  -EEXIST: it's there. */
    int (*create)(struct cg_store *store, const char *path, const void *buf, size_t len,
                  struct cg_error *err);
    /* Removes path durably; nothing there is fine. */
    int (*remove)(struct cg_store *store, const char *path, struct cg_error *err);
    /* Waits until nobody else has the lock called path, and takes it, until unlock or the end of
     * the process: for a few calls only.  Returns what unlock wants, at least 0. */
    int (*lock)(struct cg_store *store, const char *path, struct cg_error *err);
    void (*unlock)(struct cg_store *store, int lock);

    /* A writer's session in a project, open as long as this process lives and nobody revokes it.
     * volume is what it writes points of: -EBUSY if another live session does.  Also removes what
     * dead sessions left, in all projects, as far as it can. */
    int (*session_begin)(struct cg_store *store, const char *project, const char *volume,
                         const char *id, struct cg_store_session **ret_session,
                         struct cg_error *err);
    /* Replaces what the session says, durably.  -ECANCELED: it was revoked. */
    int (*session_write)(struct cg_store_session *session, const void *buf, size_t len,
                         struct cg_error *err);
    /* Writes an object (header, payload) at path, replacing what may be there; durable only after
     * session_sync. */
    int (*session_put)(struct cg_store_session *session, const char *path, const void *header,
                       size_t header_len, const void *payload, size_t payload_len,
                       struct cg_error *err);
    int (*session_sync)(struct cg_store_session *session, struct cg_error *err);
    /* What the session says becomes path, durably, and the session is over.  -EEXIST: something is
     * there, and the session goes on; -ECANCELED: it was revoked, and nothing has happened. */
    int (*session_commit)(struct cg_store_session *session, const char *path, struct cg_error *err);
    /* Ends a session, committed or not, and frees it.  NULL is fine. */
    void (*session_end)(struct cg_store_session *session);
    /* 1 if the session is open and its process lives, 0 if not. */
    int (*session_alive)(struct cg_store *store, const char *project, const char *id,
                         struct cg_error *err);
    /* No session is open. */
    void (*close)(struct cg_store *store);
};

/* The head of each backend's own struct. */
struct cg_store {
    const struct cg_store_ops *ops;
};

/* A backend's own struct begins with this one. */
struct cg_store_session {
    struct cg_store *store;
};

/* The store in the directory path (absolute), which must be there. */
int cg_store_dir_open(const char *path, struct cg_store **ret_store, struct cg_error *err);

/* Reads all of path into memory that the caller frees, a NUL behind it.  -EFBIG for more than max
 * bytes. */
int cg_store_read(struct cg_store *store, const char *path, size_t max, char **ret_buf,
                  size_t *ret_len, struct cg_error *err);

#endif
