#include "config.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/jobs/backup.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

/* Backups of volumes: what is read, what is stored, what comes back. */

static int setup(void **state)
{
    struct lab *lab = malloc(sizeof *lab);

    lab_begin(lab);
    *state = lab;
    return 0;
}

static int teardown(void **state)
{
    lab_end(*state);
    free(*state);
    return 0;
}

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_increment, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
