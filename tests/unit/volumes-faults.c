#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

struct faults hook;

int __real_fdatasync(int fd);
int __real_fsync(int fd);
ssize_t __real_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);
int __real_ftruncate(int fd, off_t len);
int __real_flock(int fd, int operation);
int __real_fstatvfs(int fd, struct statvfs *st);
int __wrap_fstatvfs(int fd, struct statvfs *st);
int __wrap_flock(int fd, int operation);
int __real_linkat(int from, const char *old, int to, const char *new, int flags);
int __wrap_linkat(int from, const char *old, int to, const char *new, int flags);
int __real_fallocate(int fd, int mode, off_t off, off_t len);
int __real_unlink(const char *path);
int __real_renameat(int from, const char *path, int to, const char *name);
int __wrap_renameat(int from, const char *path, int to, const char *name);
int __real_renameat2(int from, const char *path, int to, const char *name, unsigned flags);
int __wrap_renameat2(int from, const char *path, int to, const char *name, unsigned flags);
int __real_unlinkat(int dirfd, const char *path, int flags);
int __wrap_unlinkat(int dirfd, const char *path, int flags);
int __real_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
ssize_t __real_send(int fd, const void *buf, size_t len, int flags);
ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off);
int __wrap_ftruncate(int fd, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_unlink(const char *path);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock);

/* True if this is the call that the counter waits for. */
static bool due(_Atomic unsigned *counter)
{
    return *counter && --*counter == 0;
}

static void step(void)
{
    if (due(&hook.kill_at_step))
        raise(SIGKILL);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_file(int fd, const char *end)
{
    char link[64], path[PATH_MAX] = "";

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && ends_with(path, end);
}

ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off)
{
    if (is_file(fd, ".data") && atomic_exchange(&hook.hold_data_read, false)) {
        hook.data_read_held = true;
        while (!hook.data_read_let_go)
            usleep(1000);
    }
    return __real_pread(fd, buf, len, off);
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    step();
    if (is_file(fd, ".data")) {
        if (hook.fail_data_write) {
            errno = ENOSPC;
            return -1;
        }
        hook.data_written += len;
    }
    if (is_file(fd, ".map"))
        hook.map_written += len;
    return __real_pwrite(fd, buf, len, off);
}

int __wrap_ftruncate(int fd, off_t len)
{
    step();
    return __real_ftruncate(fd, len);
}

int __wrap_fdatasync(int fd)
{
    step();
    if (due(&hook.act_at_sync))
        hook.act();
    if (due(&hook.kill_at_sync))
        raise(SIGKILL);
    if (due(&hook.fail_sync)) {
        errno = EIO;
        return -1;
    }
    if (is_file(fd, ".map"))
        hook.map_syncs++;
    return __real_fdatasync(fd);
}

int __wrap_fsync(int fd)
{
    step();
    if (due(&hook.fail_fsync)) {
        errno = EIO;
        return -1;
    }
    return __real_fsync(fd);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t len)
{
    step();
    if (due(&hook.fail_fallocate)) {
        errno = ENOSPC;
        return -1;
    }
    return __real_fallocate(fd, mode, off, len);
}

int __wrap_flock(int fd, int operation)
{
    if (due(&hook.act_at_flock))
        hook.act();
    return __real_flock(fd, operation);
}

int __wrap_fstatvfs(int fd, struct statvfs *st)
{
    int r = __real_fstatvfs(fd, st);

    if (due(&hook.full_at))
        st->f_bavail = 0;
    return r;
}

int __wrap_linkat(int from, const char *old, int to, const char *new, int flags)
{
    if (due(&hook.act_at_link))
        hook.act();
    return __real_linkat(from, old, to, new, flags);
}

bool volume_is_locked(void)
{
    char path[128];

    snprintf(path, sizeof path, "%s/p/v/lock", pool.dir);
    CG_CLEANUP(cg_close) int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 && __real_flock(fd, LOCK_EX | LOCK_NB) < 0;
}

int __wrap_unlink(const char *path)
{
    step();
    if (hook.watch_sockets && ends_with(path, ".sock")) {
        hook.unlinks++;
        hook.bad_unlinks += !volume_is_locked();
    }
    return __real_unlink(path);
}

int __wrap_renameat(int from, const char *path, int to, const char *name)
{
    step();
    return __real_renameat(from, path, to, name);
}

int __wrap_renameat2(int from, const char *path, int to, const char *name, unsigned flags)
{
    step();
    return __real_renameat2(from, path, to, name, flags);
}

int __wrap_unlinkat(int dirfd, const char *path, int flags)
{
    step();
    return __real_unlinkat(dirfd, path, flags);
}

ssize_t __wrap_send(int fd, const void *buf, size_t len, int flags)
{
    if (!(flags & MSG_DONTWAIT)) /* not what only says that somebody is at work */
        step();
    return __real_send(fd, buf, len, flags);
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    if (due(&hook.act_at))
        hook.act();
    return __real_pthread_rwlock_rdlock(lock);
}

int faults_setup(void **state)
{
    memset(&hook, 0, sizeof hook);
    pool_before_holds(step);
    pool_fail_release(0);
    one_pool_setup(state);
    pool_create(pool.space, V, SIZE);
    return 0;
}

int faults_teardown(void **state)
{
    memset(&hook, 0, sizeof hook);
    return one_pool_teardown(state);
}

bool in_killed_process_at(unsigned at, void (*fn)(struct cg_space *space))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        hook.kill_at_step = at;
        fn(pool_second(&pool));
        raise(at ? SIGTERM : SIGKILL); /* no exit: what it has isn't a leak */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    if (WTERMSIG(status) == SIGTERM)
        return false;
    assert_int_equal(WTERMSIG(status), SIGKILL);
    return true;
}

void in_killed_process(void (*fn)(struct cg_space *space))
{
    assert_true(in_killed_process_at(0, fn));
}

void write_and_end(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);

    put(image, 'B', 512, 4096);
    cg_image_unref(image);
}
