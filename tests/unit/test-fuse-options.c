#include "config.h"

#include <errno.h>
#include <string.h>

#include "fuse/options.h"

#include "tests/unit/cmocka-all.h"

#define ARGS(...) ((char *[]){ (char *)"cowgate-fuse", __VA_ARGS__, NULL })
#define PARSE(o, err, ...)                                                                         \
    cg_options_parse((int)(sizeof ARGS(__VA_ARGS__) / sizeof(char *)) - 1, ARGS(__VA_ARGS__), o,   \
                     err)

/* The options that are left for libfuse, joined. */
static void rest(const struct cg_options *o, char ret[1024])
{
    ret[0] = '\0';
    for (int i = 1; i < o->rest.argc; i++) {
        strcat(ret, o->rest.argv[i]);
        strcat(ret, " ");
    }
}

static void test_plain(void **state)
{
    struct cg_options o;
    struct cg_error err;
    char text[1024];

    (void)state;
    assert_int_equal(PARSE(&o, &err, (char *)"/r", (char *)"/m"), 0);
    assert_string_equal(o.root, "/r");
    assert_string_equal(o.dir, "/m");
    assert_null(o.project);
    assert_false(o.read_only || o.foreground || o.help || o.version);
    rest(&o, text);
    assert_string_equal(text, "");
    cg_options_clear(&o);
}

static void test_of_mount(void **state)
{
    struct cg_options o;
    struct cg_error err;
    char text[1024];

    (void)state;
    /* As fstab gives them. */
    assert_int_equal(
        PARSE(&o, &err, (char *)"/r", (char *)"/m", (char *)"-o",
              (char *)"rw,nosuid,auto,user=joe,nofail,_netdev,comment=x,x-systemd.idle=1,"
                      "X-y,project=acme,allow_other,uid"),
        0);
    assert_string_equal(o.project, "acme");
    assert_false(o.read_only);
    rest(&o, text);
    assert_string_equal(text, "-o rw,nosuid,allow_other,uid "); /* libfuse refuses the last */
    cg_options_clear(&o);

    assert_int_equal(
        PARSE(&o, &err, (char *)"-f", (char *)"-o", (char *)"ro", (char *)"/r", (char *)"/m"), 0);
    assert_true(o.read_only && o.foreground);
    rest(&o, text);
    assert_string_equal(text, "-o ro ");
    cg_options_clear(&o);
}

static void test_wrong(void **state)
{
    struct cg_options o;
    struct cg_error err;

    (void)state;
    assert_int_equal(PARSE(&o, &err, (char *)"/r"), -EINVAL);
    assert_string_equal(err.message, "ROOT and DIR are needed");
    cg_options_clear(&o);
    assert_int_equal(PARSE(&o, &err, (char *)"/r", (char *)"/m", (char *)"/x"), -EINVAL);
    assert_non_null(strstr(err.message, "'/x'"));
    cg_options_clear(&o);
    assert_int_equal(PARSE(&o, &err, (char *)"--help"), 0);
    assert_true(o.help);
    cg_options_clear(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_of_mount),
        cmocka_unit_test(test_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
