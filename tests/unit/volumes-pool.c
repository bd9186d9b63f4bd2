#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/files.h"
#include "core/volumes/volumes.h"
#include "tests/unit/volumes-pool.h"
#include "tests/unit/cmocka-all.h"

static const uint8_t *parent_bytes;
static uint64_t parent_length;
static char *held; /* CG_UUID_LEN + 1 bytes that child processes share */
static int hold_errnum, release_errnum;
static void (*step)(void), (*before_open)(void);

struct memory {
    int unused;
};

static int memory_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    (void)self;
    (void)err;
    memcpy(buf, parent_bytes + off, len);
    return 0;
}

static uint64_t memory_size(void *self)
{
    (void)self;
    return parent_length;
}

static void memory_close(void *self)
{
    free(self);
}

static const struct cg_image_ops memory_ops = {
    .name = "memory", .pread = memory_pread, .size = memory_size, .close = memory_close
};

static int parents_resolve(void *opaque, const char *text, char ret_ref[static CG_NAME_MAX],
                           char ret_identity[static CG_NAME_MAX], struct cg_error *err)
{
    (void)opaque;
    if (strcmp(text, POOL_PARENT) != 0)
        return cg_error_say(err, ENOENT, "there is no %s", text);
    snprintf(ret_ref, CG_NAME_MAX, "%s", text);
    snprintf(ret_identity, CG_NAME_MAX, "1");
    return 0;
}

static int parents_open(void *opaque, const char *ref, const char *identity,
                        struct cg_image **ret_image, struct cg_error *err)
{
    (void)opaque;
    if (before_open)
        before_open();
    if (strcmp(ref, POOL_PARENT) != 0 || strcmp(identity, "1") != 0)
        return cg_error_say(err, ESTALE, "%s has changed", ref);
    *ret_image = cg_image_new(&memory_ops, malloc(sizeof(struct memory)), true);
    return 0;
}

static int parents_hold(void *opaque, const char *ref, const char *identity, const char *uuid,
                        struct cg_error *err)
{
    (void)opaque, (void)identity;
    if (hold_errnum)
        return cg_error_set(err, hold_errnum, "hold %s", ref);
    if (step)
        step();
    snprintf(held, CG_UUID_LEN + 1, "%s", uuid);
    return 0;
}

static int parents_release(void *opaque, const char *ref, const char *identity, const char *uuid,
                           struct cg_error *err)
{
    (void)opaque;
    if (strcmp(identity, "1") != 0)
        return cg_error_say(err, EINVAL, "release %s: that isn't what was held", ref);
    if (release_errnum)
        return cg_error_set(err, release_errnum, "release %s", ref);
    if (step)
        step();
    if (strcmp(held, uuid) == 0)
        held[0] = '\0';
    return 0;
}

static const struct cg_parents parents = { NULL, parents_resolve, parents_open, parents_hold,
                                           parents_release };

void pool_set_parent(const void *bytes, uint64_t size)
{
    parent_bytes = bytes;
    parent_length = size;
}

const char *pool_held(void)
{
    return held;
}

void pool_fail_hold(int errnum)
{
    hold_errnum = errnum;
}

void pool_fail_release(int errnum)
{
    release_errnum = errnum;
}

void pool_before_opens(void (*fn)(void))
{
    before_open = fn;
}

void pool_before_holds(void (*fn)(void))
{
    step = fn;
}

static void check(int r, const char *what, const struct cg_error *err)
{
    if (r < 0)
        fail_msg("%s: %s (%d)", what, err->message, r);
}

struct cg_space *pool_second(struct pool *pool)
{
    struct cg_space *space = NULL;
    struct cg_error err;

    check(cg_volumes_open(pool->dir, &parents, &space, &err), "open the pool", &err);
    return space;
}

void pool_setup(struct pool *pool)
{
    snprintf(pool->dir, sizeof pool->dir, "/tmp/cowgate-unit.XXXXXX");
    snprintf(pool->run, sizeof pool->run, "/dev/shm/cowgate-unit.XXXXXX");
    assert_non_null(mkdtemp(pool->dir));
    assert_non_null(mkdtemp(pool->run));
    setenv("COWGATE_RUN", pool->run, 1);
    if (!held)
        held =
            mmap(NULL, CG_UUID_LEN + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(held != MAP_FAILED);
    held[0] = '\0';
    pool->space = pool_second(pool);
}

void pool_reopen(struct pool *pool)
{
    cg_space_free(pool->space);
    pool->space = pool_second(pool);
}

void pool_reboot(struct pool *pool)
{
    static const char key[] = "\"boot\":\"";
    char pattern[128], record[512];
    struct cg_error err;
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/*/*/lock", pool->dir);
    int r = glob(pattern, 0, NULL, &found);
    assert_true(r == 0 || r == GLOB_NOMATCH);
    for (size_t i = 0; r == 0 && i < found.gl_pathc; i++) {
        int fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        if (cg_pread_full(fd, record, sizeof record, 0) == 0) {
            char *boot = memmem(record, sizeof record, key, strlen(key));
            assert_non_null(boot);
            assert_int_equal(
                cg_pwrite_full(fd, "ffffffff", 8, (uint64_t)(boot + strlen(key) - record)), 0);
        }
        close(fd);
    }
    globfree(&found);

    check(cg_tree_remove(AT_FDCWD, pool->run, &err), "empty the run directory", &err);
    assert_int_equal(mkdir(pool->run, 0700), 0);
}

void pool_move_to_tmpfs(struct pool *pool)
{
    assert_int_equal(rmdir(pool->dir), 0);
    snprintf(pool->dir, sizeof pool->dir, "%.50s.pool", pool->run);
}

void pool_teardown(struct pool *pool)
{
    struct cg_error err;

    cg_space_free(pool->space);
    check(cg_tree_remove(AT_FDCWD, pool->run, &err), "clean up", &err);
    check(cg_tree_remove(AT_FDCWD, pool->dir, &err), "clean up", &err);
}

struct cg_name pool_name(const char *text)
{
    struct cg_name name;
    struct cg_error err;

    check(cg_name_parse(text, &name, &err), text, &err);
    return name;
}

void pool_create(struct cg_space *space, const char *text, uint64_t size)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;

    check(cg_space_create(space, &name, size, size, &err), "create", &err);
}

struct cg_image *pool_open(struct cg_space *space, const char *text, unsigned flags)
{
    struct cg_name name = pool_name(text);
    struct cg_image *image = NULL;
    struct cg_error err;

    check(cg_space_open(space, &name, flags, &image, &err), "open", &err);
    return image;
}

void pool_snapshot(struct cg_space *space, const char *text)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;

    check(cg_space_snapshot(space, &name, 1, &err), "snapshot", &err);
}

void pool_clone(struct cg_space *space, const char *parent, const char *text)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;

    check(cg_space_clone(space, parent, &name, &err), "clone", &err);
}

void pool_remove(struct cg_space *space, const char *text)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;

    check(cg_space_remove(space, &name, 0, &err), "remove", &err);
}

void pool_write(struct cg_image *image, const void *buf, size_t len, uint64_t off)
{
    struct cg_error err;

    check(cg_image_pwrite(image, buf, len, off, 0, &err), "write", &err);
}

void pool_read(struct cg_image *image, void *buf, size_t len, uint64_t off)
{
    struct cg_error err;

    check(cg_image_pread(image, buf, len, off, &err), "read", &err);
}

static int check_extent(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    const uint8_t *want = opaque;

    (void)err;
    if (e->type != CG_DATA && !cg_is_zero(want + e->off, e->len))
        fail_msg("a hole of %llu bytes at %llu does not read as zeros", (unsigned long long)e->len,
                 (unsigned long long)e->off);
    return 0;
}

int pool_cancel(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    (void)done;
    (void)total;
    return 1;
}

void pool_same(struct cg_image *image, const uint8_t *want, uint64_t size)
{
    uint8_t *have = malloc(size);
    struct cg_error err;

    assert_int_equal(cg_image_size(image), size);
    pool_read(image, have, size, 0);
    for (uint64_t i = 0; i < size; i++)
        if (have[i] != want[i])
            fail_msg("byte %llu is %02x, not %02x", (unsigned long long)i, have[i], want[i]);
    check(cg_image_walk(image, 0, size, check_extent, (void *)want, &err), "extents", &err);
    free(have);
}
