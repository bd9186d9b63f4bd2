/* Volumes as a space: what each operation does, one by one. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/volumes.h"
#include "tests/unit/one-pool.h"
#include "tests/unit/cmocka-all.h"

#define MIB (UINT64_C(1) << 20)

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 7) | 1;
}

static void test_write_read(void **state)
{
    static uint8_t want[MIB + 1024], buf[100000];
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    memset(want, 0, sizeof want);
    pool_create(pool.space, "volumes/p/v", sizeof want);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pool_same(image, want, sizeof want);
    fill(buf, sizeof buf, 1);
    static const struct {
        uint32_t len, off;
    } at[] = { { 4096, 0 },      { 512, 4096 + 512 }, { 100000, 70001 }, { 1, 4095 },
               { 5000, 300000 }, { 512, MIB + 512 },  { 100, MIB + 10 } };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        pool_write(image, buf, at[i].len, at[i].off);
        memcpy(want + at[i].off, buf, at[i].len);
        pool_same(image, want, sizeof want);
    }
    assert_int_equal(cg_image_zero(image, 50000, 80000, 0, &err), 0);
    memset(want + 80000, 0, 50000);
    pool_same(image, want, sizeof want);
    assert_int_equal(cg_image_trim(image, 8192, 4096, 0, &err), 0);
    memset(want + 4096, 0, 8192);
    pool_same(image, want, sizeof want);
    assert_int_equal(cg_image_flush(image, &err), 0);
    cg_image_unref(image);
    pool_reopen(&pool);
    pool_reboot(&pool);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_READ);
    pool_same(image, want, sizeof want);
    cg_image_unref(image);
}

static void test_snapshot_clone(void **state)
{
    static uint8_t a[2 * MIB], b[2 * MIB];
    struct cg_image *image, *snapshot, *clone;

    (void)state;
    fill(a, sizeof a, 2);
    pool_create(pool.space, "volumes/p/v", sizeof a);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pool_write(image, a, sizeof a, 0);
    pool_snapshot(pool.space, "volumes/p/v@s1");
    memcpy(b, a, sizeof b);
    memset(b + 5000, 7, 30000);
    pool_write(image, b + 5000, 30000, 5000);
    pool_clone(pool.space, "volumes/p/v", "volumes/q/c");
    pool_clone(pool.space, "volumes/p/v@s1", "volumes/q/d");
    snapshot = pool_open(pool.space, "volumes/p/v@s1", CG_OPEN_WRITE);
    assert_true(cg_image_read_only(snapshot));
    assert_true(cg_image_immutable(snapshot));
    pool_same(snapshot, a, sizeof a);
    pool_same(image, b, sizeof b);
    cg_image_unref(image);
    cg_image_unref(snapshot);
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_error err;
    assert_int_equal(cg_space_remove(pool.space, &v, 0, &err), -ENOTEMPTY);
    assert_int_equal(cg_space_remove(pool.space, &v, CG_REMOVE_SNAPSHOTS, &err), 0);
    clone = pool_open(pool.space, "volumes/q/c", CG_OPEN_WRITE);
    pool_same(clone, b, sizeof b);
    memset(b, 9, 10);
    pool_write(clone, b, 10, 0);
    pool_same(clone, b, sizeof b);
    cg_image_unref(clone);
    clone = pool_open(pool.space, "volumes/q/d", CG_OPEN_READ);
    pool_same(clone, a, sizeof a);
    cg_image_unref(clone);
}

static int count_entry(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    (void)err;
    strcat(opaque, entry->name);
    strcat(opaque, entry->directory ? "/ " : " ");
    return 0;
}

static void test_list(void **state)
{
    char text[1000] = "";
    struct cg_name prefix;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, "volumes/p/v", MIB);
    pool_snapshot(pool.space, "volumes/p/v@s1");
    assert_int_equal(cg_name_parse_prefix("volumes", &prefix, &err), 0);
    assert_int_equal(cg_space_list(pool.space, &prefix, count_entry, text, &err), 0);
    assert_string_equal(text, "p/ ");
    text[0] = '\0';
    assert_int_equal(cg_name_parse_prefix("volumes/p", &prefix, &err), 0);
    assert_int_equal(cg_space_list(pool.space, &prefix, count_entry, text, &err), 0);
    assert_string_equal(text, "v v@s1 ");
    assert_int_equal(cg_name_parse_prefix("volumes/q", &prefix, &err), 0);
    assert_int_equal(cg_space_list(pool.space, &prefix, count_entry, text, &err), -ENOENT);
    struct cg_name v = pool_name("volumes/p/v");
    json_t *info;
    assert_int_equal(cg_space_info(pool.space, &v, &info, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(info, "size")), MIB);
    assert_int_equal(json_array_size(json_object_get(info, "snapshots")), 1);
    json_decref(info);
}

static void test_names(void **state)
{
    struct cg_name v = pool_name("volumes/p/v"), w = pool_name("volumes/q/w"), draft = v;
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    draft.draft = true;
    /* A draft isn't seen, survives being interrupted, and gets its name when it's whole. */
    assert_int_equal(cg_space_create(pool.space, &draft, MIB, MIB, &err), 0);
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_READ, &image, &err), -ENOENT);
    assert_int_equal(cg_space_open(pool.space, &draft, CG_OPEN_WRITE, &image, &err), 0);
    pool_write(image, "draft", 5, 100);
    struct cg_space *second = pool_second(&pool);
    assert_int_equal(cg_space_create(second, &draft, MIB, MIB, &err), -EBUSY);
    cg_space_free(second);
    cg_image_unref(image);
    assert_int_equal(cg_space_create(pool.space, &draft, MIB, MIB, &err), 0);
    assert_int_equal(cg_space_rename(pool.space, &draft, &v, &err), 0);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_READ);
    char have[5];
    pool_read(image, have, 5, 100);
    assert_memory_equal(have, "draft", 5);
    cg_image_unref(image);
    assert_int_equal(cg_space_create(pool.space, &draft, MIB, MIB, &err), -EEXIST);
    assert_int_equal(cg_space_create(pool.space, &v, MIB, MIB, &err), -EEXIST);
    /* Another size: the old draft is of no use. */
    struct cg_name other = pool_name("volumes/p/o");
    other.draft = true;
    assert_int_equal(cg_space_create(pool.space, &other, MIB, MIB, &err), 0);
    assert_int_equal(cg_space_create(pool.space, &other, 2 * MIB, 2 * MIB, &err), 0);
    assert_int_equal(cg_space_remove(pool.space, &other, 0, &err), 0);
    assert_int_equal(cg_space_remove(pool.space, &other, 0, &err), -ENOENT);
    /* Renamed while it's open, into another project. */
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    char project[128];
    snprintf(project, sizeof project, "%s/p", pool.dir);
    assert_int_equal(access(project, F_OK), 0);
    assert_int_equal(cg_space_rename(pool.space, &v, &w, &err), 0);
    assert_int_equal(access(project, F_OK), -1); /* nothing is left in it */
    pool_write(image, "moved", 5, 100);
    assert_int_equal(cg_space_rename(pool.space, &v, &w, &err), -ENOENT);
    pool_create(pool.space, "volumes/p/v", MIB);
    assert_int_equal(cg_space_rename(pool.space, &v, &w, &err), -EEXIST);
    assert_int_equal(cg_space_remove(pool.space, &w, 0, &err), -EBUSY);
    cg_image_unref(image);
    image = pool_open(pool.space, "volumes/q/w", CG_OPEN_READ);
    pool_read(image, have, 5, 100);
    assert_memory_equal(have, "moved", 5);
    assert_int_equal(cg_space_remove(pool.space, &w, 0, &err), -EBUSY); /* a reader */
    cg_image_unref(image);
    pool_remove(pool.space, "volumes/q/w");
}

static int add_range(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    char *text = opaque;

    (void)err;
    sprintf(text + strlen(text), "%llu+%llu%s ", (unsigned long long)e->off / 4096,
            (unsigned long long)e->len / 4096, e->type == CG_DATA ? "" : "z");
    return 0;
}

static void test_diff(void **state)
{
    static uint8_t buf[MIB];
    struct cg_name v = pool_name("volumes/p/v"), a = pool_name("volumes/p/v@a"),
                   b = pool_name("volumes/p/v@b"), c = pool_name("volumes/p/c"),
                   w = pool_name("volumes/p/w");
    struct cg_identity one, two;
    char text[1000] = "";
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, "volumes/p/v", MIB);
    pool_create(pool.space, "volumes/p/w", MIB);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    fill(buf, sizeof buf, 3);
    pool_write(image, buf, MIB, 0);
    pool_snapshot(pool.space, "volumes/p/v@a");
    pool_write(image, buf, 100, 5 * 4096 + 7);
    pool_write(image, buf, 2 * 4096, 10 * 4096);
    assert_int_equal(cg_image_trim(image, 3 * 4096, 11 * 4096, 0, &err), 0);
    pool_snapshot(pool.space, "volumes/p/v@b");
    pool_write(image, buf, 4096, 0);
    assert_int_equal(cg_space_resize(pool.space, &v, MIB + 8192, &err), 0);
    assert_int_equal(cg_space_diff(pool.space, &a, &b, add_range, text, &err), 0);
    assert_string_equal(text, "5+1 10+1 11+3z ");
    text[0] = '\0';
    assert_int_equal(cg_space_diff(pool.space, &b, &v, add_range, text, &err), 0);
    assert_string_equal(text, "0+1 256+2z ");
    text[0] = '\0';
    pool_clone(pool.space, "volumes/p/v@b", "volumes/p/c");
    assert_int_equal(cg_space_diff(pool.space, &a, &c, add_range, text, &err), 0);
    assert_string_equal(text, "5+1 10+1 11+3z ");
    assert_int_equal(cg_space_diff(pool.space, &b, &a, add_range, text, &err), -ENOTSUP);
    assert_int_equal(cg_space_diff(pool.space, &a, &w, add_range, text, &err), -ENOTSUP);
    assert_int_equal(cg_space_identify(pool.space, &a, &one, &err), 0);
    assert_int_equal(cg_space_identify(pool.space, &b, &two, &err), 0);
    assert_string_equal(one.image, two.image);
    assert_string_not_equal(one.snapshot, two.snapshot);
    assert_int_equal(cg_space_identify(pool.space, &v, &two, &err), 0);
    assert_string_equal(two.snapshot, "");
    assert_int_equal(cg_space_identify(pool.space, &c, &two, &err), 0);
    assert_string_not_equal(one.image, two.image);
    cg_image_unref(image);
}

/* Of the files of volumes/p/v with this suffix, in units of 512 bytes. */
static uint64_t blocks_of(const char *suffix)
{
    char path[200];
    uint64_t sum = 0;
    glob_t found;

    snprintf(path, sizeof path, "%s/p/v/*.%s", pool.dir, suffix);
    assert_int_equal(glob(path, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct stat st;
        assert_int_equal(stat(found.gl_pathv[i], &st), 0);
        sum += (uint64_t)st.st_blocks;
    }
    globfree(&found);
    return sum;
}

static void test_space_is_given_back(void **state)
{
    static uint8_t buf[4 * MIB];
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, "volumes/p/v", 16 * MIB);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    fill(buf, sizeof buf, 4);
    pool_write(image, buf, sizeof buf, MIB);
    assert_int_equal(cg_image_flush(image, &err), 0);
    uint64_t full = blocks_of("data");
    assert_true(full >= 4 * MIB / 512);
    assert_int_equal(cg_image_trim(image, 3 * MIB, MIB, 0, &err), 0);
    assert_int_equal(cg_image_zero(image, MIB / 2, 4 * MIB, CG_MAY_TRIM, &err), 0);
    assert_true(blocks_of("data") <= full - 3 * MIB / 512 - MIB / 1024);
    cg_image_unref(image);
}

static void test_parent(void **state)
{
    static uint8_t parent[100 * 1024 + 512];
    struct cg_name v = pool_name("volumes/p/v"), w = pool_name("volumes/p/w");
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    fill(parent, sizeof parent, 5);
    pool_set_parent(parent, sizeof parent);
    assert_int_equal(cg_space_clone(pool.space, "backups/p/v/20270101T000000Z", &v, &err), -ENOENT);
    /* No hold, no clone. */
    pool_fail_hold(EIO);
    assert_int_equal(cg_space_clone(pool.space, POOL_PARENT, &v, &err), -EIO);
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_READ, &image, &err), -ENOENT);
    pool_fail_hold(0);
    pool_clone(pool.space, POOL_PARENT, "volumes/p/v");
    json_t *info;
    assert_int_equal(cg_space_info(pool.space, &v, &info, &err), 0);
    assert_string_equal(json_string_value(json_object_get(info, "uuid")), pool_held());
    json_decref(info);
    assert_int_equal(cg_space_clone(pool.space, "volumes/p/v.p1", &w, &err), -EINVAL);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pool_same(image, parent, sizeof parent);
    cg_image_unref(image);
    assert_int_equal(cg_space_flatten(pool.space, &v, 0, NULL, NULL, &err), 0);
    assert_string_equal(pool_held(), "");
    pool_set_parent(NULL, 0);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    pool_same(image, parent, sizeof parent);
    cg_image_unref(image);
    pool_set_parent(parent, sizeof parent);
    pool_clone(pool.space, POOL_PARENT, "volumes/p/w");
    assert_string_not_equal(pool_held(), "");
    pool_remove(pool.space, "volumes/p/w");
    assert_string_equal(pool_held(), "");
}

/* Opening the volume fails with r and says text. */
static void must_refuse(int r, const char *text)
{
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_image *image;
    struct cg_error err;
    int have = cg_space_open(pool.space, &v, CG_OPEN_WRITE, &image, &err);

    if (have == 0) {
        char c;
        have = cg_image_pread(image, &c, 1, 0, &err);
        cg_image_unref(image);
    }
    if (have != r || !strstr(err.message, text))
        fail_msg("%d, not %d: %s", have, r, have ? err.message : "");
}

static void shell(const char *command)
{
    char full[400];

    snprintf(full, sizeof full, "cd %s/p/v && %s", pool.dir, command);
    assert_int_equal(system(full), 0);
}

static void test_damage(void **state)
{
    static const struct {
        const char *damage;
        int result;
        const char *text;
    } damages[] = {
        { "mv *.map map", -ENOENT, ".map: No such file" },
        { "mv *.data data", -ENOENT, ".data: No such file" },
        { "truncate -s 100 *.map", -EIO, "damaged" },
        { "truncate -s 0 *.map", -EIO, "damaged" },
        { "truncate -s 8000 *.map", -EIO, "should have" },
        { "printf x | dd of=$(ls *.map) bs=1 seek=60 conv=notrunc status=none", -EIO, "checksum" },
        { "printf x | dd of=$(ls *.map) bs=1 seek=3000 conv=notrunc status=none", -EIO,
          "checksum" },
        { "printf '\\377' | dd of=$(ls *.map) bs=1 seek=4096 conv=notrunc status=none", -EIO,
          "block 0 has no valid state" },
        { "truncate -s 0 *.data", -EIO, ".data is damaged" },
        { "truncate -s 0 volume.json", -EIO, "volume.json is damaged" },
        { "sed -i 's/\"format\": 1/\"format\": 2/' volume.json", -ENOTSUP, "format 2" },
        { "sed -i 's/\"size\": 1048576/\"size\": 2097152/' volume.json", -EIO, "size" },
        { "sed -i 's/\"size\": 1048576/\"size\": 0/' volume.json", -EIO, "size" },
        { "rm volume.json", -ENOENT, "volume.json" },
    };
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_image *image;
    struct cg_error err;

    (void)state;
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        pool_create(pool.space, "volumes/p/v", MIB);
        image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
        pool_write(image, "x", 1, 0);
        cg_image_unref(image);
        shell(damages[i].damage);
        must_refuse(damages[i].result, damages[i].text);
        assert_int_equal(cg_space_remove(pool.space, &v, 0, &err), 0);
    }
    assert_int_equal(cg_space_create(pool.space, &v, 0, 0, &err), -EINVAL);
    assert_int_equal(cg_space_create(pool.space, &v, 1000, 1000, &err), -EINVAL);
    assert_int_equal(cg_space_create(pool.space, &v, UINT64_MAX - 511, 1, &err), -EINVAL);
    assert_true(cg_space_create(pool.space, &v, CG_IMAGE_MAX, CG_IMAGE_MAX, &err) < 0);
    assert_int_equal(cg_space_open(pool.space, &v, CG_OPEN_READ, &image, &err), -ENOENT);
}

/* A volume of 1 TiB takes next to nothing until it's written, and then only where. */
static void test_large(void **state)
{
    struct cg_image *image;
    struct cg_error err;
    char c = 1;

    (void)state;
    pool_create(pool.space, "volumes/p/v", UINT64_C(1) << 40);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    assert_int_equal(cg_image_trim(image, UINT64_C(1) << 40, 0, 0, &err), 0);
    pool_write(image, &c, 1, (UINT64_C(1) << 40) - 1);
    assert_int_equal(cg_image_trim(image, UINT64_C(1) << 39, 0, 0, &err), 0);
    char text[100] = "";
    assert_int_equal(cg_image_walk(image, 0, UINT64_C(1) << 40, add_range, text, &err), 0);
    assert_string_equal(text, "0+268435455z 268435455+1 ");
    assert_int_equal(cg_image_flush(image, &err), 0);
    cg_image_unref(image);
    assert_true(blocks_of("map") < 64);
}

static int layers_of(const char *text)
{
    struct cg_name name = pool_name(text);
    struct cg_error err;
    json_t *info;

    assert_int_equal(cg_space_info(pool.space, &name, &info, &err), 0);
    int layers = (int)json_integer_value(json_object_get(info, "layers"));
    json_decref(info);
    return layers;
}

/* A writer that comes beside a reader, and writes nothing. */
static void come_and_go(struct cg_space *readers)
{
    struct cg_image *reader = pool_open(readers, "volumes/p/v", CG_OPEN_READ);
    struct cg_image *image =
        pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);

    cg_image_unref(reader);
    cg_image_unref(image);
}

static void just_write(uint64_t off)
{
    struct cg_image *image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);

    pool_write(image, "xyz", 3, off);
    cg_image_unref(image);
}

/* What is sealed for a clone is there until it's linked, also if it's empty. */
static void test_clone_empty(void **state)
{
    static uint8_t zeros[MIB];
    struct cg_image *image;

    (void)state;
    alarm(50); /* less than a clone would go on trying */
    pool_create(pool.space, "volumes/p/v", MIB);
    pool_clone(pool.space, "volumes/p/v", "volumes/p/c");
    pool_clone(pool.space, "volumes/p/c", "volumes/p/d");
    pool_clone(pool.space, "volumes/p/v", "volumes/p/e");
    image = pool_open(pool.space, "volumes/p/e", CG_OPEN_WRITE);
    pool_clone(pool.space, "volumes/p/e", "volumes/p/f");
    pool_same(image, zeros, MIB);
    cg_image_unref(image);
    alarm(0);
}

/* Empty layers that readers were the reason for go when those are gone; not those that a reader, a
 * snapshot or a clone still has. */
static void test_empty_layers(void **state)
{
    struct cg_space *second = pool_second(&pool);
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_image *reader, *image;
    static uint8_t want[MIB + 8192];
    struct cg_error err;

    (void)state;
    pool_create(pool.space, "volumes/p/v", MIB);
    just_write(5000);
    memcpy(want + 5000, "xyz", 3);
    for (int i = 0; i < 5; i++) {
        come_and_go(second);
        assert_int_equal(layers_of("volumes/p/v"), 2);
    }

    reader = pool_open(second, "volumes/p/v", CG_OPEN_READ);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);
    assert_int_equal(layers_of("volumes/p/v"), 3);
    cg_image_unref(image);
    assert_int_equal(layers_of("volumes/p/v"), 3);
    pool_same(reader, want, MIB);
    /* Who opened before they went isn't overtaken by that. */
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    cg_image_unref(reader);
    come_and_go(second);
    pool_write(image, "abc", 3, 70000);
    memcpy(want + 70000, "abc", 3);
    cg_image_unref(image);

    /* Each resize puts an empty one above; a snapshot keeps them, then a clone. */
    assert_int_equal(cg_space_resize(pool.space, &v, MIB + 4096, &err), 0);
    assert_int_equal(cg_space_resize(pool.space, &v, MIB + 8192, &err), 0);
    pool_snapshot(pool.space, "volumes/p/v@s");
    just_write(9000);
    int kept = layers_of("volumes/p/v");
    pool_clone(pool.space, "volumes/p/v@s", "volumes/p/c");
    pool_remove(pool.space, "volumes/p/v@s");
    just_write(9000);
    assert_int_equal(layers_of("volumes/p/v"), kept);
    pool_remove(pool.space, "volumes/p/c");
    just_write(9000);
    assert_true(layers_of("volumes/p/v") < kept);
    memcpy(want + 9000, "xyz", 3);
    reader = pool_open(second, "volumes/p/v", CG_OPEN_READ);
    pool_same(reader, want, sizeof want);
    cg_image_unref(reader);
    cg_space_free(second);
}

/* Two snapshots of the same moment are two. */
static void test_snapshot_ids(void **state)
{
    struct cg_name a = pool_name("volumes/p/v@a"), b = pool_name("volumes/p/v@b");
    struct cg_identity first, second, again;
    struct cg_error err;

    (void)state;
    pool_create(pool.space, "volumes/p/v", MIB);
    pool_snapshot(pool.space, "volumes/p/v@a");
    assert_int_equal(cg_space_identify(pool.space, &a, &first, &err), 0);
    pool_snapshot(pool.space, "volumes/p/v@b");
    assert_int_equal(cg_space_identify(pool.space, &b, &second, &err), 0);
    assert_int_equal(cg_space_identify(pool.space, &a, &again, &err), 0);
    assert_string_not_equal(first.snapshot, second.snapshot);
    assert_string_equal(first.snapshot, again.snapshot);
}

/* How many working maps this process has in memory. */
static unsigned working_maps(void)
{
    char line[4096], prefix[80];
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned count = 0;

    assert_non_null(maps);
    snprintf(prefix, sizeof prefix, "%s/map-", pool.run);
    while (fgets(line, sizeof line, maps))
        count += strstr(line, prefix) != NULL;
    fclose(maps);
    return count;
}

/* What was sealed takes no memory that only writing needs. */
static void test_sealed_memory(void **state)
{
    struct cg_image *image;

    (void)state;
    pool_create(pool.space, "volumes/p/v", MIB);
    image = pool_open(pool.space, "volumes/p/v", CG_OPEN_WRITE);
    for (unsigned i = 0; i < 12; i++) {
        char name[32];
        put(image, (char)('a' + i), 4096, i * UINT64_C(4096));
        assert_int_equal(working_maps(), 1);
        snprintf(name, sizeof name, "volumes/p/v@s%u", i);
        pool_snapshot(pool.space, name);
    }
    for (unsigned i = 0; i < 12; i++)
        expect(image, (char)('a' + i), 4096, i * UINT64_C(4096));
    cg_image_unref(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_write_read, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_snapshot_clone, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_snapshot_ids, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_list, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_names, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_diff, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_space_is_given_back, one_pool_setup,
                                        one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_parent, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_clone_empty, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_empty_layers, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_sealed_memory, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_damage, one_pool_setup, one_pool_teardown),
        cmocka_unit_test_setup_teardown(test_large, one_pool_setup, one_pool_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
