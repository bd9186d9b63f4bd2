#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/backups/holds.h"
#include "core/backups/session.h"
#include "core/base/bytes.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/fault-store.h"

/* What others do to the repository in the middle of a backup. */

/* Runs a command just before the number-th call of that kind. */
struct trap {
    struct lab *lab;
    const char *what;
    _Atomic int number;
    const char *command;
};

static void spring(void *opaque, const char *what, const char *path)
{
    struct trap *t = opaque;

    (void)path;
    if (strcmp(what, t->what) == 0 && atomic_fetch_sub(&t->number, 1) == 1)
        lab_sh(t->lab, t->command);
}

static int backup_with(struct lab *lab, struct trap *t, struct cg_backup_result *ret,
                       struct cg_error *err)
{
    struct fault_store_faults f = { .before = spring, .opaque = t };
    struct cg_store *store;
    struct cg_repository *own = lab->repo;

    assert_int_equal(cg_store_dir_open(lab->dir, &store, err), 0);
    assert_int_equal(cg_repository_open_store(fault_store_new(store, &f), 0, &lab->repo, err), 0);
    int r = lab_try_backup(lab, "web", "acme", "web", ret, err);
    cg_repository_close(lab->repo);
    lab->repo = own;
    assert_true(t->number <= 0); /* it happened */
    return r;
}

static struct cg_point *point_of(struct lab *lab, const char *name)
{
    struct cg_project *project;
    struct cg_point *point;
    struct cg_error err;
    struct cg_name n;

    assert_int_equal(cg_name_parse(name, &n, &err), 0);
    assert_int_equal(cg_repository_project(lab->repo, n.part[0], false, &project, &err), 0);
    assert_int_equal(cg_project_point(project, n.part[1], n.part[2], &point, &err), 0);
    return point;
}

static void test_pins(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result web, db, res;
    char pin[CG_NAME_MAX];

    lab_backup(lab, "web", "acme", "web", &web);
    struct cg_point *p = point_of(lab, web.point);
    assert_int_equal(json_array_size(p->pins), 0);
    cg_point_free(p);
    lab_backup(lab, "db", "acme", "db", &db);
    p = point_of(lab, db.point);
    snprintf(pin, sizeof pin, "backups/acme/%s", json_string_value(json_array_get(p->pins, 0)));
    assert_string_equal(pin, web.point);
    cg_point_free(p);
    lab_backup(lab, "web", "acme", "web", &res);
    p = point_of(lab, res.point);
    assert_int_equal(json_array_size(p->pins), 2);
    assert_string_equal(p->parent, strrchr(web.point, '/') + 1);
    cg_point_free(p);
}

/* The points go between being chosen and being pinned: they aren't relied on. */
static void test_base_removed(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;
    struct cg_error err;

    lab_backup(lab, "web", "acme", "web", &res);
    lab_backup(lab, "db", "acme", "db", &res);
    /* The third time the session is written it has the pins. */
    struct trap t = { lab, "session_write", 3, "rm points/*/* && rm -r chunks pages" };
    if (backup_with(lab, &t, &res, &err) < 0)
        fail_msg("%s", err.message);
    assert_false(res.incremental);
    assert_non_null(strstr(res.reason, "the last point can't be read"));
    assert_int_equal(res.chunks_stored, 2);
    struct cg_point *p = point_of(lab, res.point);
    assert_int_equal(json_array_size(p->pins), 0);
    cg_point_free(p);
    lab_reopen(lab);
    lab_same_point(lab, res.point, "web");
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

static void test_revoked(void **state)
{
    struct lab *lab = *state;
    static const struct {
        const char *what;
        int number;
    } when[] = {
        { "session_write", 1 },  { "session_write", 2 }, { "session_put", 1 },
        { "session_put", 3 },    { "session_sync", 1 },  { "session_write", 3 },
        { "session_commit", 1 },
    };

    for (size_t i = 0; i < sizeof when / sizeof *when; i++) {
        struct cg_backup_result res;
        struct cg_error err;
        /* As a collector does, and after it somebody who removes what the dead left. */
        struct trap t = { lab, when[i].what, when[i].number, "rm sessions/*-*[0-9a-f]" };
        if (i == 3)
            t.command = "rm sessions/*-*[0-9a-f]; while ls -d sessions/*.tmp; do"
                        " rm -rf sessions/*.tmp; done >/dev/null 2>&1"; /* others still write */
        int r = backup_with(lab, &t, &res, &err);
        if (r != -ECANCELED || !strstr(err.message, "revoked"))
            fail_msg("%s %d: %d %s", when[i].what, when[i].number, r, r < 0 ? err.message : "");
        assert_int_equal(lab_points(lab, "acme", "web"), 0);
        assert_int_equal(fake_space_snapshots(lab->fake, "web"), 0);
        assert_int_equal(lab_count(lab, "acme/sessions"), 0);
    }
    struct cg_backup_result res;
    lab_backup(lab, "web", "acme", "web", &res);
    lab_same_point(lab, res.point, "web");
}

struct other {
    struct lab *lab;
    bool done;
    const char *volume;
    int result;
    struct cg_error err;
};

/* A second backup while the first one runs, by another handle of the repository. */
static int meanwhile(void *opaque, uint64_t done, uint64_t total)
{
    struct other *o = opaque;
    struct lab lab = *o->lab;
    struct cg_backup_result res;
    struct cg_error err;

    (void)done;
    (void)total;
    if (o->done)
        return 0;
    o->done = true;
    assert_int_equal(cg_repository_open(lab.dir, 0, &lab.repo, &err), 0);
    o->result = lab_try_backup(&lab, "db", "acme", o->volume, &res, &o->err);
    cg_repository_close(lab.repo);
    return 0;
}

static void test_two_at_once(void **state)
{
    struct lab *lab = *state;
    struct other other = { lab, .volume = "web" };
    struct cg_progress progress = { meanwhile, &other };
    struct cg_backup_options o = {
        .space = lab->space,
        .source = { .space = CG_NAME_VOLUMES, .parts = 2, .part = { "acme", "web" } },
        .project = "acme",
        .volume = "web",
        .progress = &progress,
    };
    struct cg_backup_result res;
    struct cg_error err;

    fake_space_punch(lab->fake, "web", MIB, 2100 * MIB); /* one chunk: one report, one thread */
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), 0);
    assert_int_equal(other.result, -EBUSY);
    assert_non_null(strstr(other.err.message, "backups/acme/web"));
    lab_same_point(lab, res.point, "web");
    /* Of another volume is no other's business; nor is its live session swept. */
    fake_space_renew(lab->fake, "web");
    other = (struct other){ lab, .volume = "db" };
    assert_int_equal(cg_backup(lab->repo, &o, &res, &err), 0);
    if (other.result < 0)
        fail_msg("%s", other.err.message);
    lab_same_point(lab, res.point, "web");
    lab_same_point(lab, "backups/acme/db/latest", "db");
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
    assert_int_equal(fake_space_snapshots(lab->fake, "db"), 1);
    assert_int_equal(lab_count(lab, "acme/sessions"), 0);
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
}

/* What a run uploads lies in its era; what it takes over stays where it is. */
static void test_eras(void **state)
{
    struct lab *lab = *state;
    struct cg_backup_result res;

    lab_backup(lab, "web", "acme", "web", &res);
    lab_sh(lab, "touch era/0000000a");
    lab_write(lab, "web", 64 << 10, 0, 7);
    lab_backup(lab, "web", "acme", "web", &res);
    struct cg_point *p = point_of(lab, res.point);
    assert_int_equal(p->era, 10);
    assert_int_equal(p->pages[0].era, 10);
    assert_int_equal(p->pages[1].era, 1);
    cg_point_free(p);
    assert_int_equal(lab_count(lab, "acme/chunks/00000001"), 2);
    assert_int_equal(lab_count(lab, "acme/chunks/0000000a"), 1);
    lab_same_point(lab, res.point, "web");
}

struct two {
    struct lab *lab;
    const char *volume;
    int result;
    struct cg_error err;
};

static void *run_ten(void *opaque)
{
    struct two *t = opaque;
    struct lab lab = { .fake = t->lab->fake, .space = t->lab->space };
    struct cg_error err;

    strcpy(lab.dir, t->lab->dir);

    assert_int_equal(cg_repository_open(lab.dir, 0, &lab.repo, &err), 0);
    for (int i = 0; i < 10 && t->result == 0; i++) {
        struct cg_backup_result res;
        t->result = lab_try_backup(&lab, t->volume, "acme", t->volume, &res, &t->err);
    }
    cg_repository_close(lab.repo);
    return NULL;
}

static void test_in_parallel(void **state)
{
    struct lab *lab = *state;
    struct two a = { lab, .volume = "web" }, b = { lab, .volume = "db" };
    pthread_t one, two;

    assert_int_equal(pthread_create(&one, NULL, run_ten, &a), 0);
    assert_int_equal(pthread_create(&two, NULL, run_ten, &b), 0);
    pthread_join(one, NULL);
    pthread_join(two, NULL);
    if (a.result < 0 || b.result < 0)
        fail_msg("%s %s", a.result < 0 ? a.err.message : "", b.result < 0 ? b.err.message : "");
    assert_int_equal(lab_points(lab, "acme", "web") + lab_points(lab, "acme", "db"), 20);
    lab_same_point(lab, "backups/acme/web/latest", "web");
    lab_same_point(lab, "backups/acme/db/latest", "db");
    assert_int_equal(lab_verify(lab, "backups", NULL, 0), 0);
    assert_int_equal(lab_count(lab, "acme/sessions"), 0);
    assert_int_equal(fake_space_snapshots(lab->fake, "web"), 1);
    assert_int_equal(fake_space_snapshots(lab->fake, "db"), 1);
}

/* Holding while somebody deletes, and the other way round: one of the two is refused. */
struct rival {
    struct lab *lab;
    const char *point; /* its name without the volume */
    const char *uuid;
    bool holds; /* what the rival does */
    unsigned at, calls;
    int result;
};

static int act(struct cg_repository *repo, const struct rival *x, bool hold, struct cg_error *err)
{
    struct cg_project *project;

    assert_int_equal(cg_repository_project(repo, "acme", false, &project, err), 0);
    return hold ? cg_point_hold(project, "web", x->point, x->uuid, err)
                : cg_point_trash(project, "web", x->point, err);
}

static void rival(void *opaque, const char *what, const char *path)
{
    struct rival *x = opaque;
    struct cg_error err;

    (void)path;
    (void)what;
    if (++x->calls == x->at)
        x->result = act(x->lab->repo, x, x->holds, &err);
}

static void test_hold_and_delete(void **state)
{
    struct lab *lab = *state;
    char uuid[CG_UUID_LEN + 1];
    struct cg_store *store;
    struct cg_repository *repo;
    unsigned won = 0, lost = 0;

    cg_uuid(uuid);
    for (int i = 0; i < 2; i++) {
        bool done = false;
        for (unsigned at = 1; !done; at++) {
            struct cg_backup_result res;
            struct cg_error err;
            lab_backup(lab, "web", "acme", "web", &res);
            struct rival x = { lab, strrchr(res.point, '/') + 1, uuid, i == 0, 0, 0, 1 };
            struct fault_store_faults f = { .before = rival, .opaque = &x };
            assert_int_equal(cg_store_dir_open(lab->dir, &store, &err), 0);
            assert_int_equal(cg_repository_open_store(fault_store_new(store, &f), 0, &repo, &err),
                             0);
            x.calls = 0;
            x.at = at;
            int r = act(repo, &x, !x.holds, &err);
            done = x.result == 1; /* its turn never came */
            int hold = x.holds ? x.result : r, trash = x.holds ? r : x.result;
            bool held = lab_count(lab, "acme/holds") == 1;
            bool there = lab_points(lab, "acme", "web") == 1;
            if (!done && ((hold == 0) != held || (trash == 0) == there || (held && !there)))
                fail_msg("%d, call %u: hold %d, delete %d", i, at, hold, trash);
            won += hold == 0;
            lost += trash == 0;
            cg_repository_close(repo);
            lab_sh(lab, "rm -rf holds points trash");
        }
    }
    assert_true(won > 2 && lost > 2);
}

/* A backup that commits in the same second while its predecessor goes into the trash. */
struct commit_rival {
    struct lab *lab;
    const char *point;
    pthread_t thread;
    bool started;
    int result;
};

static void *delete_point(void *opaque)
{
    struct commit_rival *x = opaque;
    struct cg_error err;
    struct rival y = { .point = x->point };

    x->result = act(x->lab->repo, &y, false, &err);
    return NULL;
}

static void at_commit(void *opaque, const char *what, const char *path)
{
    struct commit_rival *x = opaque;
    struct timespec until;

    (void)path;
    if (x->started || strcmp(what, "session_commit") != 0)
        return;
    x->started = true;
    assert_int_equal(pthread_create(&x->thread, NULL, delete_point, x), 0);
    /* It has all the time it needs, if it can be done now. */
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (pthread_timedjoin_np(x->thread, NULL, &until) == 0)
        x->thread = 0;
}

static int commit_at(struct cg_repository *repo, int64_t time, char ret[static CG_PART_MAX + 1],
                     struct cg_error *err)
{
    struct cg_session *s;

    int r = cg_session_begin(repo, "acme", "web", &s, err);
    if (r < 0)
        return r;
    struct cg_point *point = cg_point_new();
    point->time = time;
    point->size = point->original_size = 512;
    point->page_count = 1;
    point->pages = calloc(1, sizeof *point->pages);
    r = cg_session_commit(s, point, err);
    strcpy(ret, point->name);
    cg_point_free(point);
    cg_session_end(s);
    return r;
}

static void test_name_in_trash(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_store *store;
    struct cg_repository *repo;
    char first[CG_PART_MAX + 1], second[CG_PART_MAX + 1];
    struct commit_rival x = { .lab = lab, .point = first };
    struct fault_store_faults f = { .before = at_commit, .opaque = &x };

    assert_int_equal(commit_at(lab->repo, 1000000000, first, &err), 0);
    assert_int_equal(cg_store_dir_open(lab->dir, &store, &err), 0);
    assert_int_equal(cg_repository_open_store(fault_store_new(store, &f), 0, &repo, &err), 0);
    assert_int_equal(commit_at(repo, 1000000000, second, &err), 0);
    if (x.thread)
        pthread_join(x.thread, NULL);
    assert_true(x.started);
    assert_int_equal(x.result, 0);
    assert_string_equal(first, "20010909T014640Z");
    assert_string_equal(second, "20010909T014640Z-2");
    struct rival y = { .point = second };
    assert_int_equal(act(repo, &y, false, &err), 0);
    assert_int_equal(lab_count(lab, "acme/trash"), 2);
    cg_repository_close(repo);
}

static void latest_is(struct lab *lab, const char *point)
{
    struct cg_project *project;
    struct cg_point *head;
    struct cg_error err;

    assert_int_equal(cg_repository_project(lab->repo, "acme", false, &project, &err), 0);
    int r = cg_project_latest(project, "web", &head, &err);
    if (!point) {
        assert_int_equal(r, -EIO);
        return;
    }
    if (r < 0)
        fail_msg("%s", err.message);
    assert_string_equal(head->name, point);
    cg_point_free(head);
}

/* The clock was set back, and what came before can't be read: the next point says that it comes
 * after it, and does so also when it can be read again. */
static void test_clock_set_back(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    char name[CG_PART_MAX + 1], last[CG_PART_MAX + 1];

    for (int i = 0; i < 3; i++) {
        assert_int_equal(commit_at(lab->repo, 2000000000 + i, name, &err), 0);
        latest_is(lab, name);
    }
    lab_sh(lab, "sed -i s/format/fXrmat/ points/web/20330518T03332[12]Z");
    latest_is(lab, NULL);
    assert_int_equal(commit_at(lab->repo, 1000000000, last, &err), 0);
    latest_is(lab, last);
    assert_int_equal(commit_at(lab->repo, 1000000001, last, &err), 0);
    latest_is(lab, last);
    lab_sh(lab, "sed -i s/fXrmat/format/ points/web/20330518T03332[12]Z");
    latest_is(lab, last);
    /* Without the newest, nobody knows what comes after what. */
    lab_sh(lab, "sed -i s/format/fXrmat/ points/web/20010909T014641Z");
    latest_is(lab, NULL);
}

static int damaged_hold(struct cg_project *project, const char *point, const char *uuid)
{
    struct cg_error err;

    int r = cg_point_trash(project, "web", point, &err);
    assert_true(r < 0);
    assert_non_null(strstr(err.message, uuid));
    return r;
}

static void test_damaged_hold(void **state)
{
    struct lab *lab = *state;
    struct cg_error err;
    struct cg_project *project;
    char point[CG_PART_MAX + 1], uuid[CG_UUID_LEN + 1];
    static const char *const commands[] = { "truncate -s 10 holds/*", "truncate -s 99999 holds/*" };

    cg_uuid(uuid);
    assert_int_equal(commit_at(lab->repo, 1000000000, point, &err), 0);
    assert_int_equal(cg_repository_project(lab->repo, "acme", false, &project, &err), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cg_point_hold(project, "web", point, uuid, &err), 0);
        lab_sh(lab, commands[i]);
        assert_int_equal(damaged_hold(project, point, uuid), i ? -EFBIG : -EIO);
        assert_int_equal(cg_point_release(project, "web", point, uuid, &err), 0);
        assert_int_equal(lab_count(lab, "acme/holds"), 0);
    }
    /* What can't be looked at isn't held. */
    lab_sh(lab, "echo > points/web/20010909T014640Z");
    assert_int_equal(cg_point_hold(project, "web", point, uuid, &err), -EIO);
    assert_int_equal(lab_count(lab, "acme/holds"), 0);
    assert_int_equal(cg_point_trash(project, "web", point, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pins, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_base_removed, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_revoked, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_two_at_once, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_eras, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_in_parallel, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_hold_and_delete, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_name_in_trash, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_damaged_hold, lab_setup, lab_teardown),
        cmocka_unit_test_setup_teardown(test_clock_set_back, lab_setup, lab_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
