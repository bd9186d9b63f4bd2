/* Whose a protection is, when others protect the same snapshot in the same moment: over a librbd
 * that has one snapshot and, at the right time, somebody else. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rbd/rbd.h"
#include "tests/unit/cmocka-all.h"

#define SNAPSHOT 7
#define KEYS 16

static struct {
    bool protected;
    char key[KEYS][256];     /* "" for none */
    void (*meanwhile)(void); /* once, before the next protecting */
} ceph;

/* What hold.c and marks.c ask librbd. */
int rbd_get_id(rbd_image_t image, char *id, size_t len)
{
    (void)image;
    snprintf(id, len, "1234");
    return 0;
}

int rbd_metadata_set(rbd_image_t image, const char *key, const char *value)
{
    int free_key = -1;

    (void)image, (void)value;
    for (int i = 0; i < KEYS; i++) {
        if (strcmp(ceph.key[i], key) == 0)
            return 0;
        if (!ceph.key[i][0])
            free_key = i;
    }
    assert_true(free_key >= 0);
    strcpy(ceph.key[free_key], key);
    return 0;
}

int rbd_metadata_remove(rbd_image_t image, const char *key)
{
    (void)image;
    for (int i = 0; i < KEYS; i++) {
        if (strcmp(ceph.key[i], key) == 0) {
            ceph.key[i][0] = '\0';
            return 0;
        }
    }
    return -ENOENT;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

int rbd_metadata_list(rbd_image_t image, const char *start, uint64_t max, char *keys,
                      size_t *key_len, char *vals, size_t *vals_len)
{
    (void)image, (void)max;
    qsort(ceph.key, KEYS, sizeof ceph.key[0], by_text);
    *key_len = *vals_len = 0;
    for (int i = 0; i < KEYS; i++) {
        if (!ceph.key[i][0] || strcmp(ceph.key[i], start) <= 0)
            continue;
        strcpy(keys + *key_len, ceph.key[i]);
        *key_len += strlen(ceph.key[i]) + 1;
        strcpy(vals + *vals_len, "host");
        *vals_len += sizeof "host";
    }
    return 0;
}

int rbd_snap_get_id(rbd_image_t image, const char *snapname, uint64_t *snap_id)
{
    (void)image, (void)snapname;
    *snap_id = SNAPSHOT;
    return 0;
}

int rbd_snap_get_name(rbd_image_t image, uint64_t snap_id, char *snapname, size_t *name_len)
{
    (void)image;
    assert_int_equal(snap_id, SNAPSHOT);
    snprintf(snapname, *name_len, "s1");
    return 0;
}

int rbd_snap_is_protected(rbd_image_t image, const char *snap_name, int *is_protected)
{
    (void)image, (void)snap_name;
    *is_protected = ceph.protected;
    return 0;
}

int rbd_snap_protect(rbd_image_t image, const char *snap_name)
{
    void (*meanwhile)(void) = ceph.meanwhile;

    (void)image, (void)snap_name;
    ceph.meanwhile = NULL;
    if (meanwhile)
        meanwhile();
    if (ceph.protected)
        return -EBUSY;
    ceph.protected = true;
    return 0;
}

int rbd_snap_unprotect(rbd_image_t image, const char *snap_name)
{
    (void)image, (void)snap_name;
    if (!ceph.protected)
        return -EINVAL;
    ceph.protected = false;
    return 0;
}

/* Nothing below comes into it. */
int rbd_snap_remove(rbd_image_t image, const char *snapname)
{
    (void)image, (void)snapname;
    abort();
}

int cg_rbd_snapshot(void *self, const struct cg_name *names, size_t count, struct cg_error *err)
{
    (void)self, (void)names, (void)count, (void)err;
    abort();
}

int cg_rbd_open_head(struct cg_rbd *rbd, const struct cg_name *name,
                     struct cg_rbd_image **ret_image, struct cg_error *err)
{
    (void)rbd, (void)name, (void)ret_image, (void)err;
    abort();
}

int cg_rbd_open_head_of(struct cg_rbd *rbd, const struct cg_name *snapshot,
                        struct cg_rbd_image **ret_image, uint64_t *ret_id, struct cg_error *err)
{
    (void)rbd, (void)snapshot, (void)ret_image, (void)ret_id, (void)err;
    abort();
}

rbd_image_t cg_rbd_image_handle(struct cg_rbd_image *image)
{
    (void)image;
    abort();
}

void cg_rbd_image_cleanup(struct cg_rbd_image **image)
{
    (void)image;
}

int cg_rbd_failed(int r, struct cg_error *err, const char *fmt, ...)
{
    return cg_error_set(err, -r, "%s", fmt);
}

static int marks(void)
{
    int count = 0;

    for (int i = 0; i < KEYS; i++)
        count += ceph.key[i][0] != '\0';
    return count;
}

static int setup(void **state)
{
    (void)state;
    memset(&ceph, 0, sizeof ceph);
    return 0;
}

static void test_alone(void **state)
{
    struct cg_error err;

    (void)state;
    assert_int_equal(cg_rbd_protect(NULL, "s1", &err), 0);
    assert_true(ceph.protected);
    assert_int_equal(marks(), 1);
    assert_int_equal(cg_rbd_protect(NULL, "s1", &err), 0); /* again is nothing */
    assert_int_equal(marks(), 1);
    assert_int_equal(cg_rbd_tidy(NULL, SNAPSHOT, &err), 0);
    assert_false(ceph.protected);
    assert_int_equal(marks(), 0);
}

static void person(void)
{
    assert_int_equal(rbd_snap_protect(NULL, "s1"), 0);
}

/* What a person protected while cowgate was about to stays protected. */
static void test_person(void **state)
{
    struct cg_error err;

    (void)state;
    ceph.meanwhile = person;
    assert_int_equal(cg_rbd_protect(NULL, "s1", &err), 0);
    assert_int_equal(marks(), 0);
    assert_int_equal(cg_rbd_tidy(NULL, SNAPSHOT, &err), 1);
    assert_true(ceph.protected);
}

static void other(void)
{
    struct cg_error err;

    assert_int_equal(cg_rbd_protect(NULL, "s1", &err), 0);
}

/* What another cowgate protected is cowgate's. */
static void test_other(void **state)
{
    struct cg_error err;

    (void)state;
    ceph.meanwhile = other;
    assert_int_equal(cg_rbd_protect(NULL, "s1", &err), 0);
    assert_int_equal(marks(), 1);
    assert_int_equal(cg_rbd_tidy(NULL, SNAPSHOT, &err), 0);
    assert_false(ceph.protected);
    assert_int_equal(marks(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_alone, setup),
        cmocka_unit_test_setup(test_person, setup),
        cmocka_unit_test_setup(test_other, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
