#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/files.h"
#include "core/jobs/migrate_spec.h"
#include "core/jobs/migration.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/scratch.h"

static struct cg_name name_of(const char *text)
{
    struct cg_name name;

    assert_int_equal(cg_name_parse(text, &name, NULL), 0);
    return name;
}

static const char *file_of(const char *target, const char *file)
{
    static char path[PATH_MAX + 32];
    char dir[PATH_MAX];
    struct cg_name name = name_of(target);

    assert_int_equal(cg_migration_dir(scratch, &name, dir, NULL), 0);
    snprintf(path, sizeof path, "%s%s%s", dir, *file ? "/" : "", file);
    return path;
}

static int begin(const char *target, const char *source, bool snapshots, struct cg_migration **ret,
                 struct cg_error *err)
{
    struct cg_name name = name_of(target);

    return cg_migration_begin(scratch, &name, source, snapshots, ret, err);
}

static void end(struct cg_migration *m)
{
    struct cg_error err;

    assert_int_equal(cg_migration_end(m, &err), 0);
    cg_migration_close(m);
}

static void test_record(void **state)
{
    struct cg_name name = name_of("rbd/pool/ns/web");
    struct cg_migration *m, *other;
    struct cg_error err;
    char uuid[CG_UUID_LEN + 1];

    (void)state;
    assert_int_equal(cg_migration_open(scratch, &name, &m, &err), -ENOENT);
    assert_int_equal(begin("rbd/pool/ns/web", "volumes/acme/web", false, &m, &err), 0);
    assert_int_equal(m->record.phase, CG_MIGRATION_PREPARING);
    strcpy(uuid, m->record.uuid);
    /* One process, and one open record, at a time. */
    assert_int_equal(begin("rbd/pool/ns/web", "volumes/acme/web", false, &other, &err), -EBUSY);
    assert_non_null(strstr(err.message, "another process is at this migration"));
    assert_int_equal(cg_migration_open(scratch, &name, &other, &err), -EBUSY);
    assert_int_equal(cg_migration_add(m, "volumes/acme/a@s", "one", &err), 0);
    assert_int_equal(cg_migration_add(m, "volumes/acme/b@s", "", &err), 0);
    strcpy(m->record.stream, "nbd");
    strcpy(m->record.address, "nbds://host:1");
    strcpy(m->record.listen, "0.0.0.0:1");
    strcpy(m->record.certificates, "/etc/tls");
    strcpy(m->record.image_id, "1234abcd");
    m->record.own = m->record.verify_peer = m->record.insecure = true;
    m->record.size = UINT64_C(5) << 40;
    m->record.spec = strdup("{\"type\":\"raw\"}");
    m->record.phase = CG_MIGRATION_READY;
    assert_int_equal(cg_migration_save(m, &err), 0);
    cg_migration_close(m);

    assert_int_equal(begin("rbd/pool/ns/web", "volumes/acme/other", false, &m, &err), -EBUSY);
    assert_non_null(strstr(err.message, "from volumes/acme/web already"));
    assert_int_equal(begin("rbd/pool/ns/web", "volumes/acme/web", true, &m, &err), -EBUSY);
    assert_int_equal(begin("rbd/pool/ns/web", "volumes/acme/web", false, &m, &err), 0);
    const struct cg_migration_record *r = &m->record;
    assert_string_equal(r->uuid, uuid);
    assert_string_equal(r->target, "rbd/pool/ns/web");
    assert_string_equal(r->source, "volumes/acme/web");
    assert_int_equal(r->phase, CG_MIGRATION_READY);
    assert_string_equal(r->stream, "nbd");
    assert_string_equal(r->address, "nbds://host:1");
    assert_string_equal(r->listen, "0.0.0.0:1");
    assert_string_equal(r->certificates, "/etc/tls");
    assert_string_equal(r->image_id, "1234abcd");
    assert_true(r->own && r->verify_peer && r->insecure && !r->snapshots);
    assert_int_equal(r->size, UINT64_C(5) << 40);
    assert_string_equal(r->spec, "{\"type\":\"raw\"}");
    assert_int_equal(r->count, 2);
    assert_string_equal(r->image[0].name, "volumes/acme/a@s");
    assert_string_equal(r->image[0].snapshot, "one");
    assert_string_equal(r->image[1].snapshot, "");
    end(m);
    assert_int_equal(access(file_of("rbd/pool/ns/web", ""), F_OK), -1);
    assert_int_equal(cg_migration_open(scratch, &name, &m, &err), -ENOENT);

    for (const char *const *bad =
             (const char *const[]){ "rbd/pool/web@s", "rbd/pool/web.p1", "volumes/acme/web", NULL };
         *bad; bad++)
        assert_int_equal(begin(*bad, "volumes/acme/web", false, &m, &err), -EINVAL);
}

/* What one leaves that died when it had just begun, or when it had all but ended. */
static void test_leftovers(void **state)
{
    struct cg_name name = name_of("rbd/pool/web");
    struct cg_migration *m;
    struct cg_error err;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cg_dir_make(AT_FDCWD, file_of("rbd/pool/web", ""), 0700, &err), 0);
        close(open(file_of("rbd/pool/web", "server.log"), O_CREAT | O_WRONLY, 0600));
        if (i == 0) {
            assert_int_equal(cg_migration_open(scratch, &name, &m, &err), -ENOENT);
        } else {
            assert_int_equal(begin("rbd/pool/web", "/dev/x", false, &m, &err), 0);
            end(m);
        }
        assert_int_equal(access(file_of("rbd/pool/web", ""), F_OK), -1);
    }
}

/* The record as it's written, with one piece of it replaced. */
static int read_with(const char *old, const char *new)
{
    static const char good[] =
        "{\"format\":1,\"target\":\"rbd/pool/web\",\"source\":\"/dev/x\",\"snapshots\":false,"
        "\"uuid\":\"00112233-4455-4677-8899-aabbccddeeff\",\"phase\":\"ready\",\"stream\":\"file\","
        "\"address\":\"/m\",\"own\":true,\"listen\":\"\",\"certificates\":\"\",\"insecure\":false,"
        "\"spec\":\"{}\",\"size\":1024,\"image_id\":\"ab\","
        "\"images\":[{\"name\":\"volumes/migrate/a@source\",\"snapshot\":\"\"}]}";
    struct cg_name name = name_of("rbd/pool/web");
    struct cg_migration_record record;
    struct cg_error err;
    char text[sizeof good + 256];
    const char *at = strstr(good, old);

    assert_non_null(at);
    int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, new, at + strlen(old));
    int fd = open(file_of("rbd/pool/web", "migration.json"), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    assert_int_equal(write(fd, text, (size_t)n), n);
    close(fd);
    int r = cg_migration_read(scratch, &name, &record, &err);
    if (r == 0)
        cg_migration_record_clear(&record);
    else if (r == -EINVAL || r == -ENOTSUP)
        assert_non_null(strstr(err.message, "migration.json"));
    return r;
}

static void test_damaged(void **state)
{
    static const char *const damage[][2] = {
        { "{\"format\":1", "{\"format\":0" },
        { "\"format\":1,", "" },
        { "rbd/pool/web", "rbd/pool/other" },
        { "rbd/pool/web", "volumes/pool/web" },
        { "\"uuid\":\"00112233-", "\"uuid\":\"../../" },
        { "\"ready\"", "\"done\"" },
        { "\"ready\"", "3" },
        { "\"file\"", "\"http\"" },
        { "\"file\"", "\"\"" },
        { "\"address\":\"/m\",", "" },
        { "\"address\":\"/m\"", "\"address\":\"\"" },
        { "\"spec\":\"{}\",", "" },
        { "\"size\":1024", "\"size\":0" },
        { "\"size\":1024", "\"size\":-1" },
        { "\"image_id\":\"ab\",", "" },
        { "{\"name\":\"volumes/migrate/a@source\",\"snapshot\":\"\"}", "" },
        { "volumes/migrate/a@source", "/etc/passwd" },
        { "\"snapshot\":\"\"", "\"snapshot\":\"one\"" },
        { "\"images\"", "\"image\"" },
        { "\"snapshot\":\"\"}", "\"snapshot\":\"\"" },
    };
    struct cg_error err;

    (void)state;
    assert_int_equal(cg_dir_make(AT_FDCWD, file_of("rbd/pool/web", ""), 0700, &err), 0);
    assert_int_equal(read_with("", ""), 0);
    assert_int_equal(read_with("\"format\":1", "\"format\":2"), -ENOTSUP);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        if (read_with(damage[i][0], damage[i][1]) != -EINVAL)
            fail_msg("taken: %s instead of %s", damage[i][1], damage[i][0]);
    }
    assert_int_equal(cg_tree_remove(AT_FDCWD, file_of("rbd/pool/web", ""), &err), 0);
}

static int count_name(void *opaque, const struct cg_name *target, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    (void)err;
    if (strcmp(cg_name_text(target, true, text), "rbd/pool/ns/web") == 0 ||
        strcmp(text, "rbd/pool/db") == 0)
        ++*(int *)opaque;
    return 0;
}

static void test_list(void **state)
{
    struct cg_migration *a, *b;
    struct cg_error err;
    int n = 0;

    (void)state;
    assert_int_equal(begin("rbd/pool/ns/web", "/dev/x", false, &a, &err), 0);
    assert_int_equal(begin("rbd/pool/db", "nbd://h/x", true, &b, &err), 0);
    assert_int_equal(cg_migration_list(scratch, count_name, &n, &err), 0);
    assert_int_equal(n, 2);
    end(a);
    end(b);
}

/* Takes and ends the migration again and again; the witness is there while it has it. */
static int take_turns(unsigned turns)
{
    char witness[PATH_MAX];

    snprintf(witness, sizeof witness, "%s/witness", scratch);
    for (unsigned i = 0; i < turns;) {
        struct cg_migration *m;
        struct cg_error err;
        int r = begin("rbd/pool/turns", "/dev/x", false, &m, &err);
        if (r == -EBUSY)
            continue;
        if (r < 0) {
            fprintf(stderr, "begin: %s\n", err.message);
            return 1;
        }
        int fd = open(witness, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0)
            return 2;
        close(fd);
        unlink(witness);
        if (i++ % 2 == 0 && cg_migration_end(m, &err) < 0) {
            fprintf(stderr, "end: %s\n", err.message);
            return 3;
        }
        cg_migration_close(m);
    }
    return 0;
}

static void test_processes(void **state)
{
    pid_t pid[3];
    int status;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        pid[i] = fork();
        if (pid[i] == 0)
            _exit(take_turns(100));
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(waitpid(pid[i], &status, 0), pid[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

static void test_addresses(void **state)
{
    static const struct {
        const char *address, *stream, *location;
        bool local;
    } cases[] = {
        { "/m", "file", "/m/volumes/p/v@s", true },
        { "file:///m", "file", "/m/volumes/p/v@s", true },
        { "nbd://h", "nbd", "nbd://h/volumes/p/v@s", false },
        { "nbd://h/", "nbd", "nbd://h/volumes/p/v@s", false },
        { "nbd://h:10809", "nbd", "nbd://h:10809/volumes/p/v@s", false },
        { "nbds://h:1/?tls-certificates=/d", "nbd", "nbds://h:1/volumes/p/v@s?tls-certificates=/d",
          false },
        { "nbds://h:1?x=/d", "nbd", "nbds://h:1/volumes/p/v@s?x=/d", false },
        { "nbd+unix:///?socket=/run/s", "nbd", "nbd+unix:///volumes/p/v@s?socket=/run/s", true },
        { "nbds+unix://?socket=/s", "nbd", "nbds+unix:///volumes/p/v@s?socket=/s", true },
        { "nbd://127.0.0.1:1", "nbd", "nbd://127.0.0.1:1/volumes/p/v@s", true },
        { "nbd://localhost", "nbd", "nbd://localhost/volumes/p/v@s", true },
        { "nbd://[::1]:1", "nbd", "nbd://[::1]:1/volumes/p/v@s", true },
        { "nbd://[2001:db8::1]:1", "nbd", "nbd://[2001:db8::1]:1/volumes/p/v@s", false },
        { "nbd://h/x", NULL, NULL, false },
        { "nbd+unix:///x?socket=/s", NULL, NULL, false },
        { "h:10809", NULL, NULL, false },
        { "m", NULL, NULL, false },
        { "http://h/", NULL, NULL, false },
        { "file://m", NULL, NULL, false },
        { "", NULL, NULL, false },
    };
    char location[CG_NAME_MAX * 2];
    struct cg_error err;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *stream = cg_migrate_stream(cases[i].address, &err);
        if (!cases[i].stream) {
            assert_null(stream);
            continue;
        }
        assert_non_null(stream);
        assert_string_equal(stream, cases[i].stream);
        assert_int_equal(cg_migrate_location(cases[i].address, "volumes/p/v@s", location, &err), 0);
        assert_string_equal(location, cases[i].location);
        assert_int_equal(cg_migrate_is_local(cases[i].address), cases[i].local);
    }
    assert_true(cg_migrate_is_wildcard("0.0.0.0:1") && cg_migrate_is_wildcard("[::]:1"));
    assert_false(cg_migrate_is_wildcard("10.0.0.0:1") || cg_migrate_is_wildcard("[::1]:1"));
}

static void same_spec(const char *address, const struct cg_migration_image *images, size_t count,
                      const char *want)
{
    struct cg_error err;
    json_t *json;

    assert_int_equal(cg_migrate_spec(address, images, count, &json, &err), 0);
    char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, want);
    free(text);
    json_decref(json);
}

static void test_spec(void **state)
{
    const struct cg_migration_image images[] = {
        { .name = "volumes/p/a@s", .snapshot = "one" },
        { .name = "volumes/p/b@s", .snapshot = "two" },
        { .name = "volumes/p/c@s" },
    };
    const struct cg_migration_image history = {
        .name = "backups/p/v/20261122T001500Z.qcow2",
    };

    (void)state;
    same_spec("/m", images + 2, 1,
              "{\"stream\":{\"file_path\":\"/m/volumes/p/c@s\",\"type\":\"file\"},"
              "\"type\":\"raw\"}");
    same_spec("nbd://h", &history, 1,
              "{\"stream\":{\"type\":\"nbd\","
              "\"uri\":\"nbd://h/backups/p/v/20261122T001500Z.qcow2\"},\"type\":\"qcow\"}");
    same_spec("nbd://h", images, 3,
              "{\"snapshots\":["
              "{\"name\":\"one\",\"stream\":{\"type\":\"nbd\",\"uri\":\"nbd://h/volumes/p/a@s\"},"
              "\"type\":\"raw\"},"
              "{\"name\":\"two\",\"stream\":{\"type\":\"nbd\",\"uri\":\"nbd://h/volumes/p/b@s\"},"
              "\"type\":\"raw\"}],"
              "\"stream\":{\"type\":\"nbd\",\"uri\":\"nbd://h/volumes/p/c@s\"},\"type\":\"raw\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),    cmocka_unit_test(test_leftovers),
        cmocka_unit_test(test_damaged),   cmocka_unit_test(test_list),
        cmocka_unit_test(test_processes), cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_spec),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
