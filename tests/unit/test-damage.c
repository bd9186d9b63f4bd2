#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

/* Changed bytes in the repository: reading says which object, verify finds and records it, the next
 * backup doesn't rely on it. */

static int setup(void **state)
{
    struct lab *lab = malloc(sizeof *lab);
    struct cg_backup_result res;

    lab_begin(lab);
    fake_space_add(lab->fake, "web", 3 * GIB);
    lab_write(lab, "web", 64 << 10, 8 * MIB, 1);
    lab_write(lab, "web", 64 << 10, 2100 * MIB, 2);
    lab_backup(lab, "web", "acme", "web", &res);
    *state = lab;
    return 0;
}

static int teardown(void **state)
{
    lab_end(*state);
    free(*state);
    return 0;
}

static int read_all(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    static uint8_t buf[4 << 20];

    for (uint64_t off = e->off; e->type == CG_DATA && off < e->off + e->len; off += sizeof buf) {
        int r = cg_image_pread(opaque, buf, sizeof buf, off, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Opens and reads the latest point from a repository of which nothing is cached. */
static int read_latest(struct lab *lab, struct cg_error *err)
{
    struct cg_repository *repo;
    struct cg_space *space;
    struct cg_image *image;
    struct cg_name n;

    assert_int_equal(cg_name_parse("backups/acme/web/latest", &n, err), 0);
    int r = cg_repository_open(lab->dir, 0, &repo, err);
    if (r < 0)
        return r;
    assert_int_equal(cg_backups_space(repo, &space, err), 0);
    r = cg_space_open(space, &n, CG_OPEN_READ, &image, err);
    if (r == 0) {
        r = cg_image_walk(image, 0, cg_image_size(image), read_all, image, err);
        cg_image_unref(image);
    }
    cg_space_free(space);
    cg_repository_close(repo);
    return r;
}

static off_t size_of(struct lab *lab, const char *path)
{
    char name[512];
    struct stat st;

    snprintf(name, sizeof name, "%s/%s", lab->dir, path);
    assert_int_equal(stat(name, &st), 0);
    return st.st_size;
}

static void flip_and_look(void *opaque, const char *path)
{
    struct lab *lab = opaque;
    off_t size = size_of(lab, path);
    char damaged[1024];
    struct cg_error err;
    bool object = strstr(path, "/chunks/") || strstr(path, "/pages/");

    const char *valgrind = getenv("RUN_VALGRIND");
    bool few = valgrind && *valgrind; /* it is twenty times slower there */

    /* All of the header, and some of the rest. */
    for (off_t at = 0; at < size; at += at < 96 ? (few ? 47 : 1) : size / (few ? 4 : 16) + 1) {
        lab_flip(lab, path, at);
        int r = read_latest(lab, &err);
        const char *named = strncmp(path, "repository.json", 15) == 0 ? path : path + 5;
        if ((r != -EIO && r != -ENOTSUP) || !strstr(err.message, named))
            fail_msg("%s at %ld: %d %s", path, (long)at, r, r < 0 ? err.message : "");
        if (strcmp(path, "repository.json") != 0 && (at % 16 == 0 || !object)) {
            lab_reopen(lab);
            assert_int_equal(lab_verify(lab, "backups", damaged, sizeof damaged), 1);
            assert_non_null(strstr(damaged, path));
            assert_int_equal(lab_count(lab, "acme/damaged"), object);
        }
        lab_flip(lab, path, at);
    }
    lab_reopen(lab);
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
    assert_int_equal(lab_count(lab, "acme/damaged"), 0); /* struck off */
}

static void visit(void *opaque, const char *path)
{
    if (!strstr(path, "/locks/") && !strstr(path, "/era/"))
        flip_and_look(opaque, path);
}

static void test_every_file(void **state)
{
    struct lab *lab = *state;

    assert_int_equal(lab_count(lab, "acme/chunks") + lab_count(lab, "acme/pages"), 4);
    lab_files(lab, "", visit, lab);
}

static void test_cut_and_lost(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    char name[512], damaged[1024];
    static const char *const under[] = { "acme/chunks", "acme/pages" };

    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "find %s/%s -type f -exec truncate -s -1 {} +", lab->dir,
                 under[i]);
        assert_int_equal(system(name), 0);
        assert_int_equal(read_latest(lab, &err), -EIO);
        lab_reopen(lab);
        /* Chunks that no page names any more aren't looked at. */
        assert_int_equal(lab_verify(lab, "backups/acme/web", damaged, sizeof damaged), 2);
        snprintf(name, sizeof name, "find %s/%s -type f -delete", lab->dir, under[i]);
        assert_int_equal(system(name), 0);
        assert_int_equal(read_latest(lab, &err), -EIO);
        assert_non_null(strstr(err.message, "is missing"));
        lab_reopen(lab);
        assert_int_equal(lab_verify(lab, "", damaged, sizeof damaged), 2);
    }
}

static void flip(void *opaque, const char *path)
{
    lab_flip(opaque, path, -1);
}

/* under is damaged, verify records it, and the next backup (full, or of a small change) stands on
 * nothing of it. */
static void heal(struct lab *lab, const char *under, bool incremental, unsigned stored)
{
    struct cg_backup_result res;
    char point[CG_NAME_MAX];

    lab_backup(lab, "web", "acme", "web", &res);
    lab_files(lab, under, flip, lab);
    lab_reopen(lab);
    assert_true(lab_verify(lab, "backups", NULL, 0) > 0);
    if (!incremental)
        fake_space_renew(lab->fake, "web");
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.incremental, incremental);
    assert_int_equal(res.chunks_stored, stored);
    assert_int_equal(lab_count(lab, "acme/damaged"), 0); /* of the same era: replaced */
    strcpy(point, res.point);
    lab_reopen(lab);
    lab_same_point(lab, point, "web");
    assert_int_equal(lab_verify(lab, point, NULL, 0), 0);
    /* The one after it too, which may stand on what was stored anew. */
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.chunks_stored, 0);
    lab_same_point(lab, res.point, "web");
    assert_int_equal(lab_verify(lab, res.point, NULL, 0), 0);
}

/* In a later era what is damaged stays, and recorded; but it's stored anew only once. */
static void test_heal_in_later_era(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    char command[256];

    lab_backup(lab, "web", "acme", "other", &res);
    lab_files(lab, "acme/chunks", flip, lab);
    lab_reopen(lab);
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 2);
    snprintf(command, sizeof command, "touch %s/acme/era/00000002", lab->dir);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 6; i++) {
        if (i == 3)
            fake_space_renew(lab->fake, "web");
        lab_backup(lab, "web", "acme", i % 3 ? "web" : "other", &res);
        assert_int_equal(res.chunks_stored, i == 0 ? 2 : 0);
        lab_reopen(lab);
        lab_same_point(lab, res.point, "web");
        assert_int_equal(lab_verify(lab, res.point, NULL, 0), 0);
    }
    assert_int_equal(lab_count(lab, "acme/damaged"), 2);
    lab_same_point(lab, "backups/acme/web/latest", "web");
}

static void test_heal_full_chunks(void **state)
{
    heal(*state, "acme/chunks", false, 2);
}

static void test_heal_incremental_chunks(void **state)
{
    heal(*state, "acme/chunks", true, 2);
}

/* Chunks that only damaged pages name aren't known to be there. */
static void test_heal_full_pages(void **state)
{
    heal(*state, "acme/pages", false, 2);
}

static void test_heal_incremental_pages(void **state)
{
    heal(*state, "acme/pages", true, 2);
}

/* Nobody has run verify, but a page that can't be read isn't relied on either. */
static void test_unseen_page(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    lab_files(lab, "acme/pages", flip, lab);
    lab_reopen(lab);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.chunks_stored, 2);
    lab_reopen(lab);
    lab_same_point(lab, res.point, "web");
}

static void test_unseen_point(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    lab_files(lab, "acme/points", flip, lab);
    lab_reopen(lab);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_false(res.incremental);
    assert_non_null(strstr(res.reason, "the last point can't be read"));
    lab_same_point(lab, res.point, "web");
    char damaged[1024];
    assert_int_equal(lab_verify(lab, "backups", damaged, sizeof damaged), 1);
}

static int find_latest(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    (void)err;
    if (strcmp(entry->name, "latest") == 0)
        snprintf(opaque, 256, "%s", entry->description);
    return 0;
}

/* A bit of the newest point's sequence, or all of it, never makes an older one the latest; and
 * listing says what opening says. */
static void test_never_an_older_point(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    struct cg_space *space;
    struct cg_name n;
    struct cg_error err;
    char command[1024], listed[256] = "";
    static const char *const edits[] = { "s/sequence\": 3/sequence\": 1/",
                                         "s/sequence\": 3/sequence\": 2/", "s/format/fXrmat/" };

    lab_backup(lab, "web", "acme", "web", &res);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(cg_backups_space(lab->repo, &space, &err), 0);
    assert_int_equal(cg_name_parse_prefix("backups/acme/web", &n, &err), 0);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        snprintf(command, sizeof command,
                 "cd %s/acme/points/web && cp -p %s ../kept && sed -i '%s' %s", lab->dir,
                 strrchr(res.point, '/') + 1, edits[i], strrchr(res.point, '/') + 1);
        assert_int_equal(system(command), 0);
        assert_int_equal(read_latest(lab, &err), -EIO);
        assert_non_null(strstr(err.message, strrchr(res.point, '/') + 1));
        assert_int_equal(cg_space_list(space, &n, find_latest, listed, &err), 0);
        assert_non_null(strstr(listed, "isn't a sound point"));
        snprintf(command, sizeof command, "cd %s/acme/points && mv kept web/%s", lab->dir,
                 strrchr(res.point, '/') + 1);
        assert_int_equal(system(command), 0);
    }
    assert_int_equal(cg_space_list(space, &n, find_latest, listed, &err), 0);
    assert_non_null(strstr(listed, strrchr(res.point, '/') + 1));
    cg_space_free(space);
}

/* Something else in the place of a chunk: no reader waits for it or follows it, verify goes on, and
 * the next backup puts the chunk there. */
static void test_other_things(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    struct cg_error err;
    char command[1024], damaged[1024];
    static const char *const things[] = { "ln -s /etc/passwd $1",
                                          "ln -s none $1",
                                          "mkfifo $1",
                                          "mkdir $1",
                                          "mkdir $1 && touch $1/x",
                                          "python3 -c 'import socket, sys; "
                                          "socket.socket(1).bind(sys.argv[1])' $1" };

    for (size_t i = 0; i < sizeof things / sizeof *things; i++) {
        snprintf(command, sizeof command,
                 "cd %s/acme/chunks && set -- $(find . -type f) && rm $1 $2 && cd ${1%%/*} &&"
                 " set -- ${1##*/} && %s",
                 lab->dir, things[i]);
        assert_int_equal(system(command), 0);
        lab_reopen(lab);
        assert_int_equal(read_latest(lab, &err), -EIO);
        assert_int_equal(lab_verify(lab, "backups", damaged, sizeof damaged), 2);
        assert_int_equal(lab_count(lab, "acme/damaged"), 2);
        lab_backup(lab, "web", "acme", "web", &res);
        assert_int_equal(res.chunks_stored, 2);
        assert_int_equal(lab_count(lab, "acme/damaged"), 0);
        lab_same_point(lab, res.point, "web");
        assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
    }
}

/* A point copied over another, or into another volume, isn't taken for it. */
static void test_copied_point(void **state)
{
    struct lab *lab = *state;
    char command[1024], damaged[1024];

    snprintf(command, sizeof command,
             "cd %s/acme/points && mkdir www && cp web/* www/ && cp web/* web/20010101T000000Z",
             lab->dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(lab_verify(lab, "backups", damaged, sizeof damaged), 2);
    assert_non_null(strstr(damaged, "acme/points/www/"));
    assert_non_null(strstr(damaged, "acme/points/web/20010101T000000Z"));
    lab_same_point(lab, "backups/acme/web/latest", "web");
}

/* Pages and chunks in another's place have the wrong id. */
static void test_swapped_objects(void **state)
{
    struct lab *lab = *state;
    char command[1024];
    struct cg_error err;

    snprintf(command, sizeof command,
             "cd %s/acme/chunks && set -- $(find . -type f) && mv $1 t && mv $2 $1 && mv t $2",
             lab->dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(read_latest(lab, &err), -EIO);
    assert_non_null(strstr(err.message, "another object's id"));
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_and_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heal_full_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heal_in_later_era, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heal_incremental_chunks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heal_full_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_heal_incremental_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unseen_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unseen_point, setup, teardown),
        cmocka_unit_test_setup_teardown(test_never_an_older_point, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_things, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copied_point, setup, teardown),
        cmocka_unit_test_setup_teardown(test_swapped_objects, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
