/* Several processes on one volume: a writer that is killed, readers beside a writer, changes asked
 * of a writer.  Each child talks to the test through pipes, so nothing depends on time. */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "tests/unit/one-pool.h"
#include "tests/unit/cmocka-all.h"

#define SIZE (300 * 1024 + 512u)
#define V "volumes/p/v"

/* A child that does what it's told by single letters and answers with one. */
struct child {
    pid_t pid;
    int tell, hear;
};

typedef void child_fn(char order, struct cg_image **image);

static struct child start(child_fn *fn)
{
    int down[2], up[2];
    struct child c;

    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    c.pid = fork();
    if (c.pid == 0) {
        struct cg_image *image = NULL;
        char order;
        close(down[1]);
        close(up[0]);
        static struct cg_space *inherited; /* what it has open is the test's business */
        inherited = pool.space;
        pool.space = pool_second(&pool);
        assert_ptr_not_equal(inherited, pool.space);
        while (read(down[0], &order, 1) == 1) {
            fn(order, &image);
            if (write(up[1], &order, 1) != 1)
                break;
        }
        cg_image_unref(image);
        cg_space_free(pool.space);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    c.tell = down[1];
    c.hear = up[0];
    return c;
}

static void order(struct child *c, char what)
{
    char back = 0;

    assert_int_equal(write(c->tell, &what, 1), 1);
    assert_int_equal(read(c->hear, &back, 1), 1);
    assert_int_equal(back, what);
}

static void end(struct child *c, int signal)
{
    int status;

    if (signal)
        kill(c->pid, signal);
    close(c->tell);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    close(c->hear);
    if (!signal)
        assert_int_equal(status, 0);
}

static void writer(char what, struct cg_image **image)
{
    struct cg_error err;

    if (!*image)
        *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    switch (what) {
    case '1': /* odd, aligned, a trim, an overwrite: nothing is flushed */
        put(*image, 1, 10000, 300);
        put(*image, 2, 4096, 40960);
        put(*image, 3, 65536, 65536);
        assert_int_equal(cg_image_trim(*image, 8192, 65536, 0, &err), 0);
        put(*image, 4, 512, 41000);
        break;
    case '2':
        put(*image, 5, 5000, 2000);
        break;
    case 'f':
        assert_int_equal(cg_image_flush(*image, &err), 0);
        break;
    case 'c':
        cg_image_unref(*image);
        *image = NULL;
        break;
    default:
        break;
    }
}

static void expect_1(struct cg_image *image)
{
    expect(image, 0, 300, 0);
    expect(image, 1, 10000, 300);
    expect(image, 0, 10000, 10300);
    expect(image, 2, 40, 40960);
    expect(image, 4, 512, 41000);
    expect(image, 2, 4096 - 552, 41512);
    expect(image, 0, 8192, 65536);
    expect(image, 3, 65536 - 8192, 65536 + 8192);
    expect(image, 0, SIZE - 131072, 131072);
}

static void test_killed(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, V, SIZE);
    struct child c = start(writer);
    order(&c, '1');
    end(&c, SIGKILL);
    /* A reader first: it changes nothing, and sees all. */
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect_1(image);
    cg_image_unref(image);
    c = start(writer); /* goes on, is killed again */
    order(&c, '2');
    end(&c, SIGKILL);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 1, 1700, 300);
    expect(image, 5, 5000, 2000);
    expect(image, 4, 512, 41000);
    /* A client's flush makes durable what the dead one acknowledged, without a write of its own. */
    assert_int_equal(cg_image_flush(image, &err), 0);
    cg_image_unref(image);
    pool_reopen(&pool);
    pool_reboot(&pool);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 5, 5000, 2000);
    expect(image, 2, 40, 40960);
    expect(image, 0, 8192, 65536);
    cg_image_unref(image);
}

/* Without the writer's working map being found where this process would have it. */
static void test_killed_elsewhere(void **state)
{
    char other[sizeof pool.run + 8];
    struct cg_image *image;

    (void)state;
    pool_create(pool.space, V, SIZE);
    struct child c = start(writer);
    order(&c, '1');
    end(&c, SIGKILL);
    snprintf(other, sizeof other, "%s/other", pool.run);
    assert_int_equal(mkdir(other, 0700), 0);
    setenv("COWGATE_RUN", other, 1);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect_1(image);
    put(image, 6, 1, 0);
    cg_image_unref(image);
    setenv("COWGATE_RUN", pool.run, 1);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect(image, 6, 1, 0);
    expect(image, 1, 10000, 300);
    cg_image_unref(image);
}

static void test_snapshot_of_killed(void **state)
{
    struct cg_image *image;

    (void)state;
    pool_create(pool.space, V, SIZE);
    struct child c = start(writer);
    order(&c, '1');
    end(&c, SIGKILL);
    pool_snapshot(pool.space, V "@s");
    pool_clone(pool.space, V, "volumes/p/c");
    pool_reboot(&pool);
    image = pool_open(pool.space, V "@s", CG_OPEN_READ);
    expect_1(image);
    cg_image_unref(image);
    image = pool_open(pool.space, "volumes/p/c", CG_OPEN_READ);
    expect_1(image);
    cg_image_unref(image);
}

/* All handles of a process show one moment. */
static void test_reader(void **state)
{
    struct cg_image *first, *second, *other;

    (void)state;
    pool_create(pool.space, V, SIZE);
    struct child c = start(writer);
    order(&c, '1');
    first = pool_open(pool.space, V, CG_OPEN_READ);
    expect_1(first);
    order(&c, '2');
    expect_1(first); /* the moment it was opened */
    second = pool_open(pool.space, V, CG_OPEN_READ);
    expect_1(second); /* and the same */
    cg_image_unref(first);
    first = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect_1(first);
    struct cg_space *process = pool_second(&pool);
    other = pool_open(process, V, CG_OPEN_READ);
    expect(other, 5, 5000, 2000);
    order(&c, '1');
    expect(other, 5, 5000, 2000);
    cg_image_unref(other);
    cg_space_free(process);
    order(&c, 'c'); /* an orderly end beside readers */
    expect_1(first);
    expect_1(second);
    cg_image_unref(first);
    cg_image_unref(second);
    end(&c, 0);
}

/* Beside a reader of an earlier moment nobody of its process gets to write what it doesn't show. */
static void test_earlier_reader(void **state)
{
    struct cg_name v = pool_name(V);
    struct cg_image *reader, *image;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, V, SIZE);
    struct child c = start(writer);
    order(&c, '1');
    reader = pool_open(pool.space, V, CG_OPEN_READ);
    order(&c, '2');
    end(&c, 0);
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_WRITE, &image, &err), -EBUSY);
    assert_non_null(strstr(err.message, "still open here"));
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &image, &err),
                     -EBUSY);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    expect_1(image);
    cg_image_unref(image);
    expect_1(reader);
    cg_image_unref(reader);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 5, 5000, 2000);
    put(image, 7, 512, 0);
    cg_image_unref(image);
}

/* A snapshot and a flatten by others change nothing that a reader shows: who opens for writing
 * shares with it, and then both see what is written. */
static void test_same_moment(void **state)
{
    static uint8_t parent[SIZE];
    struct cg_name v = pool_name(V);
    struct cg_image *reader, *image;
    struct cg_error err;

    (void)state;
    memset(parent, 9, sizeof parent);
    pool_set_parent(parent, SIZE);
    pool_clone(pool.space, POOL_PARENT, V);
    reader = pool_open(pool.space, V, CG_OPEN_READ);
    struct cg_space *process = pool_second(&pool);
    pool_snapshot(process, V "@s");
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    expect(image, 9, SIZE, 0);
    cg_image_unref(image);
    assert_int_equal(cg_space_flatten(process, &v, 0, NULL, NULL, &err), 1);
    cg_space_free(process);
    image = pool_open(pool.space, V, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);
    put(image, 7, 512, 0);
    expect(reader, 7, 512, 0);
    expect(reader, 9, SIZE - 512, 512);
    cg_image_unref(image);
    cg_image_unref(reader);
}

/* A reader that came first doesn't stop a writer. */
static void test_reader_first(void **state)
{
    struct cg_image *reader;

    (void)state;
    pool_create(pool.space, V, SIZE);
    reader = pool_open(pool.space, V, CG_OPEN_READ);
    struct child c = start(writer);
    order(&c, '1');
    expect(reader, 0, SIZE, 0);
    order(&c, '2');
    end(&c, SIGKILL);
    expect(reader, 0, SIZE, 0);
    cg_image_unref(reader);
    reader = pool_open(pool.space, V, CG_OPEN_READ);
    expect(reader, 5, 5000, 2000);
    cg_image_unref(reader);
}

static void test_second_writer(void **state)
{
    struct cg_name v = pool_name(V);
    struct cg_image *image;
    struct cg_error err;
    char pid[32];

    (void)state;
    pool_create(pool.space, V, SIZE);
    struct child c = start(writer);
    order(&c, '1');
    snprintf(pid, sizeof pid, "process %ld", (long)c.pid);
    image = pool_open(pool.space, V, CG_OPEN_WRITE); /* opening takes no lock */
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -EBUSY);
    assert_non_null(strstr(err.message, pid));
    cg_image_unref(image);
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE, &image, &err),
                     -EBUSY);
    assert_non_null(strstr(err.message, pid));
    assert_int_equal(cg_space_remove(pool.space, &v, 0, &err), -EBUSY);
    assert_non_null(strstr(err.message, pid));
    struct cg_name s = pool_name(V "@s");
    pool_snapshot(pool.space, V "@s");
    assert_int_equal(cg_space_rollback(pool.space, &s, &err), -EBUSY);
    json_t *info;
    assert_int_equal(cg_space_info(pool.space, &v, &info, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(info, "writer")), c.pid);
    json_decref(info);
    end(&c, 0);
    assert_int_equal(cg_space_info(pool.space, &v, &info, &err), 0);
    assert_null(json_object_get(info, "writer"));
    json_decref(info);
    pool_remove(pool.space, V "@s");
    pool_remove(pool.space, V);
}

/* Who opened for writing, didn't, and was overtaken may not write over what it hasn't seen. */
static void test_stale(void **state)
{
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, V, SIZE);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    /* Snapshots don't change what it sees. */
    struct cg_space *second = pool_second(&pool);
    pool_snapshot(second, V "@a");
    pool_snapshot(second, V "@b");
    /* Nor does it that there is more now. */
    struct cg_name v = pool_name(V);
    assert_int_equal(cg_space_resize(second, &v, SIZE + 8192, &err), 0);
    cg_space_free(second);
    put(image, 7, 512, 0);
    assert_int_equal(cg_image_size(image), SIZE + 8192);
    expect(image, 0, 8192, SIZE);
    put(image, 7, 4096, SIZE);
    cg_image_unref(image);

    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    struct child c = start(writer);
    order(&c, '1');
    end(&c, 0);
    assert_int_equal(cg_image_pwrite(image, "x", 1, 0, 0, &err), -ESTALE);
    expect(image, 7, 512, 0);
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 7, 1, 0);
    cg_image_unref(image);
}

static int tell(void *opaque, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    ++*(int *)opaque;
    return 0;
}

static void test_changes(void **state)
{
    static uint8_t parent[SIZE];
    struct cg_name v = pool_name(V);
    struct cg_image *image;
    struct cg_error err;
    int told = 0;

    (void)state;
    memset(parent, 9, sizeof parent);
    pool_set_parent(parent, sizeof parent);
    pool_clone(pool.space, POOL_PARENT, V);
    struct child c = start(writer);
    order(&c, '1');
    pool_snapshot(pool.space, V "@s");
    order(&c, '2');
    pool_clone(pool.space, V, "volumes/p/c");
    assert_int_equal(cg_space_resize(pool.space, &v, SIZE + 4096, &err), 0);
    assert_int_equal(cg_space_resize(pool.space, &v, SIZE, &err), -EINVAL);
    assert_int_equal(cg_space_flatten(pool.space, &v, 0, tell, &told, &err), 0);
    assert_true(told > 0);
    struct cg_name s = pool_name(V "@s");
    assert_int_equal(cg_space_snapshot(pool.space, &s, 1, &err), -EEXIST);
    memset(parent, 8, sizeof parent); /* nobody looks there any more but the clone */
    order(&c, '1');
    image = pool_open(pool.space, V "@s", CG_OPEN_READ);
    expect(image, 9, 300, 0);
    expect(image, 1, 10000, 300);
    expect(image, 9, SIZE - 131072, 131072);
    cg_image_unref(image);
    image = pool_open(pool.space, "volumes/p/c", CG_OPEN_READ);
    expect(image, 8, 4096, 135168);
    expect(image, 5, 5000, 2000);
    cg_image_unref(image);
    image = pool_open(pool.space, V, CG_OPEN_READ);
    assert_int_equal(cg_image_size(image), SIZE + 4096);
    expect(image, 9, 300, 0);
    expect(image, 1, 10000, 300);
    expect(image, 0, 4096, SIZE);
    cg_image_unref(image);
    pool_remove(pool.space, V "@s");
    assert_int_equal(cg_space_remove(pool.space, &s, 0, &err), -ENOENT);
    end(&c, 0);
}

/* Two spaces of one process are as good as two processes, here with many requests at once. */
static void test_asked_while_writing(void **state)
{
    struct cg_space *second;
    struct cg_image *image;

    (void)state;
    pool_create(pool.space, V, SIZE);
    image = pool_open(pool.space, V, CG_OPEN_WRITE);
    second = pool_second(&pool);
    for (int i = 0; i < 20; i++) {
        struct cg_image *reader;
        put(image, (char)i, 4096 * 3, 5000);
        pool_snapshot(second, V "@cowgate-x");
        put(image, 100, 4096 * 3, 5000);
        reader = pool_open(second, V "@cowgate-x", CG_OPEN_READ);
        expect(reader, (char)i, 4096 * 3, 5000);
        cg_image_unref(reader);
        reader = pool_open(second, V, CG_OPEN_READ);
        expect(reader, 100, 4096 * 3, 5000);
        pool_remove(second, V "@cowgate-x");
        cg_image_unref(reader);
    }
    cg_image_unref(image);
    cg_space_free(second);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, one_pool_setup, one_pool_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_killed),         TEST(test_killed_elsewhere), TEST(test_snapshot_of_killed),
        TEST(test_reader),         TEST(test_reader_first),     TEST(test_second_writer),
        TEST(test_stale),          TEST(test_changes),          TEST(test_asked_while_writing),
        TEST(test_earlier_reader), TEST(test_same_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
