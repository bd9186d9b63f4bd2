#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/jobs/backup.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

/* Backups of volumes: what is read, what is stored, what comes back. */

static void test_increment(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result first, second;

    fake_space_add(lab->fake, "web", 10 * GIB);
    lab_write(lab, "web", 100 * MIB, 512 * MIB, 1);
    lab_write(lab, "web", 50 * MIB, 7 * GIB + 5 * MIB, 2);
    lab_backup(lab, "web", "acme", "web", &first);
    assert_false(first.incremental);
    assert_string_equal(first.reason, "there is no earlier point");
    assert_true(first.bytes_read <= 156 * MIB); /* holes aren't read */
    assert_int_equal(first.pages_stored, 2);
    lab_same_point(lab, first.point, "web");

    lab_write(lab, "web", 40 * MIB, 530 * MIB, 3);
    uint64_t read = fake_space_bytes_read(lab->fake);
    lab_backup(lab, "web", "acme", "web", &second);
    assert_true(second.incremental);
    assert_true(second.chunks_stored <= 10 + 3);
    assert_true(second.chunks_read <= 10 + 3);
    assert_true(second.bytes_stored <= 13 * 4 * MIB + 13 * 96 + 96 + 24576);
    assert_int_equal(second.pages_stored, 1);
    assert_true(fake_space_bytes_read(lab->fake) - read == second.bytes_read);
    lab_same_point(lab, second.point, "web");
    lab_reopen(lab);
    lab_same_point(lab, "backups/acme/web/latest", "web");
    assert_int_equal(lab_points(lab, "acme", "web"), 2);
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

static void ids(void *opaque, const char *path)
{
    struct cg_refs *refs = opaque;
    struct cg_ref ref = { .len = 1 };
    const char *name = strrchr(path, '/') + 1;

    if (strstr(path, "/points/") || !cg_unhex(ref.id, sizeof ref.id, name))
        return;
    int r = cg_refs_add(refs, &ref, NULL);
    if (r != 1)
        fail_msg("%s: the id is there twice", name);
}

static void test_shared(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result first, second, other;

    fake_space_add(lab->fake, "web", GIB);
    fake_space_add(lab->fake, "copy", 3 * GIB);
    lab_write(lab, "web", 64 * MIB, 128 * MIB, 1);
    lab_write(lab, "copy", 64 * MIB, 2 * GIB + 132 * MIB, 1);
    lab_backup(lab, "web", "acme", "web", &first);
    assert_int_equal(first.chunks_stored, 16);
    /* The same in another volume: known, but for a page. */
    lab_backup(lab, "copy", "acme", "copy", &second);
    assert_int_equal(second.chunks_stored, 0);
    assert_int_equal(second.chunks_known, 16);
    assert_true(second.bytes_stored < 24576);
    lab_same_point(lab, second.point, "copy");
    /* The very same page: known too. */
    lab_backup(lab, "web", "acme", "third", &second);
    assert_int_equal(second.bytes_stored, 0);
    lab_same_point(lab, second.point, "web");
    /* Another project shares nothing. */
    lab_backup(lab, "web", "other", "web", &other);
    assert_int_equal(other.chunks_stored, 16);
    struct cg_refs *seen = cg_refs_new(false);
    lab_files(lab, "acme", ids, seen);
    assert_int_equal(cg_refs_count(seen), 16 + 2);
    lab_files(lab, "other", ids, seen);
    assert_int_equal(cg_refs_count(seen), 2 * 16 + 3);
    cg_refs_free(seen);
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

static void test_same_chunks_at_once(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    /* Every chunk has the same content; the last one is shorter. */
    fake_space_add(lab->fake, "web", 256 * MIB + 512);
    for (unsigned i = 0; i < 64; i++)
        lab_write(lab, "web", 4 * MIB, i * 4 * MIB, 9);
    lab_write(lab, "web", 512, 256 * MIB, 9);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(lab_count(lab, "acme/chunks"), 2);
    assert_int_equal(res.chunks_stored, 2);
    assert_int_equal(res.chunks_known, 63);
    assert_true(res.bytes_stored < 5 * MIB);
    lab_same_point(lab, res.point, "web");
    lab_backup(lab, "web", "acme", "again", &res);
    assert_int_equal(res.chunks_stored, 0);
}

static void test_grown_punched_renewed(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    fake_space_add(lab->fake, "web", 2 * GIB + 3 * MIB);
    lab_write(lab, "web", 3 * MIB, 2 * GIB, 1);
    lab_write(lab, "web", 16 * MIB, 16 * MIB, 2);
    lab_backup(lab, "web", "acme", "web", &res);
    /* The chunk that was the last is longer now, though nothing in it changed. */
    fake_space_grow(lab->fake, "web", 5 * GIB);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_true(res.incremental);
    assert_int_equal(res.chunks_read, 1);
    lab_same_point(lab, res.point, "web");
    /* Zeros need no reading, and a page of zeros isn't stored. */
    fake_space_punch(lab->fake, "web", 4 * MIB, 2 * GIB);
    fake_space_punch(lab->fake, "web", 9 * MIB, 16 * MIB);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_true(res.incremental);
    assert_int_equal(res.chunks_read, 2); /* those of which only a part was given back */
    assert_int_equal(res.pages_stored, 1);
    lab_same_point(lab, res.point, "web");
    /* Nothing changed. */
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.bytes_stored + res.bytes_read, 0);
    lab_same_point(lab, res.point, "web");
    /* Its snapshots say nothing about it any more. */
    fake_space_renew(lab->fake, "web");
    lab_write(lab, "web", MIB, 100 * MIB, 3);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_false(res.incremental);
    assert_string_equal(res.reason, "the last point is of another image");
    assert_int_equal(res.chunks_stored, 1);
    lab_same_point(lab, res.point, "web");
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
    assert_int_equal(lab_points(lab, "acme", "web"), 5);
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

/* Of a diff that fails, the backup makes a full one. */
static void test_no_diff(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res = { .incremental = true };
    struct cg_error err;

    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_write(lab, "web", 8 * MIB, 4 * MIB, 1);
    lab_backup(lab, "web", "acme", "web", &res);
    res.incremental = true;
    for (unsigned n = 1; n < 50 && res.incremental; n++) {
        lab->faults.calls = 0;
        lab->faults.fail_at = n;
        int r = lab_try_backup(lab, "web", "acme", "web", &res, &err);
        lab->faults.fail_at = 0;
        if (r < 0 || !strstr(res.reason, "injected: diff"))
            res.incremental = true;
    }
    assert_false(res.incremental);
    assert_int_equal(res.chunks_read, 2);
    lab_same_point(lab, res.point, "web");
}

/* The audit looks at a few chunks of each kind, or at a share of them. */
static void test_audit(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    fake_space_add(lab->fake, "web", 8 * GIB + MIB);
    lab_write(lab, "web", 64 * MIB, 5 * GIB, 1);
    lab->audit = 1;
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.chunks_audited, 0); /* a full one */
    lab_write(lab, "web", MIB, 5 * GIB, 2);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_true(res.incremental);
    assert_int_equal(res.chunks_read, 1);
    assert_int_equal(res.chunks_audited, 2048); /* the last one is shorter */
    assert_true(res.bytes_audited == 8 * GIB - 3 * MIB);
    assert_true(res.bytes_read == 4 * MIB);
    lab->audit = 1e-9;
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.chunks_audited, 8);
    lab_write(lab, "web", 56 * MIB, 5 * GIB, 3);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(res.chunks_audited, 2 + 4); /* there are no more with data */
    lab->audit = 0.25;
    lab_backup(lab, "web", "acme", "web", &res);
    /* 512, or chance isn't fair. */
    assert_true(res.chunks_audited >= 350 && res.chunks_audited <= 700);
    lab_same_point(lab, res.point, "web");
}

static void test_wrong_diff(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    struct cg_error err;

    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_write(lab, "web", 8 * MIB, 4 * MIB, 1);
    lab_backup(lab, "web", "acme", "web", &res);
    lab->audit = 1;
    for (unsigned i = 0; i < 2; i++) { /* a chunk of data, one of zeros */
        lab_write(lab, "web", MIB, i ? 20 * MIB : 9 * MIB, 2);
        fake_space_lie(lab->fake, true);
        assert_int_equal(lab_try_backup(lab, "web", "acme", "web", &res, &err), -EBADMSG);
        assert_non_null(strstr(err.message, i ? "chunk 5 (at 20971520)" : "chunk 2 (at 8388608)"));
        assert_int_equal(lab_points(lab, "acme", "web"), 1 + i);
        assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
        /* It stays distrusted until there is another point. */
        fake_space_lie(lab->fake, false);
        lab_reopen(lab);
        fake_space_shrink(lab->fake, 0);
        assert_int_equal(lab_try_backup(lab, "web", "acme", "web", &res, &err), -EIO);
        fake_space_shrink(lab->fake, UINT64_MAX);
        lab_backup(lab, "web", "acme", "web", &res);
        assert_false(res.incremental);
        assert_non_null(strstr(res.reason, "an audit found"));
        lab_same_point(lab, res.point, "web");
        assert_int_equal(lab_count(lab, "acme/damaged"), 0);
    }
    lab_write(lab, "web", MIB, 40 * MIB, 3);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_true(res.incremental);
    lab_same_point(lab, res.point, "web");
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

static void test_explicit_snapshot(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_backup_result res;
    struct cg_backup_options o = {
        .space = lab->space,
        .source = { .space = CG_NAME_VOLUMES,
                    .parts = 2,
                    .part = { "acme", "web" },
                    .snapshot = "monday" },
        .project = "acme",
        .volume = "web",
    };

    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_write(lab, "web", 8 * MIB, 0, 1);
    assert_int_equal(cg_space_snapshot(lab->space, &o.source, 1, &err), 0);
    lab_write(lab, "web", 8 * MIB, 0, 2);
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), 0);
    struct cg_image *a = lab_open(lab, res.point), *b = lab_open(lab, "volumes/acme/web@monday");
    lab_same(a, b);
    cg_image_unref(a);
    cg_image_unref(b);
    /* It stays, and is a base like any other. */
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_true(res.incremental);
    assert_int_equal(res.chunks_read, 2);
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 2);
    /* A snapshot of that name but of another moment is no base. */
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), 0);
    assert_int_equal(cg_space_remove(lab->space, &o.source, 0, &err), 0);
    assert_int_equal(cg_space_snapshot(lab->space, &o.source, 1, &err), 0);
    lab_backup(lab, "web", "acme", "web", &res);
    assert_false(res.incremental);
    assert_string_equal(res.reason, "the snapshot of the last point is gone");
    lab_same_point(lab, res.point, "web");
}

static void test_open_image(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_backup_result res;
    struct cg_backup_options o = { .project = "acme", .volume = "file", .source_text = "./disk" };

    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_write(lab, "web", 8 * MIB, 4 * MIB, 1);
    o.image = lab_open(lab, "volumes/acme/web");
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), 0);
    assert_int_equal(res.chunks_stored, 2);
    lab_same_point(lab, res.point, "web");
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), 0);
    assert_false(res.incremental);
    assert_int_equal(res.chunks_read, 2);
    assert_int_equal(res.chunks_known, 2);
    assert_int_equal(res.bytes_stored, 0);
    cg_image_unref(o.image);
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 0);
}

static void test_shrinking_source(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_backup_result res;

    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_write(lab, "web", 32 * MIB, 0, 1);
    fake_space_shrink(lab->fake, 17 * MIB);
    assert_int_equal(lab_try_backup(lab, "web", "acme", "web", &res, &err), -EIO);
    assert_non_null(strstr(err.message, "shrank"));
    assert_int_equal(lab_points(lab, "acme", "web"), 0);
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 0);
    assert_int_equal(lab_count(lab, "acme/sessions"), 0);
    fake_space_shrink(lab->fake, UINT64_MAX);
    lab_backup(lab, "web", "acme", "web", &res);
    lab_same_point(lab, res.point, "web");
}

static int cancel(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    assert_true(done <= total && total == 32 * MIB);
    return done >= 16 * MIB;
}

static void test_cancelled(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_backup_result res;
    struct cg_progress progress = { .report = cancel };
    struct cg_backup_options o = {
        .space = lab->space,
        .source = { .space = CG_NAME_VOLUMES, .parts = 2, .part = { "acme", "web" } },
        .project = "acme",
        .volume = "web",
        .progress = &progress,
    };

    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_write(lab, "web", 32 * MIB, 0, 1);
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), -ECANCELED);
    assert_int_equal(lab_points(lab, "acme", "web"), 0);
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 0);
}

static int list_name(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    char *text = opaque;

    (void)err;
    if (entry->size)
        assert_true(entry->size == 64 * MIB && entry->time > 0 && !entry->directory);
    strcat(strcat(text, entry->name), " ");
    return 0;
}

static void list(struct cg_space *space, const char *prefix, char text[static 1024])
{
    struct cg_name n;
    struct cg_error err;

    text[0] = '\0';
    assert_int_equal(cg_name_parse_prefix(prefix, &n, &err), 0);
    if (cg_space_list(space, &n, list_name, text, &err) != 0)
        strcpy(text, err.message);
}

static void test_space(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_space *space;
    struct cg_backup_result first, second;
    struct cg_identity one, two;
    struct cg_name n;
    char text[1024];
    json_t *info;

    assert_int_equal(cg_backups_space(lab->repo, &space, &err), 0);
    list(space, "backups", text);
    assert_string_equal(text, "");
    list(space, "backups/acme", text);
    assert_string_equal(text, "the repository has no project 'acme'");
    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_backup(lab, "web", "acme", "web", &first);
    lab_backup(lab, "web", "acme", "web", &second);
    assert_string_not_equal(first.point, second.point);
    list(space, "backups", text);
    assert_string_equal(text, "acme ");
    list(space, "backups/acme", text);
    assert_string_equal(text, "web ");
    list(space, "backups/acme/web", text);
    assert_int_equal(strlen(text), strlen(strrchr(first.point, '/')) +
                                       strlen(strrchr(second.point, '/')) + strlen("latest "));
    list(space, "backups/acme/www", text);
    assert_string_equal(text, "there is no backup of acme/www");

    assert_int_equal(cg_name_parse("backups/acme/web/latest", &n, &err), 0);
    assert_int_equal(cg_space_identify(space, &n, &one, &err), 0);
    assert_int_equal(cg_space_resolve(space, &n, &err), 0);
    assert_string_equal(cg_name_text(&n, true, text), second.point);
    assert_int_equal(cg_space_identify(space, &n, &two, &err), 0);
    assert_string_equal(one.image, two.image);
    assert_int_equal(cg_space_info(space, &n, &info, &err), 0);
    assert_string_equal(json_string_value(json_object_get(info, "name")), second.point);
    assert_int_equal(json_integer_value(json_object_get(info, "sequence")), 2);
    json_decref(info);

    /* Removing the latest makes the one before it the latest. */
    assert_int_equal(cg_space_remove(space, &n, 0, &err), 0);
    assert_int_equal(cg_space_remove(space, &n, 0, &err), -ENOENT);
    assert_int_equal(lab_count(lab, "acme/trash"), 1);
    assert_int_equal(cg_name_parse("backups/acme/web/latest", &n, &err), 0);
    assert_int_equal(cg_space_resolve(space, &n, &err), 0);
    assert_string_equal(cg_name_text(&n, true, text), first.point);
    cg_space_free(space);
}

static void test_holds(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_space *space;
    struct cg_backup_result first, second;
    struct cg_name n, m;
    char a[CG_UUID_LEN + 1], b[CG_UUID_LEN + 1];

    cg_uuid(a);
    cg_uuid(b);
    assert_int_equal(cg_backups_space(lab->repo, &space, &err), 0);
    fake_space_add(lab->fake, "web", 64 * MIB);
    lab_backup(lab, "web", "acme", "web", &first);
    lab_backup(lab, "web", "acme", "web", &second);
    assert_int_equal(cg_name_parse(first.point, &n, &err), 0);
    assert_int_equal(cg_name_parse(second.point, &m, &err), 0);
    assert_int_equal(cg_space_hold(space, &n, "../x", &err), -EINVAL);
    assert_int_equal(cg_space_hold(space, &n, a, &err), 0);
    assert_int_equal(cg_space_hold(space, &n, a, &err), 0);
    assert_int_equal(cg_space_hold(space, &n, b, &err), 0);
    assert_int_equal(cg_space_hold(space, &m, a, &err), -EEXIST);
    assert_int_equal(cg_space_remove(space, &n, 0, &err), -EBUSY);
    assert_int_equal(cg_space_remove(space, &m, 0, &err), 0);
    assert_int_equal(cg_space_release(space, &m, a, &err), 0); /* not its */
    assert_int_equal(cg_space_release(space, &n, a, &err), 0);
    assert_int_equal(cg_space_release(space, &n, a, &err), 0);
    assert_int_equal(cg_space_remove(space, &n, 0, &err), -EBUSY);
    assert_non_null(strstr(err.message, b));
    assert_int_equal(cg_space_release(space, &n, b, &err), 0);
    assert_int_equal(cg_space_remove(space, &n, 0, &err), 0);
    assert_int_equal(cg_space_hold(space, &n, a, &err), -ENOENT);
    assert_int_equal(lab_count(lab, "acme/holds"), 0);
    /* A name in the trash isn't given again, also within its second. */
    unsigned trash = lab_count(lab, "acme/trash");
    for (int i = 0; i < 3; i++) {
        lab_backup(lab, "web", "acme", "web", &second);
        assert_int_equal(cg_name_parse(second.point, &m, &err), 0);
        assert_int_equal(cg_space_remove(space, &m, 0, &err), 0);
        assert_int_equal(lab_count(lab, "acme/trash"), ++trash);
    }
    cg_space_free(space);
}

static void test_open_repository(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_repository *repo;
    char path[128];

    assert_int_equal(cg_repository_create(lab->dir, &err), -EEXIST);
    snprintf(path, sizeof path, "%s/none", lab->dir);
    assert_int_equal(cg_repository_open(path, 0, &repo, &err), -ENOENT);
    assert_int_equal(cg_repository_create("/proc", &err), -ENOTEMPTY);
    assert_int_equal(cg_repository_open("/proc", 0, &repo, &err), -ENOENT);
    snprintf(path, sizeof path, "%s/repository.json", lab->dir);
    FILE *f = fopen(path, "r+");
    assert_int_equal(fprintf(f, "{\"format\": 2"), 12);
    fclose(f);
    assert_int_equal(cg_repository_open(lab->dir, 0, &repo, &err), -ENOTSUP);
    assert_non_null(strstr(err.message, "format 2; this version of cowgate reads format 1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_increment, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_shared, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_same_chunks_at_once, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_grown_punched_renewed, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_no_diff, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_audit, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_wrong_diff, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_explicit_snapshot, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_open_image, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_shrinking_source, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_cancelled, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_space, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_holds, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_open_repository, lab_setup_empty, lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
