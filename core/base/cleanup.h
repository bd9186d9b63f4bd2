/* Scope-bound release of locals, after nbdkit's CLEANUP_* macros.  Each keeps errno.
 *
 *     CG_CLEANUP(cg_free) char *path = NULL;
 *     CG_CLEANUP(cg_close) int fd = -1;
 *     CG_LOCK(&self->lock);                 // until the end of the block
 */
#ifndef CG_BASE_CLEANUP_H
#define CG_BASE_CLEANUP_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define CG_CLEANUP(fn) __attribute__((cleanup(fn)))

static inline void cg_free(void *p)
{
    int saved = errno;
    free(*(void **)p);
    errno = saved;
}

static inline void cg_close(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    errno = saved;
}

static inline void cg_unlock_mutex(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

static inline void cg_unlock_rwlock(pthread_rwlock_t **lock)
{
    pthread_rwlock_unlock(*lock);
}

static inline pthread_mutex_t *cg_lock_mutex(pthread_mutex_t *lock)
{
    pthread_mutex_lock(lock);
    return lock;
}

static inline pthread_rwlock_t *cg_lock_shared(pthread_rwlock_t *lock)
{
    pthread_rwlock_rdlock(lock);
    return lock;
}

static inline pthread_rwlock_t *cg_lock_exclusive(pthread_rwlock_t *lock)
{
    pthread_rwlock_wrlock(lock);
    return lock;
}

#define CG_JOIN_(a, b) a##b
#define CG_JOIN(a, b) CG_JOIN_(a, b)

#define CG_LOCK(m)                                                                                 \
    __attribute__((cleanup(cg_unlock_mutex), unused)) pthread_mutex_t *CG_JOIN(                    \
        cg_lock_, __LINE__) = cg_lock_mutex(m)
#define CG_LOCK_SHARED(l)                                                                          \
    __attribute__((cleanup(cg_unlock_rwlock), unused)) pthread_rwlock_t *CG_JOIN(                  \
        cg_lock_, __LINE__) = cg_lock_shared(l)
#define CG_LOCK_EXCLUSIVE(l)                                                                       \
    __attribute__((cleanup(cg_unlock_rwlock), unused)) pthread_rwlock_t *CG_JOIN(                  \
        cg_lock_, __LINE__) = cg_lock_exclusive(l)

#endif
