#include "config.h"

#include <stdio.h>
#include <string.h>

#include "fuse/nodes.h"

#include "tests/unit/cmocka-all.h"

static const struct cg_identity nobody;

static struct cg_name name_of(const char *text)
{
    struct cg_name name;
    struct cg_error err;

    assert_int_equal(cg_name_parse_prefix(text, &name, &err), 0);
    return name;
}

static struct cg_node *look_up(struct cg_nodes *nodes, const char *text, const char *id)
{
    struct cg_name name = name_of(text);
    struct cg_identity identity = { 0 };

    snprintf(identity.image, sizeof identity.image, "%s", id);
    struct cg_node *node = cg_nodes_look_up(nodes, &name, CG_NODE_IMAGE, &identity);
    assert_non_null(node);
    return node;
}

static void test_same_while_looked_up(void **state)
{
    struct cg_nodes *nodes = cg_nodes_new();
    struct cg_node *a = look_up(nodes, "volumes/acme/web", "1");
    struct cg_node *b = look_up(nodes, "volumes/acme/web.p1", "1");
    uint64_t generation = a->generation;

    (void)state;
    assert_ptr_not_equal(a, b);
    assert_ptr_equal(a, look_up(nodes, "volumes/acme/web", "1"));
    assert_ptr_equal(a, look_up(nodes, "volumes/acme/web", "1"));
    assert_int_equal(cg_nodes_count(nodes), 2);
    cg_nodes_forget(nodes, a, 2);
    assert_ptr_equal(a, look_up(nodes, "volumes/acme/web", "1"));
    cg_nodes_forget(nodes, a, 1);
    cg_nodes_forget(nodes, b, 1);
    assert_int_equal(cg_nodes_count(nodes), 1);
    cg_nodes_forget(nodes, a, 1);
    assert_int_equal(cg_nodes_count(nodes), 0);
    a = look_up(nodes, "volumes/acme/web", "1");
    assert_true(a->generation > generation); /* also if it has the old address */
    cg_nodes_free(nodes);                    /* with a node that nobody forgot */
}

static void test_made_again(void **state)
{
    struct cg_nodes *nodes = cg_nodes_new();
    struct cg_node *old = look_up(nodes, "volumes/acme/web", "1");
    struct cg_node *new = look_up(nodes, "volumes/acme/web", "2");

    (void)state;
    assert_ptr_not_equal(old, new);
    assert_string_equal(old->identity.image, "1");
    assert_ptr_equal(new, look_up(nodes, "volumes/acme/web", "2"));
    cg_nodes_forget(nodes, old, 1); /* must not take the new one's name */
    assert_ptr_equal(new, look_up(nodes, "volumes/acme/web", "2"));
    cg_nodes_forget(nodes, new, 3);
    assert_int_equal(cg_nodes_count(nodes), 0);

    struct cg_name name = name_of("rbd/pool/x");
    struct cg_node *image = cg_nodes_look_up(nodes, &name, CG_NODE_IMAGE, &nobody);
    struct cg_node *dir = cg_nodes_look_up(nodes, &name, CG_NODE_DIRECTORY, &nobody);
    assert_ptr_not_equal(image, dir);
    cg_nodes_free(nodes);
}

static void test_many(void **state)
{
    enum { MANY = 5000 };
    struct cg_nodes *nodes = cg_nodes_new();
    static struct cg_node *node[MANY];
    char text[64];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "volumes/acme/v%d", i);
        node[i] = look_up(nodes, text, "");
    }
    assert_int_equal(cg_nodes_count(nodes), MANY);
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof text, "volumes/acme/v%d", i);
        assert_ptr_equal(look_up(nodes, text, ""), node[i]);
        assert_string_equal(node[i]->name.part[1], strrchr(text, '/') + 1);
    }
    for (int i = 0; i < MANY; i += 2)
        cg_nodes_forget(nodes, node[i], 2);
    assert_int_equal(cg_nodes_count(nodes), MANY / 2);
    for (int i = 1; i < MANY; i += 2)
        cg_nodes_forget(nodes, node[i], 2);
    assert_int_equal(cg_nodes_count(nodes), 0);
    cg_nodes_free(nodes);
    cg_nodes_free(NULL);
}

static void test_numbers(void **state)
{
    (void)state;
    /* The reference values of FNV-1a. */
    assert_true(cg_nodes_number("a") == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(cg_nodes_number("foobar") == UINT64_C(0x85944171f73967e8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_while_looked_up),
        cmocka_unit_test(test_made_again),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
