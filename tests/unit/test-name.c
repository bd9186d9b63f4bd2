#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/name.h"
#include "tests/unit/cmocka-all.h"

#define A128                                                                                       \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"                             \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_valid(void **state)
{
    (void)state;
    static const char *const names[] = {
        "volumes/acme/web",
        "volumes/acme/web@before-update",
        "volumes/acme/web.p1",
        "volumes/acme/web@s.p12",
        "volumes/" A128 "/" A128 "@" A128 ".p1",
        "backups/acme/web/20261122T001500Z",
        "backups/acme/web/20261122T001500Z-2",
        "backups/acme/web/latest",
        "backups/acme/web/latest.p1",
        "backups/acme/web/20261122T001500Z.qcow2",
        "rbd/pool/image",
        "rbd/pool/ns/image@snap.p3",
        "volumes/a.b_c-d/0",
        "volumes/a/b.p0",
        "volumes/a/b.p01",
        "volumes/a/b.px",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cg_name n;
        struct cg_error err = { .message = "" };
        char text[CG_NAME_MAX];
        if (cg_name_parse(names[i], &n, &err) < 0)
            fail_msg("%s: %s", names[i], err.message);
        assert_string_equal(cg_name_text(&n, false, text), names[i]);
    }
    struct cg_name n;
    assert_int_equal(cg_name_parse("volumes/acme/web@s.p12", &n, NULL), 0);
    assert_int_equal(n.partition, 12);
    assert_string_equal(n.part[1], "web");
    assert_string_equal(n.snapshot, "s");
    char text[CG_NAME_MAX];
    assert_string_equal(cg_name_text(&n, true, text), "volumes/acme/web@s");
    assert_int_equal(cg_name_parse("backups/a/b/20261122T001500Z.qcow2.p1", &n, NULL), 0);
    assert_true(n.qcow2);
}

static void test_invalid(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "disk.raw",
        "volumes",
        "volumes/",
        "volumes/acme",
        "volumes/acme/",
        "volumes//web",
        "volumes/acme/web/",
        "volumes/acme/web/more",
        "volumes/../web",
        "volumes/acme/..",
        "volumes/.acme/web",
        "volumes/acme/-web",
        "volumes/acme/web@",
        "volumes/acme/web@a@b",
        "volumes/acme/web@latest",
        "volumes/acme/latest",
        "volumes/acme/web.qcow2",
        "volumes/acme.p1/web",
        "volumes/acme/web.p1.p2",
        "volumes/acme/w b",
        "volumes/acme/w\nb",
        "volumes/acme/w\xc3\xa4",
        "volumes/" A128 "a/web",
        "volumes/acme/" A128 "a",
        "volumes/acme/web@" A128 "a",
        "backups/acme/web",
        "backups/acme/web/20261122",
        "backups/acme/web/20261122T001500Z-1",
        "backups/acme/web/20261122T001500Z-02",
        "backups/acme/web/20261122T001500Z@x",
        "backups/acme/web/newest",
        "rbd/pool",
        "rbd/a/b/c/d",
        "a/b/c/d/e",
        "/etc/passwd",
        "pool/acme/web",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct cg_name n;
        struct cg_error err = { .message = "" };
        if (cg_name_parse(names[i], &n, &err) != -EINVAL)
            fail_msg("%s was taken", names[i]);
        assert_true(err.message[0]);
    }
    struct cg_name n;
    struct cg_error err;
    assert_int_equal(cg_name_parse("disk.raw", &n, &err), -EINVAL);
    assert_non_null(strstr(err.message, "write ./disk.raw"));
}

static void test_prefix(void **state)
{
    (void)state;
    struct cg_name n;

    assert_int_equal(cg_name_parse_prefix("", &n, NULL), 0);
    assert_int_equal(n.space, CG_NAME_ROOT);
    assert_int_equal(cg_name_parse_prefix("volumes", &n, NULL), 0);
    assert_int_equal(n.parts, 0);
    assert_int_equal(cg_name_parse_prefix("volumes/acme/", &n, NULL), 0);
    assert_int_equal(n.parts, 1);
    assert_int_equal(cg_name_parse_prefix("backups/acme/web", &n, NULL), 0);
    assert_int_equal(n.parts, 2);
    assert_int_equal(cg_name_parse_prefix("volumes//", &n, NULL), -EINVAL);
    assert_int_equal(cg_name_parse_prefix("other", &n, NULL), -EINVAL);
}

static void test_arguments(void **state)
{
    (void)state;
    assert_int_equal(cg_arg_kind("/dev/sda"), CG_ARG_PATH);
    assert_int_equal(cg_arg_kind("./x"), CG_ARG_PATH);
    assert_int_equal(cg_arg_kind("../x"), CG_ARG_PATH);
    assert_int_equal(cg_arg_kind("-"), CG_ARG_PATH);
    assert_int_equal(cg_arg_kind("nbd://localhost"), CG_ARG_URI);
    assert_int_equal(cg_arg_kind("nbd+unix:///x?socket=y"), CG_ARG_URI);
    assert_int_equal(cg_arg_kind("disk.raw"), CG_ARG_NAME);
    assert_int_equal(cg_arg_kind("http://x"), CG_ARG_NAME);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_invalid),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
