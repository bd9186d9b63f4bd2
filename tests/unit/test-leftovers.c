#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

/* What backups that were killed, or that can't be read any more, are to those that come later. */

/* A snapshot as a backup into this repository makes it before it is killed. */
static void orphan(struct lab *lab, const char *volume)
{
    struct cg_name n = { .space = CG_NAME_VOLUMES, .parts = 2, .part = { "acme" } };
    struct cg_error err;

    strcpy(n.part[1], volume);
    snprintf(n.snapshot, sizeof n.snapshot, "cowgate-%.8s-0123456789abcdef",
             cg_repository_uuid(lab->repo));
    assert_int_equal(cg_space_snapshot(lab->space, &n, 1, &err), 0);
}

/* What can't be read elsewhere keeps what it may need, and not one snapshot more per backup. */
static void test_unreadable_elsewhere(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    struct cg_error err;
    static const char *const damage[] = { "sed -i s/key/kex/ ../zed/project.json",
                                          "sed -i s/format/fXrmat/ ../zed/points/db/*",
                                          "sed -i s/format/fXrmat/ points/other/*" };
    static const char *const repair[] = { "sed -i s/kex/key/ ../zed/project.json",
                                          "sed -i s/fXrmat/format/ ../zed/points/db/*",
                                          "sed -i s/fXrmat/format/ points/other/*" };

    lab_backup(lab, "db", "zed", "db", &res);
    lab_backup(lab, "db", "acme", "other", &res);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        lab_backup(lab, "web", "acme", "web", &res);
        lab_sh(lab, damage[i]);
        lab_reopen(lab);
        for (int j = 0; j < 3; j++) {
            lab_write(lab, "web", 64 << 10, 9 * MIB, (uint32_t)j);
            assert_int_equal(lab_try_backup(lab, "web", "acme", "web", &res, &err), 0);
            assert_true(res.incremental);
            assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
            assert_int_equal(fake_space_snapshots(lab->fake, "db"), 2);
        }
        orphan(lab, "web");
        assert_int_equal(lab_try_backup(lab, "web", "acme", "web", &res, &err), 0);
        assert_non_null(strstr(res.warning, "old snapshots of the source stay"));
        assert_int_equal(fake_space_snapshots(lab->fake, "web"), 2);
        lab_sh(lab, repair[i]);
        lab_reopen(lab);
        lab_backup(lab, "web", "acme", "web", &res);
        assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
        lab_same_point(lab, res.point, "web");
    }
    lab_backup(lab, "db", "zed", "db", &res);
    assert_true(res.incremental);
}

/* What a killed backup of another volume into another project left. */
static void test_swept_by_any(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    lab_backup(lab, "web", "acme", "web", &res);
    lab_backup(lab, "db", "zed", "db", &res);
    orphan(lab, "db");
    lab_sh(lab, "mkdir -p ../zed/sessions/0123-45.tmp && echo > ../zed/sessions/0123-45.tmp/7 &&"
                " echo > ../zed/sessions/0123-45");
    /* What is no session is in nobody's way. */
    lab_sh(lab, "mkdir -p sessions/odd && ln -s odd sessions/link && mkfifo sessions/pipe");
    lab_backup(lab, "web", "acme", "web", &res);
    assert_int_equal(lab_count(lab, "zed/sessions"), 0);
    assert_int_equal(fake_space_snapshots(lab->fake, "db"), 1);
    lab_backup(lab, "db", "zed", "db", &res);
    assert_true(res.incremental);
}

/* New keys would hide that the old ones are lost, and with them everything. */
static void test_lost_keys(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    struct cg_error err;
    char damaged[256];
    static const char *const left[] = { "", "rm -r points/web", "mv chunks pages ..",
                                        "mkdir -p trash/web/x" };

    lab_backup(lab, "web", "acme", "web", &res);
    lab_sh(lab, "mv project.json ..");
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        lab_sh(lab, *left[i] ? left[i] : "true");
        lab_reopen(lab);
        int r = lab_try_backup(lab, "web", "acme", "web", &res, &err);
        if (i == 2) { /* there is nothing */
            assert_int_equal(r, 0);
            lab_sh(lab, "rm -r project.json points chunks pages");
            continue;
        }
        assert_int_equal(r, -EIO);
        assert_non_null(strstr(err.message, "acme/project.json is missing"));
        assert_int_equal(lab_verify(lab, "backups", damaged, sizeof damaged), 1);
        assert_string_equal(damaged, "acme/project.json\n");
        assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
    }
    lab_sh(lab, "mv ../project.json . && mv ../chunks ../pages .");
    lab_reopen(lab);
    lab_backup(lab, "web", "acme", "web", &res);
    lab_same_point(lab, res.point, "web");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_unreadable_elsewhere, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_swept_by_any, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_lost_keys, lab_setup, lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
