/* What goes wrong in the middle: a process is killed, a call fails, something else comes in
 * between. The linker puts the hooks below before the calls of the core. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "tests/unit/volumes-pool.h"
#include "tests/unit/cmocka-all.h"

#define SIZE (256 * 1024 + 512u)
#define V "volumes/p/v"

static struct pool pool;

/* What the hooks do; 0 or NULL: nothing. */
static struct {
    unsigned kill_at_step; /* the change of a file from now on at which the process is killed */
    unsigned kill_at_sync; /* the fdatasync from now on at which the process is killed */
    unsigned fail_sync, fail_fsync, fail_fallocate; /* the call from now on that fails */
    unsigned map_syncs;                             /* fdatasyncs of a map, counted */
    bool fail_data_write;                           /* any to a data file */
    size_t data_written;                            /* bytes of pwrites to data files, counted */
    unsigned act_at;                                /* the taking of a gate before which */
    unsigned act_at_link;                           /* the linkat before which it is */
    void (*act)(void);                              /* this is done */
    bool watch_sockets;   /* a socket may be removed only while the volume is locked */
    unsigned bad_unlinks; /* those that were not */
    unsigned unlinks;
} hook;

int __real_fdatasync(int fd);
int __real_fsync(int fd);
ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);
int __real_ftruncate(int fd, off_t len);
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
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t len, off_t off);
int __wrap_ftruncate(int fd, off_t len);
int __wrap_fallocate(int fd, int mode, off_t off, off_t len);
int __wrap_unlink(const char *path);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock);

/* True if this is the call that the counter waits for. */
static bool due(unsigned *counter)
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

int __wrap_linkat(int from, const char *old, int to, const char *new, int flags)
{
    if (due(&hook.act_at_link))
        hook.act();
    return __real_linkat(from, old, to, new, flags);
}

static bool volume_is_locked(void)
{
    char path[128];

    snprintf(path, sizeof path, "%s/p/v/lock", pool.dir);
    CG_CLEANUP(cg_close) int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
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

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    if (due(&hook.act_at))
        hook.act();
    return __real_pthread_rwlock_rdlock(lock);
}

static int setup(void **state)
{
    (void)state;
    memset(&hook, 0, sizeof hook);
    pool_before_holds(step);
    pool_fail_release(0);
    pool_setup(&pool);
    pool_create(pool.space, V, SIZE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    memset(&hook, 0, sizeof hook);
    pool_teardown(&pool);
    return 0;
}

static void put(struct cg_image *image, char value, size_t len, uint64_t off)
{
    static uint8_t buf[SIZE];

    memset(buf, value, len);
    pool_write(image, buf, len, off);
}

static void expect(struct cg_image *image, char value, size_t len, uint64_t off)
{
    static uint8_t buf[SIZE];

    pool_read(image, buf, len, off);
    for (size_t i = 0; i < len; i++)
        if (buf[i] != (uint8_t)value)
            fail_msg("byte %llu is %02x, not %02x", (unsigned long long)(off + i), buf[i],
                     (uint8_t)value);
}

/* Another process does it, killed at a step (0: at the end).  False if it took fewer steps. */
static bool in_killed_process_at(unsigned at, void (*fn)(struct cg_space *space))
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

static void in_killed_process(void (*fn)(struct cg_space *space))
{
    assert_true(in_killed_process_at(0, fn));
}

/* The run directory of who begins from now on. */
static void use_run(const char *name)
{
    char path[sizeof pool.run + 8];

    snprintf(path, sizeof path, "%s/%s", pool.run, name);
    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    setenv("COWGATE_RUN", path, 1);
}

static void write_b(struct cg_space *space)
{
    put(pool_open(space, V, CG_OPEN_WRITE), 'B', 8192, 0);
}

/* Its last writer was killed: what it acknowledged is in no map file. */
static void test_overtaken_by_killed(void **state)
{
    struct cg_image *image, *reader;
    struct cg_error err;

    (void)state;
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    in_killed_process(write_b);
    assert_int_equal(cg_image_pwrite(image, "x", 1, 4096, 0, &err), -ESTALE);
    expect(image, 0, 8192, 0);
    /* A reader of the top layer makes the writer put another above it. */
    struct cg_space *second = pool_second(&pool);
    reader = pool_open(second, V, CG_OPEN_READ);
    expect(reader, 'B', 8192, 0);
    assert_int_equal(cg_image_pwrite(image, "x", 1, 4096, 0, &err), -ESTALE);
    cg_image_unref(image);
    cg_image_unref(reader);
    cg_space_free(second);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'B', 8192, 0);
    cg_image_unref(image);
}

static void write_b_cut_flush(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);
    struct cg_error err;

    put(image, 'B', 8192, 0);
    hook.kill_at_sync = 2; /* the first is the data's */
    cg_image_flush(image, &err);
}

/* Killed between the writing of the map and its fdatasync: the file reads right and isn't stable.
 */
static void test_map_written_not_synced(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    in_killed_process(write_b_cut_flush);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    assert_int_equal(cg_image_flush(image, &err), 0);
    assert_int_equal(hook.map_syncs, 1);
    cg_image_unref(image);

    pool_remove(pool.space, V);
    pool_create(pool.space, V, SIZE);
    in_killed_process(write_b_cut_flush);
    hook.map_syncs = 0;
    pool_snapshot(pool.space, V "@s");
    assert_int_equal(hook.map_syncs, 1);
}

/* The sync of the map failed: the kernel calls the pages clean, so they have to be written again.
 */
static void test_map_sync_failed(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    struct cg_error err;

    (void)state;
    put(image, 'B', 8192, 0);
    hook.fail_sync = 2;
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 'B', 8192, 0);
    hook.map_syncs = 0;
    assert_int_equal(cg_image_flush(image, &err), 0);
    assert_int_equal(hook.map_syncs, 1);
    cg_image_unref(image);
}

static void write_b_cut_data_sync(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);
    struct cg_error err;

    put(image, 'B', 8192, 0);
    cg_image_flush(image, &err);
    put(image, 'C', 512, 4096);
    hook.kill_at_sync = 1;
    cg_image_flush(image, &err);
}

/* Killed within the sync of the data, which may have failed: the kernel tells that nobody else.
 * What was written since the one before is written again, and nothing else is. */
static void test_data_sync_unknown(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    for (int killed_in_sync = 0; killed_in_sync < 2; killed_in_sync++) {
        in_killed_process(killed_in_sync ? write_b_cut_data_sync : write_b);
        hook.data_written = 0;
        image = pool_open(pool.space, V, CG_OPEN_WRITE);
        assert_int_equal(cg_image_flush(image, &err), 0);
        assert_int_equal(hook.data_written, killed_in_sync ? 8192 : 0);
        expect(image, 'B', 4096, 0);
        expect(image, killed_in_sync ? 'C' : 'B', 512, 4096);
        cg_image_unref(image);
        pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
    }
}

/* What's to be written again can't be: the volume takes no writes, and loses nothing by that. */
static void test_rewrite_fails(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    in_killed_process(write_b_cut_data_sync);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    hook.fail_data_write = true;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -EIO);
    expect(image, 'B', 4096, 0);
    cg_image_unref(image);
    hook.data_written = 0;
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    assert_int_equal(cg_image_flush(image, &err), 0);
    assert_int_equal(hook.data_written, 8192);
    expect(image, 'C', 512, 4096);
    cg_image_unref(image);
}

/* No room for the working map: the writer doesn't become one, and stands in nobody's way. */
static void test_begin_without_room(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE), *reader;
    struct cg_space *second = pool_second(&pool);
    struct cg_error err;

    (void)state;
    alarm(120);
    hook.fail_fallocate = 1;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -ENOSPC);
    pool_snapshot(second, V "@s");
    reader = pool_open(second, V, CG_OPEN_READ);
    expect(reader, 0, SIZE, 0);
    cg_image_unref(reader);
    put(image, 'A', 512, 0);
    cg_image_unref(image);
    cg_space_free(second);
    alarm(0);
}

/* Who fails to begin leaves the path of the socket to its successor. */
static void test_begin_fails_late(void **state)
{
    struct cg_space *second = pool_second(&pool);
    struct cg_image *reader = pool_open(second, V, CG_OPEN_READ);
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    struct cg_error err;

    (void)state;
    hook.fail_fsync = 1; /* of the new top layer, which the reader makes necessary */
    hook.watch_sockets = true;
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -EIO);
    hook.watch_sockets = false;
    assert_true(hook.unlinks > 0);
    assert_int_equal(hook.bad_unlinks, 0);
    put(image, 'A', 512, 0);
    cg_image_unref(image);
    cg_image_unref(reader);
    cg_space_free(second);
}

/* The volume grows, and somebody writes behind its old end. */
static void grow(void)
{
    struct cg_name v = pool_name(V);
    struct cg_error err;

    assert_int_equal(cg_space_resize(pool.space, &v, SIZE + 8192, &err), 0);
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 'K', 512, SIZE);
    cg_image_unref(image);
}

static void zero_beside_growth(bool trim, unsigned act_at)
{
    struct cg_image *image;
    struct cg_error err;

    pool_create(pool.space, V, SIZE);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 'A', SIZE, 0);
    hook.act = grow;
    hook.act_at = act_at;
    int r = trim ? cg_image_trim(image, 8192 + 512, SIZE - 8192 - 512, 0, &err)
                 : cg_image_zero(image, 8192 + 512, SIZE - 8192 - 512, 0, &err);
    assert_int_equal(r, 0);
    if (hook.act_at) { /* not so many calls */
        hook.act_at = 0;
        grow();
    }
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'A', 4096, 0);
    if (!trim)
        expect(image, 0, 512, SIZE - 512);
    expect(image, 'K', 512, SIZE);
    cg_image_unref(image);
    pool_remove(pool.space, V);
}

static void test_zero_beside_growth(void **state)
{
    (void)state;
    pool_remove(pool.space, V);
    for (unsigned at = 1; at < 6; at++) {
        zero_beside_growth(false, at);
        zero_beside_growth(true, at);
    }
}

static void write_and_end(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);

    put(image, 'B', 512, 4096);
    cg_image_unref(image);
}

static void write_beside_reader(struct cg_space *space)
{
    struct cg_image *reader = pool_open(space, V, CG_OPEN_READ);

    write_and_end(pool_second(&pool));
    cg_image_unref(reader);
}

static void make_snapshot(struct cg_space *space)
{
    struct cg_name s = pool_name(V "@s");
    struct cg_error err;

    if (cg_space_snapshot(space, &s, 1, &err) < 0)
        abort();
}

static void in_each_run(const char *const *runs, char value)
{
    for (; *runs; runs++) {
        use_run(*runs);
        struct cg_image *image = pool_open(pool.space, V, CG_OPEN_READ);
        expect(image, 'B', 8192, 0);
        expect(image, value, 4096, 16384);
        cg_image_unref(image);
    }
}

/* One is killed; its successor, with another run directory, is killed at any step; whoever comes
 * then, with a third, has all of it, and so has everybody after that. */
static void test_successor_killed(void **state)
{
    static void (*const successors[])(struct cg_space *) = { write_and_end, write_beside_reader,
                                                             make_snapshot };
    static const char *const runs[] = { "c", "b", "a", NULL };

    (void)state;
    unsigned stride = getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND") ? 7 : 1;
    for (size_t i = 0; i < 3; i++) {
        bool killed = true;
        for (unsigned at = 1; killed; at += stride) {
            pool_remove(pool.space, V);
            pool_create(pool.space, V, SIZE);
            use_run("a");
            in_killed_process(write_b);
            use_run("b");
            killed = in_killed_process_at(at, successors[i]);
            in_each_run(runs, 0);
            use_run("c");
            struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
            put(image, 'Z', 4096, 16384);
            expect(image, 'B', 8192, 0);
            cg_image_unref(image);
            in_each_run(runs, 'Z');
            struct cg_name s = pool_name(V "@s");
            cg_space_remove(pool.space, &s, 0, NULL);
        }
    }
}

static void expect_lost(void)
{
    struct cg_name v = pool_name(V), s = pool_name(V "@s");
    struct cg_image *image;
    struct cg_error err;

    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_READ, &image, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
    assert_int_equal(cg_space_snapshot(pool.space, &s, 1, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
}

/* What was acknowledged and not flushed is gone: nobody goes on as if it had never been. */
static void test_run_directory_gone(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    char a[sizeof pool.run + 8], moved[sizeof pool.run + 8], lock[128];
    struct cg_error err;

    (void)state;
    use_run("a");
    in_killed_process(write_b);
    use_run("b");
    snprintf(a, sizeof a, "%s/a", pool.run);
    snprintf(moved, sizeof moved, "%s/moved", pool.run);
    assert_int_equal(rename(a, moved), 0);
    expect_lost();
    assert_int_equal(cg_image_pwrite(image, "x", 1, 4096, 0, &err), -EIO);
    assert_non_null(strstr(err.message, "`lock`"));
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    cg_image_unref(image);
    assert_int_equal(rename(moved, a), 0);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'B', 8192, 0);
    cg_image_unref(image);

    assert_int_equal(cg_tree_remove(AT_FDCWD, a, &err), 0);
    assert_int_equal(mkdir(a, 0700), 0);
    expect_lost();
    snprintf(lock, sizeof lock, "%s/p/v/lock", pool.dir);
    assert_int_equal(unlink(lock), 0);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 0, 8192, 0);
    put(image, 'C', 512, 0);
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 'C', 512, 0);
    cg_image_unref(image);
}

static void test_lock_damaged(void **state)
{
    char lock[128];

    (void)state;
    snprintf(lock, sizeof lock, "%s/p/v/lock", pool.dir);
    CG_CLEANUP(cg_close) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(pwrite(fd, "{\"pid\":12,\"boot\":\"", 19, 0), 19);
    expect_lost();
    assert_int_equal(ftruncate(fd, 0), 0);
    cg_image_unref(pool_open(pool.space, V, CG_OPEN_READ));
}

static void test_run_directory_relative(void **state)
{
    char ret[PATH_MAX];
    struct cg_error err;

    (void)state;
    setenv("COWGATE_RUN", "run", 1);
    assert_int_equal(cg_run_dir(ret, sizeof ret, &err), -EINVAL);
    setenv("COWGATE_RUN", pool.run, 1);
}

static void roll_back(void)
{
    struct cg_name s = pool_name(V "@s");
    struct cg_error err;

    assert_int_equal(cg_space_rollback(pool.space, &s, &err), 0);
}

/* The layers go while the clone is linking them: it takes those that are the volume's then. */
static void test_clone_beside_rollback(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);

    (void)state;
    put(image, 'A', 4096, 0);
    cg_image_unref(image);
    pool_snapshot(pool.space, V "@s");
    for (hook.act_at_link = 1; hook.act_at_link < 6; hook.act_at_link++) {
        unsigned at = hook.act_at_link;
        image = pool_open(pool.space, V, CG_OPEN_WRITE);
        put(image, 'B', 4096, 0);
        cg_image_unref(image);
        hook.act = roll_back;
        pool_clone(pool.space, V, "volumes/p/c");
        bool rolled = hook.act_at_link == 0;
        hook.act_at_link = at;
        image = pool_open(pool.space, "volumes/p/c", CG_OPEN_READ);
        uint8_t first;
        pool_read(image, &first, 1, 0);
        assert_true(first == 'B' || (rolled && first == 'A'));
        expect(image, (char)first, 4096, 0);
        cg_image_unref(image);
        pool_remove(pool.space, "volumes/p/c");
    }
}

/* Two snapshots of the same moment are two. */
static void test_snapshot_ids(void **state)
{
    struct cg_name a = pool_name(V "@a"), b = pool_name(V "@b");
    struct cg_identity first, second, again;
    struct cg_error err;

    (void)state;
    pool_snapshot(pool.space, V "@a");
    assert_int_equal(cg_space_identify(pool.space, &a, &first, &err), 0);
    pool_snapshot(pool.space, V "@b");
    assert_int_equal(cg_space_identify(pool.space, &b, &second, &err), 0);
    assert_int_equal(cg_space_identify(pool.space, &a, &again, &err), 0);
    assert_string_not_equal(first.snapshot, second.snapshot);
    assert_string_equal(first.snapshot, again.snapshot);
}

#define C "volumes/p/c"

static uint8_t parent[SIZE];

/* A clone of a parent of 'P's, which is written from its second block on. */
static void make_clone(void)
{
    struct cg_image *image;

    memset(parent, 'P', sizeof parent);
    pool_set_parent(parent, sizeof parent);
    pool_clone(pool.space, POOL_PARENT, C);
    image = pool_open(pool.space, C, CG_OPEN_WRITE);
    put(image, 'W', 8192, 4096);
    cg_image_unref(image);
}

static void expect_clone(void)
{
    struct cg_image *image = pool_open(pool.space, C, CG_OPEN_READ);

    expect(image, 'P', 4096, 0);
    expect(image, 'W', 8192, 4096);
    expect(image, 'P', SIZE - 12288, 12288);
    cg_image_unref(image);
}

static bool stands_on_parent(void)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;
    json_t *info;

    if (cg_space_info(pool.space, &c, &info, &err) < 0)
        return false;
    bool stands = !json_is_null(json_object_get(info, "parent"));
    json_decref(info);
    return stands;
}

static void flatten_c(struct cg_space *space)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;

    if (cg_space_flatten(space, &c, NULL, NULL, &err) < 0)
        fail_msg("flatten: %s", err.message);
}

static bool held_while_writing;

static void write_c(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, C, CG_OPEN_WRITE);

    put(image, 'W', 512, 4096);
    held_while_writing = *pool_held();
    cg_image_unref(image);
}

static void snapshot_c(struct cg_space *space)
{
    pool_snapshot(space, C "@s");
    pool_remove(space, C "@s");
}

/* Killed at any step of a flatten: the parent is held as long as the volume stands on it, and is
 * let go of by whatever changes the volume next. */
static void test_flatten_killed(void **state)
{
    static void (*const next[])(struct cg_space *) = { write_c, snapshot_c, flatten_c };
    bool killed = true;

    (void)state;
    for (unsigned at = 1; killed; at++) {
        make_clone();
        killed = in_killed_process_at(at, flatten_c);
        bool stands = stands_on_parent();
        if (stands)
            assert_string_not_equal(pool_held(), "");
        else
            memset(parent, 'x', sizeof parent);
        expect_clone();
        next[at % 3](pool.space);
        if (at % 3 == 0)
            assert_int_equal(held_while_writing, stands);
        if (stands && at % 3 < 2)
            assert_string_not_equal(pool_held(), "");
        else
            assert_string_equal(pool_held(), "");
        expect_clone();
        pool_remove(pool.space, C);
        assert_string_equal(pool_held(), "");
    }
}

static void remove_c(struct cg_space *space)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;
    int r = cg_space_remove(space, &c, 0, &err);

    if (r < 0 && r != -ENOENT)
        fail_msg("remove: %s", err.message);
}

static void create_elsewhere(struct cg_space *space)
{
    pool_create(space, "volumes/q/x", SIZE);
    pool_remove(space, "volumes/q/x");
}

/* Killed at any step of a deletion, of a clone whose parent is its own or, killed before, still to
 * be released: whatever is created or deleted next lets go of it. */
static void test_remove_killed(void **state)
{
    (void)state;
    for (int flat = 0; flat < 2; flat++) {
        bool killed = true;
        for (unsigned at = 1; killed; at++) {
            struct cg_name c = pool_name(C);
            struct cg_error err;
            json_t *info;
            make_clone();
            pool_fail_release(flat ? EIO : 0);
            if (flat)
                assert_int_equal(cg_space_flatten(pool.space, &c, NULL, NULL, &err), -EIO);
            pool_fail_release(0);
            killed = in_killed_process_at(at, remove_c);
            if (cg_space_info(pool.space, &c, &info, &err) == 0) {
                json_decref(info);
                assert_string_not_equal(pool_held(), "");
                remove_c(pool.space);
            } else if (at % 2) {
                remove_c(pool.space);
            } else {
                create_elsewhere(pool.space);
            }
            assert_string_equal(pool_held(), "");
        }
    }
}

/* What can't be read doesn't say that there is nothing to release. */
static void test_remove_unreachable(void **state)
{
    struct cg_name c = pool_name(C);
    struct cg_error err;

    (void)state;
    make_clone();
    pool_fail_release(EHOSTUNREACH);
    assert_int_equal(cg_space_remove(pool.space, &c, 0, &err), -EHOSTUNREACH);
    create_elsewhere(pool.space);
    assert_string_not_equal(pool_held(), "");
    pool_fail_release(0);
    create_elsewhere(pool.space);
    assert_string_equal(pool_held(), "");
}

/* Somebody reads through the parent while the volume lets go of it: it's held until then. */
static void test_flatten_beside_reader(void **state)
{
    struct cg_space *second = pool_second(&pool);
    struct cg_image *reader;

    (void)state;
    make_clone();
    reader = pool_open(second, C, CG_OPEN_READ);
    flatten_c(pool.space);
    assert_false(stands_on_parent());
    assert_string_not_equal(pool_held(), "");
    write_c(pool.space);
    assert_string_not_equal(pool_held(), "");
    expect(reader, 'P', 4096, 0);
    cg_image_unref(reader);
    reader = pool_open(second, C, CG_OPEN_READ); /* who comes later doesn't need it */
    snapshot_c(pool.space);
    assert_string_equal(pool_held(), "");
    memset(parent, 'x', sizeof parent);
    expect(reader, 'P', 4096, 0);
    cg_image_unref(reader);
    cg_space_free(second);
    expect_clone();
}

/* A parent that has another size than the clone was made with, larger or smaller. */
static void test_parent_resized(void **state)
{
    static const size_t sizes[] = { SIZE - 512, SIZE - 65536 };
    struct cg_name c = pool_name(C);
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    memset(parent, 'P', sizeof parent);
    pool_set_parent(parent, SIZE - 4096);
    pool_clone(pool.space, POOL_PARENT, C);
    for (size_t i = 0; i < 2; i++) {
        char size[32];
        pool_set_parent(parent, sizes[i]);
        assert_int_equal(cg_space_open(pool.space, &c, CG_OPEN_READ, &image, &err), -ESTALE);
        snprintf(size, sizeof size, "has %zu bytes", sizes[i]);
        assert_non_null(strstr(err.message, size));
        assert_non_null(strstr(err.message, POOL_PARENT));
        assert_int_equal(cg_space_flatten(pool.space, &c, NULL, NULL, &err), -ESTALE);
    }
    pool_set_parent(parent, SIZE - 4096);
    cg_image_unref(pool_open(pool.space, C, CG_OPEN_READ));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_overtaken_by_killed), TEST(test_map_written_not_synced),
        TEST(test_map_sync_failed),     TEST(test_begin_without_room),
        TEST(test_successor_killed),    TEST(test_run_directory_gone),
        TEST(test_lock_damaged),        TEST(test_run_directory_relative),
        TEST(test_snapshot_ids),        TEST(test_clone_beside_rollback),
        TEST(test_flatten_killed),      TEST(test_remove_killed),
        TEST(test_remove_unreachable),  TEST(test_flatten_beside_reader),
        TEST(test_parent_resized),      TEST(test_data_sync_unknown),
        TEST(test_rewrite_fails),       TEST(test_begin_fails_late),
        TEST(test_zero_beside_growth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
