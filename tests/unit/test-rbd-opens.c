/* Who shares an open RBD image with whom, and what waits for what: over images that only know
 * whether they are open. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "core/base/cleanup.h"
#include "core/rbd/rbd.h"
#include "tests/unit/cmocka-all.h"

struct cg_rbd_image {
    bool write, writes_back, shut_out;
    atomic_bool locked;
    void (*done)(void *opaque);
    void *opaque;
};

static struct {
    struct cg_rbd rbd;
    bool writes_back;
    atomic_int opened, open; /* ever; now, until librbd is done */
    bool hold;               /* closing ends when let_go says so */
    sem_t closing, let_go;
    bool late; /* closing ends later than it's waited for */
    void (*closed)(void *opaque);
    void *closed_opaque;
} lab;

static const struct cg_name head = { .space = CG_NAME_RBD, .parts = 2, .part = { "rbd", "web" } };
static const struct cg_name snapshot = {
    .space = CG_NAME_RBD, .parts = 2, .part = { "rbd", "web" }, .snapshot = "s"
};

int cg_rbd_open_once(struct cg_rbd *rbd, const struct cg_name *name, bool write,
                     struct cg_rbd_image **ret_image, struct cg_error *err)
{
    (void)rbd, (void)name, (void)err;
    struct cg_rbd_image *im = calloc(1, sizeof *im);
    assert_non_null(im);
    im->write = write;
    im->writes_back = write && lab.writes_back;
    atomic_fetch_add(&lab.opened, 1);
    atomic_fetch_add(&lab.open, 1);
    *ret_image = im;
    return 0;
}

void cg_rbd_image_close(struct cg_rbd_image *im)
{
    atomic_fetch_sub(&lab.open, 1);
    free(im);
}

void cg_rbd_image_close_then(struct cg_rbd_image *im, void (*closed)(void *opaque), void *opaque)
{
    if (lab.late) {
        lab.closed = closed;
        lab.closed_opaque = opaque;
        return;
    }
    if (lab.hold) {
        sem_post(&lab.closing);
        sem_wait(&lab.let_go);
    }
    atomic_fetch_sub(&lab.open, 1);
    closed(opaque); /* until then others may look at it */
    free(im);
}

bool cg_rbd_image_writes_back(struct cg_rbd_image *im)
{
    return im->writes_back;
}

bool cg_rbd_image_shut_out(struct cg_rbd_image *im)
{
    return im->shut_out;
}

int cg_rbd_image_lock(struct cg_rbd_image *im, struct cg_error *err)
{
    (void)err;
    atomic_store(&im->locked, true);
    return 0;
}

rbd_image_t cg_rbd_image_handle(struct cg_rbd_image *im)
{
    return im;
}

static void image_close(void *self)
{
    struct cg_rbd_image *im = self;

    im->done(im->opaque);
}

static int image_pwrite(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                        struct cg_error *err)
{
    (void)self, (void)buf, (void)len, (void)off, (void)flags, (void)err;
    return 0;
}

static uint64_t image_size(void *self)
{
    (void)self;
    return 512;
}

static const struct cg_image_ops ops = {
    .name = "lab", .pwrite = image_pwrite, .size = image_size, .close = image_close
};

static struct cg_rbd_image *last; /* that was wrapped */

int cg_rbd_image_wrap(struct cg_rbd_image *im, bool read_only, void (*done)(void *opaque),
                      void *opaque, struct cg_image **ret_image, struct cg_error *err)
{
    (void)err;
    im->done = done;
    im->opaque = opaque;
    last = im;
    *ret_image = cg_image_new(&ops, im, read_only || !im->write);
    return 0;
}

static struct cg_image *open_as(const struct cg_name *name, unsigned flags)
{
    struct cg_image *image;
    struct cg_error err;

    assert_int_equal(cg_rbd_open(&lab.rbd, name, flags, &image, &err), 0);
    return image;
}

static int setup(void **state)
{
    (void)state;
    lab.rbd.opens = cg_rbd_opens_new();
    lab.rbd.config.timeout = 60;
    lab.writes_back = lab.hold = lab.late = false;
    lab.opened = lab.open = 0;
    sem_init(&lab.closing, 0, 0);
    sem_init(&lab.let_go, 0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(lab.open, 0);
    cg_rbd_opens_free(lab.rbd.opens);
    return 0;
}

static void test_sharing(void **state)
{
    (void)state;
    struct cg_image *reader = open_as(&head, CG_OPEN_READ);
    struct cg_image *another = open_as(&head, CG_OPEN_READ);
    assert_int_equal(lab.opened, 2); /* each as of now */
    struct cg_image *writer = open_as(&head, CG_OPEN_WRITE);
    struct cg_image *second = open_as(&head, CG_OPEN_WRITE);
    assert_int_equal(lab.opened, 3);
    struct cg_image *s1 = open_as(&snapshot, CG_OPEN_READ);
    struct cg_image *s2 = open_as(&snapshot, CG_OPEN_WRITE);
    assert_int_equal(lab.opened, 4);
    assert_true(cg_image_read_only(s2) && cg_image_read_only(reader));
    struct cg_rbd_shared *looked;
    struct cg_error err;
    assert_int_equal(cg_rbd_share(&lab.rbd, &snapshot, &looked, &err), 0);
    assert_int_equal(lab.opened, 4);
    assert_ptr_equal(cg_rbd_shared_handle(looked), last);
    cg_rbd_unshare(looked);
    last->shut_out = true; /* of no use to who comes */
    struct cg_image *s3 = open_as(&snapshot, CG_OPEN_READ);
    assert_int_equal(lab.opened, 5);
    for (struct cg_image **i =
             (struct cg_image *[]){ reader, another, writer, second, s1, s2, s3, NULL };
         *i; i++)
        cg_image_unref(*i);
}

/* The exclusive lock keeps other processes out; handles of this one share it, whoever came first.
 */
static void test_exclusive(void **state)
{
    (void)state;
    struct cg_image *first = open_as(&head, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);
    assert_true(last->locked);
    struct cg_image *second = open_as(&head, CG_OPEN_WRITE);
    struct cg_image *third = open_as(&head, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);
    assert_int_equal(lab.opened, 1);
    cg_image_unref(first);
    cg_image_unref(second);
    cg_image_unref(third);

    first = open_as(&head, CG_OPEN_WRITE);
    assert_false(last->locked);
    second = open_as(&head, CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE);
    assert_true(last->locked);
    assert_int_equal(lab.opened, 2);
    cg_image_unref(first);
    cg_image_unref(second);
}

static void *closer(void *arg)
{
    cg_image_unref(arg);
    return NULL;
}

struct opener {
    unsigned flags;
    struct cg_image *image;
};

static void *opener(void *arg)
{
    struct opener *o = arg;

    o->image = open_as(&head, o->flags);
    /* Whatever was acknowledged before shows now. */
    assert_int_equal(lab.open, 1);
    return NULL;
}

/* What was acknowledged and not written yet is written before others look. */
static void test_writeback(void **state)
{
    (void)state;
    const struct timespec moment = { 0, 20000000 };

    lab.writes_back = true;
    struct cg_image *writer = open_as(&head, CG_OPEN_WRITE);
    struct cg_image *reader = open_as(&head, CG_OPEN_READ);
    assert_int_equal(lab.opened, 1); /* by the one that knows */
    assert_true(cg_image_read_only(reader));
    cg_image_unref(reader);
    cg_image_unref(writer);
    for (unsigned flags = CG_OPEN_READ; flags <= CG_OPEN_WRITE; flags++) {
        struct opener o = { .flags = flags };
        pthread_t closing, opening;
        writer = open_as(&head, CG_OPEN_WRITE);
        lab.hold = true;
        assert_int_equal(pthread_create(&closing, NULL, closer, writer), 0);
        sem_wait(&lab.closing);
        assert_int_equal(pthread_create(&opening, NULL, opener, &o), 0);
        nanosleep(&moment, NULL); /* in which it could do wrong */
        assert_int_equal(lab.open, 1);
        lab.hold = false;
        sem_post(&lab.let_go);
        pthread_join(closing, NULL);
        pthread_join(opening, NULL);
        cg_image_unref(o.image);
    }
}

/* If the cluster is away for longer than one waits, it's refused, and goes on afterwards. */
static void test_writeback_away(void **state)
{
    (void)state;
    struct cg_error err;
    struct cg_image *image;

    lab.writes_back = lab.late = true;
    lab.rbd.config.timeout = 0;
    cg_image_unref(open_as(&head, CG_OPEN_WRITE));
    struct cg_rbd_image *left = last;
    assert_int_equal(cg_rbd_open(&lab.rbd, &head, CG_OPEN_WRITE, &image, &err), -ETIMEDOUT);
    assert_int_equal(cg_rbd_open(&lab.rbd, &head, CG_OPEN_READ, &image, &err), -ETIMEDOUT);
    assert_int_equal(lab.opened, 1);
    lab.late = false;
    cg_rbd_image_close(left);
    lab.closed(lab.closed_opaque);
    cg_image_unref(open_as(&head, CG_OPEN_WRITE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sharing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exclusive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writeback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writeback_away, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
