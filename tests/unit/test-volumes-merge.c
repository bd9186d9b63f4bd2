/* Layers that only deleted snapshots needed: merged while the volume is used, or left as long as
 * somebody is in the way; interrupted anywhere. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/volume_json.h"
#include "tests/unit/volumes-merging.h"
#include "tests/unit/cmocka-all.h"

/* A, B and C in the head's layers, of which nobody needs that of A; some of B is zeros. */
static void prepare(void)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    struct cg_error err;

    put(image, 'A', SIZE, 0);
    pool_snapshot(pool.space, V "@a");
    put(image, 'B', 40960, 8192);
    assert_int_equal(cg_image_zero(image, 8192, 16384, 0, &err), 0);
    pool_snapshot(pool.space, V "@b");
    put(image, 'C', 100, 12000);
    put(image, 'C', 8192, SIZE - 8192);
    cg_image_unref(image);
    pool_remove(pool.space, V "@a");
}

static void expect_b(const char *name)
{
    expect_in(name, 'A', 8192, 0);
    expect_in(name, 'B', 3808, 8192);
    expect_in(name, 'B', 4284, 12100);
    expect_in(name, 0, 8192, 16384);
    expect_in(name, 'B', 24576, 24576);
    expect_in(name, 'A', SIZE - 8192 - 49152, 49152);
}

static void expect_all(void)
{
    expect_b(V "@b");
    expect_b(V);
    expect_v('C', 100, 12000);
    expect_v('C', 8192, SIZE - 8192);
    expect_in(V "@b", 'A', 8192, SIZE - 8192);
}

static void test_at_rest(void **state)
{
    (void)state;
    prepare();
    assert_int_equal(layers(), 3);
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 2);
    expect_all();
    /* The last one goes into the layer that is left, which takes the next writes. */
    pool_remove(pool.space, V "@b");
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 1);
    assert_int_equal(mixed(), 0);
    expect_b(V);
    write_v(pool.space, 'D', 5000, 100);
    assert_int_equal(layers(), 1);
    expect_v('D', 5000, 100);
    expect_v('C', 100, 12000);
    pool_reboot(&pool);
    expect_v('D', 5000, 100);
    expect_v('C', 8192, SIZE - 8192);
}

/* By the process that writes, asked by another or not: what it is writing goes into a new layer. */
static void test_while_written(void **state)
{
    (void)state;
    for (int by_other = 0; by_other < 2; by_other++) {
        prepare();
        struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
        put(image, 'D', 1, 49152);
        assert_int_equal(reclaim_by(by_other ? second : pool.space), 0);
        assert_int_equal(layers(), 2);
        pool_remove(pool.space, V "@b");
        assert_int_equal(reclaim_by(by_other ? second : pool.space), 0);
        assert_int_equal(layers(), 2);
        put(image, 'E', 1, 49153);
        expect(image, 'D', 1, 49152);
        expect(image, 'E', 1, 49153);
        expect(image, 'C', 100, 12000);
        expect(image, 'B', 24576, 24576);
        cg_image_unref(image);
        expect_v('B', 24576, 24576);
        expect_v('D', 1, 49152);
        pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
    }
}

/* Somebody reads the deleted snapshot, or the head: it stays, and so does what they see. */
static void test_readers(void **state)
{
    struct cg_image *reader;

    (void)state;
    reader = NULL;
    for (int i = 0; i < 3; i++) {
        if (i == 0) { /* the snapshot that will go */
            write_v(pool.space, 'A', SIZE, 0);
            pool_snapshot(pool.space, V "@a");
            reader = pool_open(second, V "@a", CG_OPEN_READ);
            pool_remove(pool.space, V "@a");
            write_v(pool.space, 'B', 40960, 8192);
        } else {
            prepare();
            reader = pool_open(i == 1 ? second : pool.space, V, CG_OPEN_READ);
        }
        size_t count = layers();
        assert_int_equal(reclaim(), 1);
        assert_int_equal(layers(), count);
        expect(reader, 'A', 8192, 0);
        expect(reader, i == 0 ? 'A' : 'B', 4000, 24576);
        cg_image_unref(reader);
        assert_int_equal(reclaim(), 0);
        assert_true(layers() < count);
        expect_v('B', 4000, 24576);
        pool_remove(pool.space, i == 0 ? "volumes/p/v" : V "@b");
        if (i)
            pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
    }
}

static void test_clones(void **state)
{
    (void)state;
    prepare();
    pool_clone(pool.space, V "@b", "volumes/p/c");
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 3);
    expect_b("volumes/p/c");
    pool_remove(pool.space, "volumes/p/c");
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 2);
    expect_all();
    /* The clone inherits both layers, and merges them. */
    pool_remove(pool.space, V "@b");
    write_v(pool.space, 'D', 512, 0);
    pool_snapshot(pool.space, V "@d");
    pool_clone(pool.space, V "@d", "volumes/p/c");
    pool_remove(pool.space, V "@d");
    pool_remove(pool.space, V);
    struct cg_name c = pool_name("volumes/p/c");
    struct cg_error err;
    assert_int_equal(cg_space_reclaim(pool.space, &c, NULL, NULL, &err), 0);
    struct cg_volume_json json = json_of("c");
    assert_int_equal(json.head.count, 1);
    cg_volume_json_clear(&json);
    expect_in("volumes/p/c", 'D', 512, 0);
    expect_in("volumes/p/c", 'C', 100, 12000);
    expect_in("volumes/p/c", 'B', 24576, 24576);
    pool_create(pool.space, V, SIZE); /* for the end */
}

static void clone_b(struct cg_space *space)
{
    pool_clone(space, V "@b", "volumes/p/c");
}

/* What is left of a clone that was never there keeps nothing. */
static void test_killed_clone(void **state)
{
    struct cg_name c = pool_name("volumes/p/c");
    struct cg_identity id;
    struct cg_error err;

    (void)state;
    for (unsigned at = 1;; at++) {
        prepare();
        if (!in_killed_process_at(at, clone_b))
            break;
        if (cg_space_identify(pool.space, &c, &id, &err) == 0)
            pool_remove(pool.space, "volumes/p/c");
        pool_remove(pool.space, V "@b");
        assert_int_equal(reclaim(), 0);
        assert_int_equal(layers(), 1);
    }
}

/* Two different layers stand on one: what the one has must not get to the other. */
static void test_branches(void **state)
{
    struct cg_name a = pool_name(V "@a");
    struct cg_error err;

    (void)state;
    write_v(pool.space, 'A', SIZE, 0);
    pool_snapshot(pool.space, V "@a");
    write_v(pool.space, 'B', 4096, 0);
    pool_snapshot(pool.space, V "@b");
    assert_int_equal(cg_space_rollback(pool.space, &a, &err), 0);
    write_v(pool.space, 'C', 4096, 8192);
    pool_remove(pool.space, V "@a");
    assert_int_equal(reclaim(), 0);
    expect_v('A', 8192, 0);
    expect_v('C', 4096, 8192);
    expect_in(V "@b", 'B', 4096, 0);
    expect_in(V "@b", 'A', 8192, 4096);
    assert_int_equal(layers(), 2);
    pool_remove(pool.space, V "@b");
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 1);
    expect_v('A', 8192, 0);
    expect_v('C', 4096, 8192);
}

/* What is half merged is no moment of the volume: not for a snapshot with nothing new above it. */
static void test_cancelled(void **state)
{
    struct cg_name v = pool_name(V);
    struct cg_error err;

    (void)state;
    prepare();
    assert_int_equal(cg_space_reclaim(pool.space, &v, pool_cancel, NULL, &err), -ECANCELED);
    assert_int_equal(mixed(), 1);
    expect_all();
    pool_snapshot(pool.space, V "@d");
    pool_clone(pool.space, V "@d", "volumes/p/c");
    expect_b(V "@d");
    expect_b("volumes/p/c");
    assert_int_equal(reclaim(), 0); /* the clone has it */
    expect_b("volumes/p/c");
    pool_remove(pool.space, "volumes/p/c");
    assert_int_equal(reclaim(), 0);
    assert_int_equal(mixed(), 0);
    expect_all();
    expect_b(V "@d");
    pool_remove(pool.space, V "@d");
}

/* No room: what is overridden takes no room any more, and all reads as before. */
static void test_no_room(void **state)
{
    (void)state;
    prepare();
    hook.fail_data_write = true;
    assert_int_equal(reclaim(), 0);
    hook.fail_data_write = false;
    assert_int_equal(layers(), 3);
    expect_all();
    pool_reboot(&pool);
    expect_all();
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 2);
    expect_all();
}

static void *read_slowly(void *image)
{
    expect(image, 'A', 8192, 8192);
    return NULL;
}

/* Who found blocks in the lower layer when the upper one hadn't them yet, and reads them only when
 * they have been overwritten, and there's no room to merge the two. */
static void test_no_room_while_read(void **state)
{
    pthread_t reader;

    (void)state;
    write_v(pool.space, 'A', SIZE, 0);
    pool_snapshot(pool.space, V "@a");
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);
    put(image, 'C', 4096, 0);
    hook.hold_data_read = true;
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, image), 0);
    while (!hook.data_read_held)
        usleep(1000);
    put(image, 'B', 8192, 8192);
    pool_remove(pool.space, V "@a");
    hook.fail_data_write = true;
    assert_int_equal(reclaim(), 0);
    hook.data_read_let_go = true;
    pthread_join(reader, NULL);
    assert_int_equal(reclaim(), 0);
    hook.fail_data_write = false;
    expect(image, 'C', 4096, 0);
    expect(image, 'A', 4096, 4096);
    expect(image, 'B', 8192, 8192);
    cg_image_unref(image);
}

/* Somebody else takes the room while it's copied into: what is left isn't for merging. */
static void test_room_taken(void **state)
{
    const uint64_t size = UINT64_C(80) << 20;

    (void)state;
    pool_remove(pool.space, V);
    pool_create(pool.space, V, size);
    write_v(pool.space, 'A', 4096, 0);
    pool_snapshot(pool.space, V "@a");
    write_v(pool.space, 'B', size - 4096, 4096);
    pool_remove(pool.space, V "@a");
    hook.full_at = 2;
    assert_int_equal(reclaim(), 0);
    assert_int_equal(hook.full_at, 0);
    assert_int_equal(layers(), 2);
    expect_v('A', 4096, 0);
    expect_v('B', 65536, 4096);
    expect_v('B', 65536, size - 65536);
    assert_int_equal(reclaim(), 0);
    assert_int_equal(layers(), 1);
    expect_v('A', 4096, 0);
    expect_v('B', 65536, 4096);
    expect_v('B', 65536, size - 65536);
}

static struct cg_image *writer;

static void begin_writing(void)
{
    writer = pool_open(second, V, CG_OPEN_WRITE);
    put(writer, 'D', 512, SIZE - 512);
}

/* Somebody begins to write while this process merges: he isn't held up, and goes on. */
static void test_writer_comes(void **state)
{
    (void)state;
    for (unsigned at = 1;; at++) {
        prepare();
        pool_remove(pool.space, V "@b");
        writer = NULL;
        hook.act = begin_writing;
        hook.act_at_sync = at;
        int r = reclaim();
        hook.act_at_sync = 0;
        if (!writer)
            break;
        assert_true(r >= 0);
        expect(writer, 'D', 512, SIZE - 512);
        expect(writer, 'B', 24576, 24576);
        cg_image_unref(writer);
        expect_v('D', 512, SIZE - 512);
        expect_v('C', 100, 12000);
        pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
    }
}

static void reclaim_in_child(struct cg_space *space)
{
    struct cg_name v = pool_name(V);
    struct cg_error err;

    if (cg_space_reclaim(space, &v, NULL, NULL, &err) < 0)
        abort();
}

static void write_and_reclaim(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);

    put(image, 'C', 100, 12000);
    reclaim_in_child(space);
    cg_image_unref(image);
}

/* Killed at any step, with the next step of whoever comes then killed too. */
static void test_killed(void **state)
{
    unsigned stride = getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND") ? 7 : 1;

    (void)state;
    for (int written = 0; written < 2; written++) {
        bool killed = true;
        for (unsigned at = 1; killed; at += stride) {
            prepare();
            killed = in_killed_process_at(at, written ? write_and_reclaim : reclaim_in_child);
            expect_all();
            in_killed_process_at(at / 2 + 1, reclaim_in_child);
            expect_all();
            assert_int_equal(reclaim(), 0);
            assert_int_equal(layers(), 2);
            pool_reboot(&pool);
            expect_all();
            pool_remove(pool.space, V "@b");
            pool_remove(pool.space, V);
            pool_create(pool.space, V, SIZE);
        }
    }
}

/* A snapshot of a version that gave none a uuid is known by that of its top layer, also when that
 * has gone. */
static void test_identity(void **state)
{
    struct cg_name b = pool_name(V "@b");
    struct cg_identity before, after;
    struct cg_volume_json json;
    struct cg_error err;
    char path[128];

    (void)state;
    prepare();
    json = json_of("v");
    snprintf(path, sizeof path, "%s/p/v/volume.json", pool.dir);
    CG_CLEANUP(cg_free) char *text = cg_volume_json_text(&json);
    char *at = strstr(text, json.snapshot[0].uuid);
    assert_non_null(at);
    while (*at != '\n') /* the line is that of the key alone */
        at--;
    char *end = strchr(at + 1, '\n');
    memset(at + 1, ' ', (size_t)(end - at - 1));
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    cg_volume_json_clear(&json);
    assert_int_equal(cg_space_identify(pool.space, &b, &before, &err), 0);
    assert_int_equal(reclaim(), 0);
    json = json_of("v");
    assert_int_equal(json.head.count, 2);
    assert_string_not_equal(json.snapshot[0].layers.uuid[0], before.snapshot);
    cg_volume_json_clear(&json);
    assert_int_equal(cg_space_identify(pool.space, &b, &after, &err), 0);
    assert_string_equal(before.snapshot, after.snapshot);
}

static int note_changed(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    uint8_t *changed = opaque;

    (void)err;
    memset(changed + e->off, 1, e->len);
    return 0;
}

/* Many snapshots, deleted in any order: those that are left keep their content, and the diff of any
 * two has all that differs. */
#define MOMENTS 12

static unsigned draw(unsigned *random, unsigned below)
{
    *random = *random * 1103515245 + 12345;
    return (*random >> 8) % below;
}

static const char *moment_name(unsigned i)
{
    static char name[32];

    snprintf(name, sizeof name, V "@s%u", i);
    return name;
}

static void check_moments(uint8_t (*want)[SIZE], const bool *has)
{
    static uint8_t changed[SIZE];
    struct cg_error err;
    int from = -1;

    for (unsigned i = 0; i < MOMENTS; i++) {
        if (!has[i])
            continue;
        struct cg_image *image = pool_open(second, moment_name(i), CG_OPEN_READ);
        pool_same(image, want[i], SIZE);
        cg_image_unref(image);
        struct cg_name to = pool_name(moment_name(i));
        if (from >= 0) {
            struct cg_name a = pool_name(moment_name((unsigned)from));
            memset(changed, 0, sizeof changed);
            if (cg_space_diff(second, &a, &to, note_changed, changed, &err) < 0)
                fail_msg("%s", err.message);
            for (unsigned k = 0; k < SIZE; k++)
                assert_true(changed[k] || want[from][k] == want[i][k]);
        }
        from = (int)i;
    }
}

static void delete_at_random(unsigned seed, bool written)
{
    static uint8_t want[MOMENTS + 1][SIZE];
    bool has[MOMENTS] = { false };
    unsigned random = seed;
    struct cg_error err;
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);

    memset(want, 0, sizeof want);
    for (unsigned i = 0; i < MOMENTS; i++) {
        for (unsigned k = 0; k < 6; k++) {
            uint64_t off = draw(&random, SIZE - 1), len = 1 + draw(&random, 30000);
            len = len > SIZE - off ? SIZE - off : len;
            char value = (char)draw(&random, 200);
            memset(want[i] + off, value, len);
            if (value)
                put(image, value, len, off);
            else
                assert_int_equal(cg_image_zero(image, len, off, 0, &err), 0);
        }
        pool_snapshot(pool.space, moment_name(i));
        has[i] = true;
        memcpy(want[i + 1], want[i], SIZE);
    }
    if (!written) {
        cg_image_unref(image);
        image = NULL;
    }
    for (unsigned left = MOMENTS; left > 0;) {
        unsigned i = draw(&random, MOMENTS);
        if (!has[i])
            continue;
        pool_remove(second, moment_name(i));
        has[i] = false;
        left--;
        if (draw(&random, 3) || left == 0)
            assert_int_equal(reclaim(), 0);
        check_moments(want, has);
        if (image)
            pool_same(image, want[MOMENTS], SIZE);
    }
    assert_int_equal(layers(), written ? 2 : 1);
    cg_image_unref(image);
    image = pool_open(second, V, CG_OPEN_READ);
    pool_same(image, want[MOMENTS], SIZE);
    cg_image_unref(image);
}

static void test_any_order(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; seed++) {
        delete_at_random(seed, seed % 2);
        pool_remove(pool.space, V);
        pool_create(pool.space, V, SIZE);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, merging_setup, merging_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_at_rest),    TEST(test_while_written), TEST(test_readers),
        TEST(test_clones),     TEST(test_killed_clone),  TEST(test_branches),
        TEST(test_cancelled),  TEST(test_no_room),       TEST(test_no_room_while_read),
        TEST(test_room_taken), TEST(test_writer_comes),  TEST(test_killed),
        TEST(test_identity),   TEST(test_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
