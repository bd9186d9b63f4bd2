#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/files.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/fault-store.h"

/* Backups whose n-th step fails, or is the process's last: afterwards there is a whole point or
 * none, and the next run puts right what was left. */

/* The repository through a store that fails. */
static void reopen_faulty(struct lab *lab, struct fault_store_faults *f)
{
    struct cg_error err;
    struct cg_store *store;

    cg_repository_close(lab->repo);
    assert_int_equal(cg_store_dir_open(lab->dir, &store, &err), 0);
    if (cg_repository_open_store(fault_store_new(store, f), 0, &lab->repo, &err) < 0)
        fail_msg("%s", err.message);
}

/* What must hold after a run that failed or died: nothing but whole points. */
static void check_sound(struct lab *lab, unsigned n)
{
    char damaged[4096];

    lab_reopen(lab);
    if (lab_verify(lab, "backups", damaged, sizeof damaged) > 0)
        fail_msg("after %u calls: damaged: %s", n, damaged);
}

/* And after the run that follows it. */
static void check_clean(struct lab *lab, unsigned n)
{
    struct cg_backup_result res;

    lab_backup(lab, "web", "acme", "web", &res);
    lab_same_point(lab, res.point, "web");
    if (fake_space_snapshots(lab->fake, "web") != 1 || lab_count(lab, "acme/sessions") != 0)
        fail_msg("after %u calls: %u snapshots, %u files in sessions/", n,
                 fake_space_snapshots(lab->fake, "web"), lab_count(lab, "acme/sessions"));
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

/* The next run is the project's first again. */
static void forget(struct lab *lab)
{
    struct cg_error err;
    char path[128];

    snprintf(path, sizeof path, "%s/acme", lab->dir);
    assert_int_equal(cg_tree_remove(AT_FDCWD, path, &err), 0);
    fake_space_renew(lab->fake, "web");
    lab_reopen(lab);
}

/* Under valgrind, which is twenty times slower, only some of the calls fail. */
static unsigned step(void)
{
    const char *valgrind = getenv("RUN_VALGRIND");

    return valgrind && *valgrind ? 43 : 1;
}

/* A volume of two pages with a few chunks and, unless first, a point and changes since. */
static void begin_round(struct lab *lab, unsigned n, bool first)
{
    struct cg_backup_result res;

    forget(lab);
    lab_write(lab, "web", 64 << 10, 8 * MIB, n);
    if (first)
        return;
    lab_backup(lab, "web", "acme", "web", &res);
    lab_write(lab, "web", 64 << 10, 9 * MIB, n);
    lab_write(lab, "web", 64 << 10, 2 * GIB, n);
}

static void sweep(struct lab *lab, bool first)
{
    struct fault_store_faults f = { .faults = &lab->faults };
    unsigned failed = 0, n;

    lab->audit = 1e-9;
    fake_space_add(lab->fake, "web", 3 * GIB);
    lab_write(lab, "web", 64 << 10, 2100 * MIB, 1);
    for (n = 1;; n += step()) {
        struct cg_backup_result res;
        struct cg_error err;
        begin_round(lab, n, first);
        reopen_faulty(lab, &f);
        atomic_store(&lab->faults.calls, 0);
        lab->faults.fail_at = n;
        int r = lab_try_backup(lab, "web", "acme", "web", &res, &err);
        unsigned calls = lab->faults.calls;
        lab->faults.fail_at = 0;
        check_sound(lab, n);
        if (r < 0) {
            failed++;
            if (r != -EIO || !strstr(err.message, "injected"))
                fail_msg("after %u calls: %s", n, err.message);
        } else {
            lab_same_point(lab, res.point, "web");
        }
        assert_int_equal(lab_points(lab, "acme", "web"), (r == 0) + !first);
        check_clean(lab, n);
        if (calls < n)
            break;
    }
    /* Most steps are needed; what isn't (reading a base, removing an old snapshot) did no harm. */
    assert_true(step() > 1 || (n > 25 && failed > n / 2));
}

static void test_first_fails(void **state)
{
    sweep(*state, true);
}

static void test_increment_fails(void **state)
{
    sweep(*state, false);
}

/* A child makes a backup and is killed at its n-th call of the store. True if it was. */
static bool killed_at(struct lab *lab, unsigned n, bool after)
{
    struct fault_store_faults f = { .kill_at = n, .kill_after = after };
    int status;

    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct cg_backup_result res;
        struct cg_error err;
        reopen_faulty(lab, &f);
        f.calls = 0;
        int r = lab_try_backup(lab, "web", "acme", "web", &res, &err);
        _exit(r < 0 ? 2 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return false;
    }
    assert_int_equal(WTERMSIG(status), SIGKILL);
    return true;
}

static void test_killed(void **state)
{
    struct lab *lab = *state;
    bool killed = true;
    unsigned n;

    fake_space_add(lab->fake, "web", 3 * GIB);
    lab_write(lab, "web", 64 << 10, 2100 * MIB, 1);
    for (n = 1; killed; n += step()) {
        for (int after = 0; after < 2; after++) {
            begin_round(lab, n, n % 2);
            cg_repository_close(lab->repo); /* nothing of it is used on both sides of the fork */
            lab->repo = NULL;
            killed = killed_at(lab, n, after);
            check_sound(lab, n);
            check_clean(lab, n);
        }
    }
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_fails, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_increment_fails, lab_setup_empty, lab_teardown),
        cmocka_unit_test_setup_teardown(test_killed, lab_setup_empty, lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
