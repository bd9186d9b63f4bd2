#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/backups/store_dir.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/name.h"

/* Sessions in a directory.  PROJECT/sessions/ID is locked for as long as its process lives and is
 * only ever rewritten through the descriptor that created it: a commit links that descriptor into
 * points/, which the kernel refuses once the name was removed (a file without links can't get one
 * again), so whoever removes the name has revoked the session, atomically.
 *
 * Objects are written below PROJECT/sessions/ID.tmp/ and linked to their place.
 *
 * Thread model: put may be called from any number of threads; next numbers their files.  The rest
 * is called by one thread at a time. */

struct dir_session {
    struct cg_store_session session;
    int top;  /* the repository's, owned by the store */
    int fd;   /* of the session's file, locked */
    int lock; /* PROJECT/locks/VOLUME, locked */
    int tmp;  /* the directory PROJECT/sessions/ID.tmp, opened before anything is written, so
                 that syncfs through it reports every failure to write back since */
    char project[CG_PART_MAX + 1];
    char path[3 * CG_PART_MAX];     /* PROJECT/sessions/ID */
    char tmp_path[3 * CG_PART_MAX]; /* PROJECT/sessions/ID.tmp */
    _Atomic uint64_t next;
};

/* Locks fd without waiting.  1 if it is ours, 0 if it's another's, -errno. */
static int try_lock(int fd)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 1;
    return errno == EWOULDBLOCK ? 0 : -errno;
}

static bool has_name(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

int cg_store_dir_session_alive(struct cg_store *store, const char *project, const char *id,
                               struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/sessions/%s", project, id);
    CG_CLEANUP(cg_close) int fd = openat(d->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : cg_error_set(err, errno, "open %s", path);
    /* A shared lock, so that two who only look don't take each other for the session's process. */
    if (flock(fd, LOCK_SH | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK ? 1 : cg_error_set(err, errno, "lock %s", path);
}

static bool is_tmp(const char *name, char id[static CG_PART_MAX + 1])
{
    size_t n = strlen(name);

    if (n < 4 || n - 4 > CG_PART_MAX || strcmp(name + n - 4, ".tmp") != 0)
        return false;
    memcpy(id, name, n - 4);
    id[n - 4] = '\0';
    return true;
}

/* Removes a session's file if its process is dead: that revokes it. */
static void sweep_session(int top, const char *path)
{
    CG_CLEANUP(cg_close) int fd = openat(top, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0 && try_lock(fd) == 1)
        unlinkat(top, path, 0);
}

struct sweep {
    struct cg_store *store;
    const char *project;
};

static int sweep_one(void *opaque, const char *name, struct cg_error *err)
{
    const struct sweep *w = opaque;
    int top = ((struct cg_store_dir *)w->store)->fd;
    char path[PATH_MAX], id[CG_PART_MAX + 1];

    (void)err;
    snprintf(path, sizeof path, "%s/sessions/%s", w->project, name);
    if (!is_tmp(name, id))
        sweep_session(top, path);
    else if (cg_store_dir_session_alive(w->store, w->project, id, NULL) == 0)
        cg_tree_remove(top, path, NULL);
    return 0;
}

/* Removes what dead sessions left in a project.  What can't be removed, or is no session, stays:
 * it's no reason not to back up. */
static int sweep_project(void *opaque, const char *project, struct cg_error *err)
{
    struct sweep w = { opaque, project };
    char path[PATH_MAX];

    (void)err;
    if (!cg_name_part_valid(project))
        return 0;
    snprintf(path, sizeof path, "%s/sessions", project);
    cg_store_dir_list(w.store, path, sweep_one, &w, NULL);
    return 0;
}

static int lock_volume(struct dir_session *s, const char *volume, struct cg_error *err)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/locks/%s", s->project, volume);
    int r = cg_store_dir_parents(s->top, path, err);
    if (r < 0)
        return r;
    s->lock = openat(s->top, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, CG_STORE_FILE);
    if (s->lock < 0)
        return cg_error_set(err, errno, "open %s", path);
    r = try_lock(s->lock);
    if (r < 0)
        return cg_error_set(err, -r, "lock %s", path);
    if (r == 0)
        return cg_error_say(err, EBUSY, "another backup of backups/%s/%s is running", s->project,
                            volume);
    return 0;
}

/* Creates and locks the session's file. */
static int create_file(struct dir_session *s, struct cg_error *err)
{
    s->fd = openat(s->top, s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, CG_STORE_FILE);
    if (s->fd < 0)
        return cg_error_set(err, errno, "create %s", s->path);
    /* Someone who swept between these two calls took it for dead and holds, or held, the lock. */
    int r = try_lock(s->fd);
    if (r < 0)
        return cg_error_set(err, -r, "lock %s", s->path);
    if (r == 0 || !has_name(s->fd))
        return cg_error_say(err, EAGAIN, "%s was revoked at once", s->path);
    if (mkdirat(s->top, s->tmp_path, CG_STORE_DIR) < 0)
        return cg_error_set(err, errno, "create %s", s->tmp_path);
    s->tmp = openat(s->top, s->tmp_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->tmp < 0)
        return cg_error_set(err, errno, "open %s", s->tmp_path);
    return cg_dir_sync(s->tmp, "..", err);
}

int cg_store_dir_session_begin(struct cg_store *store, const char *project, const char *volume,
                               const char *id, struct cg_store_session **ret_session,
                               struct cg_error *err)
{
    struct cg_store_dir *d = (struct cg_store_dir *)store;
    struct dir_session *s = calloc(1, sizeof *s);
    char sessions[CG_PART_MAX + 16];
    int r;

    if (!s)
        return cg_error_set(err, ENOMEM, "begin a session");
    s->session.store = store;
    s->top = d->fd;
    s->fd = s->lock = s->tmp = -1;
    snprintf(s->project, sizeof s->project, "%s", project);
    snprintf(s->path, sizeof s->path, "%s/sessions/%s", project, id);
    snprintf(s->tmp_path, sizeof s->tmp_path, "%s/sessions/%s.tmp", project, id);
    snprintf(sessions, sizeof sessions, "%s/sessions", project);
    r = cg_dir_make(s->top, sessions, CG_STORE_DIR, err);
    if (r < 0)
        goto fail;
    r = lock_volume(s, volume, err);
    if (r < 0)
        goto fail;
    r = cg_store_dir_list(store, ".", sweep_project, store, err);
    if (r < 0)
        goto fail;
    r = create_file(s, err);
    if (r < 0)
        goto fail;
    *ret_session = &s->session;
    return 0;
fail:
    cg_store_dir_session_end(&s->session);
    return r;
}

static int revoked(struct dir_session *s, struct cg_error *err)
{
    return cg_error_say(err, ECANCELED, "the session %s was revoked", s->path);
}

int cg_store_dir_session_write(struct cg_store_session *session, const void *buf, size_t len,
                               struct cg_error *err)
{
    struct dir_session *s = (struct dir_session *)session;

    if (!has_name(s->fd))
        return revoked(s, err);
    int r = cg_pwrite_full(s->fd, buf, len, 0);
    if (r == 0 && ftruncate(s->fd, (off_t)len) < 0)
        r = -errno;
    if (r == 0 && fsync(s->fd) < 0)
        r = -errno;
    return r < 0 ? cg_error_set(err, -r, "write %s", s->path) : 0;
}

static int write_object(int fd, const void *header, size_t header_len, const void *payload,
                        size_t payload_len)
{
    struct iovec iov[2] = { { (void *)header, header_len }, { (void *)payload, payload_len } };
    ssize_t n = writev(fd, iov, 2);

    if (n < 0 && errno != EINTR)
        return -errno;
    size_t done = n < 0 ? 0 : (size_t)n;
    if (done == header_len + payload_len)
        return 0;
    int r = cg_pwrite_full(fd, header, header_len, 0);
    return r < 0 ? r : cg_pwrite_full(fd, payload, payload_len, header_len);
}

/* Gives the object its name.  Where an object of this name and era lies already, a committed point
 * may stand on it, durably: then ours must be as durable before it takes that place. */
static int place(struct dir_session *s, int fd, const char *name, const char *path,
                 struct cg_error *err)
{
    if (linkat(s->tmp, name, s->top, path, 0) == 0)
        return 0;
    if (errno == ENOENT) {
        int r = cg_store_dir_parents(s->top, path, err);
        if (r < 0)
            return r;
        if (linkat(s->tmp, name, s->top, path, 0) == 0)
            return 0;
    }
    if (errno != EEXIST)
        return cg_error_set(err, errno, "create %s", path);
    if (fsync(fd) < 0)
        return cg_error_set(err, errno, "fsync %s", path);
    if (renameat(s->tmp, name, s->top, path) == 0)
        return 0;
    if (errno != EISDIR)
        return cg_error_set(err, errno, "replace %s", path);
    /* No object is a directory: whatever this one is, it's no backup. */
    int r = cg_tree_remove(s->top, path, err);
    if (r < 0)
        return r;
    if (renameat(s->tmp, name, s->top, path) < 0)
        return cg_error_set(err, errno, "replace %s", path);
    return 0;
}

int cg_store_dir_session_put(struct cg_store_session *session, const char *path, const void *header,
                             size_t header_len, const void *payload, size_t payload_len,
                             struct cg_error *err)
{
    struct dir_session *s = (struct dir_session *)session;
    char name[32];

    snprintf(name, sizeof name, "%llu", (unsigned long long)atomic_fetch_add(&s->next, 1));
    CG_CLEANUP(cg_close)
    int fd = openat(s->tmp, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, CG_STORE_FILE);
    if (fd < 0)
        return errno == ENOENT ? revoked(s, err) : cg_error_set(err, errno, "create %s", path);
    int r = write_object(fd, header, header_len, payload, payload_len);
    if (r < 0)
        cg_error_set(err, -r, "write %s", path);
    else
        r = place(s, fd, name, path, err);
    if (r == -ENOENT && !has_name(s->fd))
        r = revoked(s, err); /* whoever did that has removed our files too */
    unlinkat(s->tmp, name, 0);
    return r;
}

int cg_store_dir_session_sync(struct cg_store_session *session, struct cg_error *err)
{
    struct dir_session *s = (struct dir_session *)session;

    /* One syncfs for all objects and their directories instead of two fsyncs for each: it waits for
     * the same bytes, once.  It reports a failed write-back (since Linux 5.8) to this descriptor if
     * it happened after the descriptor was opened, which was before the first object. */
    if (syncfs(s->tmp) < 0)
        return cg_error_set(err, errno, "make the objects of %s durable", s->path);
    return 0;
}

int cg_store_dir_session_commit(struct cg_store_session *session, const char *path,
                                struct cg_error *err)
{
    struct dir_session *s = (struct dir_session *)session;
    char parent[PATH_MAX], self[64];

    snprintf(parent, sizeof parent, "%.*s", (int)(strrchr(path, '/') - path), path);
    int r = cg_dir_make(s->top, parent, CG_STORE_DIR, err);
    if (r < 0)
        return r;
    snprintf(self, sizeof self, "/proc/self/fd/%d", s->fd);
    if (linkat(AT_FDCWD, self, s->top, path, AT_SYMLINK_FOLLOW) < 0) {
        if (!has_name(s->fd))
            return revoked(s, err);
        return cg_error_set(err, errno, "create %s", path);
    }
    r = cg_dir_sync(s->top, parent, err);
    if (r < 0) {
        /* Nobody has heard of the point: without its directory on disk there is none. */
        unlinkat(s->top, path, 0);
        return r;
    }
    unlinkat(s->top, s->path, 0);
    return 0;
}

void cg_store_dir_session_end(struct cg_store_session *session)
{
    struct dir_session *s = (struct dir_session *)session;

    if (!s)
        return;
    /* What can't be removed is removed by the next session: ours is dead then. */
    if (s->tmp >= 0)
        cg_tree_remove(s->top, s->tmp_path, NULL);
    if (s->fd >= 0 && has_name(s->fd))
        unlinkat(s->top, s->path, 0);
    cg_close(&s->tmp);
    cg_close(&s->fd);
    cg_close(&s->lock);
    free(s);
}
