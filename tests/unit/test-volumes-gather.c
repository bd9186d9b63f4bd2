/* Flatten of a clone that shares layers with other volumes: whatever comes before, meanwhile and
 * after it was killed, all of them read the same, and nothing stays that nobody needs. */
#include "config.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

#define O "volumes/p/o"
#define M "volumes/p/m"
#define K "volumes/p/k"
#define C "volumes/p/c"

static uint8_t parent[SIZE];
static struct cg_space *second; /* as another process */

/* What each image must hold; name: NULL if it isn't there. */
struct content {
    const char *name;
    uint8_t bytes[SIZE];
};
enum { O_HEAD, M_HEAD, K_HEAD, K_S, CONTENTS };
static struct content contents[CONTENTS];

static void write_to(unsigned which, struct cg_image *image, char value, size_t len, uint64_t off)
{
    put(image, value, len, off);
    memset(contents[which].bytes + off, value, len);
}

static void write_closed(unsigned which, char value, size_t len, uint64_t off)
{
    struct cg_image *image = pool_open(pool.space, contents[which].name, CG_OPEN_WRITE);

    write_to(which, image, value, len, off);
    cg_image_unref(image);
}

static void same(struct cg_space *space, const char *name, const uint8_t *bytes)
{
    struct cg_image *image = pool_open(space, name, CG_OPEN_READ);

    pool_same(image, bytes, SIZE);
    cg_image_unref(image);
}

static void expect_all(void)
{
    for (unsigned i = 0; i < CONTENTS; i++)
        if (contents[i].name)
            same(pool.space, contents[i].name, contents[i].bytes);
}

static void derive(unsigned which, const char *name, unsigned from)
{
    contents[which] = contents[from];
    contents[which].name = name;
}

/* O <- M <- K, of which each has something of its own above, and K a snapshot. */
static void make_volumes(void)
{
    memset(contents, 0, sizeof contents);
    contents[O_HEAD].name = O;
    write_closed(O_HEAD, 'o', 65536, 0);
    write_closed(O_HEAD, 'o', SIZE - 81920, 81920);
    derive(M_HEAD, M, O_HEAD);
    pool_clone(pool.space, O, M);
    write_closed(M_HEAD, 'm', 5000, 4000);
    write_closed(O_HEAD, 'x', 4096, 0);
    derive(K_HEAD, K, M_HEAD);
    pool_clone(pool.space, M, K);
    write_closed(M_HEAD, 'y', 4096, 4096);
    write_closed(K_HEAD, 'k', 9000, 16000);
    derive(K_S, K "@s", K_HEAD);
    pool_snapshot(pool.space, K "@s");
    write_closed(K_HEAD, 'K', 5000, 20000);
    expect_all();
}

/* On tmpfs, where a sync takes no time. */
static void setup_pool(void **state)
{
    char lock[80];

    faults_setup(state);
    pool_remove(pool.space, V);
    snprintf(lock, sizeof lock, "%s/.lock", pool.dir);
    unlink(lock);
    cg_space_free(pool.space);
    pool_move_to_tmpfs(&pool);
    assert_int_equal(mkdir(pool.dir, 0700), 0);
    pool.space = pool_second(&pool);
    second = pool_second(&pool);
}

static int setup(void **state)
{
    setup_pool(state);
    pool_create(pool.space, O, SIZE);
    make_volumes();
    return 0;
}

/* The same over a parent, of which O, and so its clones, have a part. */
static int setup_with_parent(void **state)
{
    setup_pool(state);
    memset(parent, 'o', sizeof parent);
    memset(parent + 65536, 0, 16384);
    pool_set_parent(parent, sizeof parent);
    pool_clone(pool.space, POOL_PARENT, O);
    make_volumes();
    return 0;
}

static int teardown(void **state)
{
    cg_space_free(second);
    return faults_teardown(state);
}

static int flatten_by(struct cg_space *space, const char *text,
                      int (*progress)(void *opaque, uint64_t done, uint64_t total))
{
    struct cg_name name = pool_name(text);
    struct cg_error err;
    int r = cg_space_flatten(space, &name, 0, progress, NULL, &err);

    if (r < 0 && r != -ECANCELED && r != -ENOSPC)
        fail_msg("flatten %s: %d, %s", text, r, err.message);
    return r;
}

static json_int_t number(const char *text, const char *key)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;
    json_t *info;

    assert_int_equal(cg_space_info(pool.space, &name, &info, &err), 0);
    json_int_t n = json_integer_value(json_object_get(info, key));
    json_decref(info);
    return n;
}

static json_int_t files(const char *text)
{
    char pattern[128];
    glob_t found;

    snprintf(pattern, sizeof pattern, "%s/p/%s/*.data", pool.dir, strrchr(text, '/') + 1);
    size_t count = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return (json_int_t)count;
}

/* It has all by itself, and nothing that it doesn't need. */
static void expect_flat(const char *text)
{
    assert_int_equal(number(text, "shared"), 0);
    assert_int_equal(number(text, "depth"), 0);
    assert_int_equal(files(text), number(text, "layers"));
}

static void reclaim(const char *text)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;

    if (cg_space_reclaim(pool.space, &name, NULL, NULL, &err) < 0)
        fail_msg("reclaim %s: %s", text, err.message);
}

static void forget(unsigned which)
{
    pool_remove(pool.space, contents[which].name);
    contents[which].name = NULL;
}

static void forget_all(void)
{
    for (unsigned i = CONTENTS; i-- > 0;)
        if (contents[i].name)
            forget(i);
}

/* What was shared isn't any more, on neither side; what it was cloned from may go. */
static void test_flatten(void **state)
{
    (void)state;
    assert_true(number(K, "shared") > 0);
    assert_int_equal(number(K, "depth"), number(O, "depth") + 2);
    assert_int_equal(flatten_by(pool.space, K, NULL), 0);
    expect_flat(K);
    assert_int_equal(number(K, "layers"), 3);
    expect_all();
    assert_int_equal(flatten_by(pool.space, M, NULL), 0);
    expect_flat(M);
    assert_int_equal(number(O, "shared"), 0);
    expect_all();
    forget(M_HEAD);
    forget(O_HEAD);
    expect_all();
    assert_int_equal(flatten_by(pool.space, K, NULL), 0);
    write_closed(K_HEAD, 'L', 8192, 100);
    expect_all();
    forget(K_S);
    reclaim(K);
    assert_int_equal(number(K, "layers"), files(K));
    expect_all();
    forget_all();
}

/* Only a clone has something to give up. */
static void test_original(void **state)
{
    (void)state;
    json_int_t shared = number(O, "shared"), layers = number(O, "layers");
    assert_true(shared > 0);
    assert_int_equal(flatten_by(pool.space, O, NULL), 0);
    assert_int_equal(number(O, "shared"), shared);
    assert_int_equal(number(O, "layers"), layers);
    expect_all();
}

/* Nobody has those layers any more but the clone. */
static void test_not_shared(void **state)
{
    (void)state;
    forget(M_HEAD);
    forget(O_HEAD);
    json_int_t layers = number(K, "layers");
    assert_int_equal(flatten_by(pool.space, K, NULL), 0);
    assert_int_equal(number(K, "layers"), layers);
    expect_all();
}

/* What may come before a flatten is gone on with. */

static void nothing(void)
{
}

static void write_k(void)
{
    write_closed(K_HEAD, 'w', 30000, 3000);
}

static void snapshot_k(void)
{
    pool_snapshot(pool.space, K "@t");
    write_k();
    pool_remove(pool.space, K "@t");
}

static void unsnapshot_k(void)
{
    forget(K_S);
    reclaim(K);
}

static void rollback_k(void)
{
    struct cg_name s = pool_name(K "@s");
    struct cg_error err;

    if (cg_space_rollback(pool.space, &s, &err) < 0)
        fail_msg("%s", err.message);
    memcpy(contents[K_HEAD].bytes, contents[K_S].bytes, SIZE);
}

static void clone_k(void)
{
    pool_clone(pool.space, K, C);
    same(pool.space, C, contents[K_HEAD].bytes);
    assert_int_equal(flatten_by(pool.space, C, NULL), 0);
    expect_flat(C);
    same(pool.space, C, contents[K_HEAD].bytes);
    pool_remove(pool.space, C);
}

static void clone_snapshot(void)
{
    pool_clone(pool.space, K "@s", C);
    same(pool.space, C, contents[K_S].bytes);
    forget(M_HEAD);
    same(pool.space, C, contents[K_S].bytes);
    pool_remove(pool.space, C);
}

/* Then its layers are merged as if nobody had shared them. */
static void forget_others(void)
{
    forget(M_HEAD);
    forget(O_HEAD);
    unsnapshot_k();
    write_k();
}

static void (*const next[])(void) = { nothing,    write_k, snapshot_k,     unsnapshot_k,
                                      rollback_k, clone_k, clone_snapshot, forget_others };
#define NEXT (sizeof next / sizeof *next)

static void flatten_k(struct cg_space *space)
{
    flatten_by(space, K, NULL);
}

/* Under valgrind, and with sanitizers, only every so many steps. */
static unsigned stride = 1;

static void killed_at_each_step(int (*begin)(void **state), void (*fn)(struct cg_space *space),
                                unsigned from)
{
    bool killed = true;

    for (unsigned at = from; killed; at += stride) {
        for (size_t i = 0; i < NEXT; i++) {
            void *none = NULL;
            begin(&none);
            killed = in_killed_process_at(at, fn);
            if (at % 2)
                expect_all();
            next[i]();
            expect_all();
            assert_int_equal(flatten_by(pool.space, K, NULL), 0);
            expect_all();
            if (next[i] != forget_others) /* nothing was shared, perhaps */
                expect_flat(K);
            assert_int_equal(files(K), number(K, "layers"));
            if (contents[K_S].name)
                unsnapshot_k();
            expect_all();
            forget_all();
            assert_string_equal(pool_held(), "");
            teardown(&none);
        }
    }
}

static void test_killed(void **state)
{
    (void)state;
    killed_at_each_step(setup, flatten_k, 1);
}

static void test_killed_with_parent(void **state)
{
    (void)state;
    killed_at_each_step(setup_with_parent, flatten_k, 1);
}

/* Bytes that read the same before and after. */
static void write_and_flatten(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, K, CG_OPEN_WRITE);

    put(image, 'k', 512, 16384);
    flatten_by(space, K, NULL);
    put(image, 'k', 512, 17408);
    cg_image_unref(image);
}

static void test_killed_writer(void **state)
{
    (void)state;
    killed_at_each_step(setup, write_and_flatten, 1);
}

static struct cg_image *guest;

/* A guest, which is the writer, writes and reads at each report. */
static int write_meanwhile(void *opaque, uint64_t done, uint64_t total)
{
    static char value;

    (void)opaque;
    (void)done;
    (void)total;
    value = (char)(value + 1);
    write_to(K_HEAD, guest, value, 3000, 1000);
    pool_same(guest, contents[K_HEAD].bytes, SIZE);
    return 0;
}

static void test_writer(void **state)
{
    struct cg_image *reader = pool_open(pool.space, K, CG_OPEN_READ);
    static uint8_t before[SIZE];

    (void)state;
    memcpy(before, contents[K_HEAD].bytes, SIZE);
    guest = pool_open(second, K, CG_OPEN_WRITE);
    write_to(K_HEAD, guest, 'w', 3000, 50000);
    struct cg_space *third = pool_second(&pool);
    assert_true(flatten_by(third, K, write_meanwhile) >= 0); /* 1: the reader has the parent */
    cg_space_free(third);
    pool_same(guest, contents[K_HEAD].bytes, SIZE);
    pool_same(reader, before, SIZE);
    cg_image_unref(reader);
    expect_flat(K);
    write_to(K_HEAD, guest, 'v', 3000, 200);
    pool_same(guest, contents[K_HEAD].bytes, SIZE);
    cg_image_unref(guest);
    expect_all();
}

static int begin_to_write(void *opaque, uint64_t done, uint64_t total)
{
    if (!guest)
        guest = pool_open(second, K, CG_OPEN_WRITE);
    return write_meanwhile(opaque, done, total);
}

/* Who begins to write while another process copies isn't refused, and copies from there on. */
static void test_writer_comes(void **state)
{
    (void)state;
    guest = NULL;
    assert_int_equal(flatten_by(pool.space, K, begin_to_write), 0);
    assert_non_null(guest);
    expect_flat(K);
    cg_image_unref(guest);
    expect_all();
}

/* Who opened a clone before it was flattened, with the half filled layer or when it had been given
 * up, writes when it's flat, and shares with who opens it then. */
static void opened_earlier(unsigned which)
{
    const char *name = contents[which].name;
    struct cg_space *third = pool_second(&pool), *fourth = pool_second(&pool);
    struct cg_image *before = pool_open(second, name, CG_OPEN_WRITE), *with, *without, *image;

    assert_int_equal(flatten_by(pool.space, name, pool_cancel), -ECANCELED);
    with = pool_open(third, name, CG_OPEN_WRITE);
    image = pool_open(second, name, CG_OPEN_WRITE); /* shows what `before` does */
    cg_image_unref(image);
    hook.fail_data_write = true;
    assert_int_equal(flatten_by(pool.space, name, NULL), -ENOSPC);
    hook.fail_data_write = false;
    without = pool_open(fourth, name, CG_OPEN_WRITE);
    image = pool_open(third, name, CG_OPEN_WRITE);
    cg_image_unref(image);
    flatten_by(pool.space, name, NULL);
    expect_flat(name);
    struct cg_space *const spaces[] = { second, third, fourth };
    struct cg_image *const images[] = { before, with, without };
    for (unsigned i = 0; i < 3; i++) {
        pool_same(images[i], contents[which].bytes, SIZE);
        image = pool_open(spaces[i], name, CG_OPEN_WRITE);
        pool_same(image, contents[which].bytes, SIZE);
        cg_image_unref(image);
    }
    write_to(which, before, 'z', 9000, 100);
    pool_same(before, contents[which].bytes, SIZE);
    cg_image_unref(before);
    struct cg_error err;
    assert_int_equal(cg_image_pwrite(with, "x", 1, 0, 0, &err), -ESTALE);
    cg_image_unref(with);
    cg_image_unref(without);
    cg_space_free(third);
    cg_space_free(fourth);
    expect_all();
}

static void test_opened_earlier(void **state)
{
    (void)state;
    opened_earlier(K_HEAD);
    opened_earlier(M_HEAD); /* which inherited one layer */
}

/* Once something is merged into the layer it doesn't stand for what was there any more: who opened
 * the volume before that, with nothing but the inherited layers, can't go on with it. */
static void test_merged_into(void **state)
{
    struct cg_image *before;
    struct cg_error err;

    (void)state;
    pool_clone(pool.space, K, C);
    guest = pool_open(pool.space, C, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);
    before = pool_open(second, C, CG_OPEN_WRITE);
    cg_image_unref(guest);
    assert_int_equal(flatten_by(pool.space, C, NULL), 0);
    guest = pool_open(pool.space, C, CG_OPEN_WRITE);
    put(guest, 'n', 4096, 0);
    cg_image_unref(guest);
    pool_snapshot(pool.space, C "@s");
    pool_remove(pool.space, C "@s");
    reclaim(C);
    assert_int_equal(number(C, "layers"), 1);
    pool_same(before, contents[K_HEAD].bytes, SIZE);
    assert_int_equal(cg_image_pwrite(before, "n", 1, 0, 0, &err), -ESTALE);
    pool_same(before, contents[K_HEAD].bytes, SIZE);
    cg_image_unref(before);
    pool_remove(pool.space, C);
    expect_all();
}

/* Without room nothing changes, and nothing stays. */
static void test_no_room(void **state)
{
    (void)state;
    json_int_t layers = number(K, "layers");
    hook.fail_data_write = true;
    assert_int_equal(flatten_by(pool.space, K, NULL), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(number(K, "layers"), layers);
    assert_int_equal(files(K), layers);
    expect_all();
    guest = pool_open(second, K, CG_OPEN_WRITE);
    write_to(K_HEAD, guest, 'w', 3000, 50000);
    hook.fail_data_write = true;
    assert_int_equal(flatten_by(pool.space, K, NULL), -ENOSPC);
    hook.fail_data_write = false;
    assert_int_equal(files(K), layers);
    assert_int_equal(flatten_by(pool.space, K, NULL), 0);
    pool_same(guest, contents[K_HEAD].bytes, SIZE);
    cg_image_unref(guest);
    expect_flat(K);
    expect_all();
}

/* O is being filled from its parent when M's clone is made: each goes on by itself. */
static void test_filling_shared(void **state)
{
    (void)state;
    assert_int_equal(flatten_by(pool.space, O, pool_cancel), -ECANCELED);
    pool_clone(pool.space, O, C);
    same(pool.space, C, contents[O_HEAD].bytes);
    assert_int_equal(flatten_by(pool.space, C, pool_cancel), -ECANCELED);
    assert_int_equal(flatten_by(pool.space, O, NULL), 0);
    same(pool.space, C, contents[O_HEAD].bytes);
    assert_int_equal(flatten_by(pool.space, C, NULL), 0);
    expect_flat(C);
    same(pool.space, C, contents[O_HEAD].bytes);
    assert_int_equal(flatten_by(pool.space, K, NULL), 0);
    expect_all();
    memset(parent, 'x', sizeof parent);
    same(pool.space, C, contents[O_HEAD].bytes);
    same(pool.space, K, contents[K_HEAD].bytes);
    same(pool.space, O, contents[O_HEAD].bytes);
}

/* Clones count, snapshots don't; the one that stands on too many is told to be flattened. */
static void test_depth(void **state)
{
    char name[32], clone[32], snapshot[48];
    struct cg_error err;

    (void)state;
    strcpy(name, O);
    for (int i = 1; i <= CG_DEPTH_MAX + 2; i++) {
        for (unsigned k = 0; k < 3; k++) {
            snprintf(snapshot, sizeof snapshot, "%s@depth%u", name, k);
            guest = pool_open(pool.space, name, CG_OPEN_WRITE);
            put(guest, (char)('a' + i), 512, 512 * (uint64_t)i);
            cg_image_unref(guest);
            pool_snapshot(pool.space, snapshot);
        }
        snprintf(clone, sizeof clone, "volumes/p/c%d", i);
        struct cg_name to = pool_name(clone);
        int r = cg_space_clone(pool.space, name, &to, &err);
        assert_int_equal(r, i == CG_DEPTH_MAX + 1);
        if (r == 1) {
            assert_int_equal(number(clone, "depth"), CG_DEPTH_MAX + 1);
            assert_int_equal(flatten_by(pool.space, clone, NULL), 0);
            expect_flat(clone);
            assert_int_equal(number(clone, "layers"), 2);
        }
        strcpy(name, clone);
    }
    assert_int_equal(number(name, "depth"), 1);
    guest = pool_open(pool.space, name, CG_OPEN_READ);
    for (int i = 1; i <= CG_DEPTH_MAX + 2; i++)
        expect(guest, (char)('a' + i), 512, 512 * (uint64_t)i);
    cg_image_unref(guest);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_WITH_PARENT(name) cmocka_unit_test_setup_teardown(name, setup_with_parent, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_flatten),
        TEST_WITH_PARENT(test_flatten),
        TEST(test_original),
        TEST(test_not_shared),
        TEST(test_writer),
        TEST_WITH_PARENT(test_writer),
        TEST(test_writer_comes),
        TEST_WITH_PARENT(test_writer_comes),
        TEST(test_opened_earlier),
        TEST(test_merged_into),
        TEST(test_no_room),
        TEST_WITH_PARENT(test_filling_shared),
        TEST(test_depth),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_killed_with_parent),
        cmocka_unit_test(test_killed_writer),
    };

#if defined __SANITIZE_THREAD__
    stride = 17;
#elif defined __SANITIZE_ADDRESS__
    stride = 3;
#endif
    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        stride = 17;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
