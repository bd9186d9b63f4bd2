#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/jobs/copy.h"
#include "tests/unit/fake-image.h"
#include "tests/unit/cmocka-all.h"

/* Not a multiple of a piece or of a block. */
#define SIZE ((21 << 20) + 1536)

static uint8_t *pattern(size_t len, unsigned seed)
{
    uint8_t *p = malloc(len);

    assert_non_null(p);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((i * 2654435761u + seed) >> 13 | 1);
    return p;
}

static void put(struct cg_image *image, uint64_t off, size_t len, unsigned seed)
{
    struct cg_error err;
    CG_CLEANUP(cg_free) uint8_t *p = pattern(len, seed);

    assert_int_equal(cg_image_pwrite(image, p, len, off, 0, &err), 0);
}

/* Data with zeros in it, small and large gaps, data at both ends. */
static void fill(struct cg_image *image)
{
    struct cg_error err;
    static const uint8_t zeros[65536];

    put(image, 0, 100000, 1);
    put(image, 110000, 5000, 2);
    put(image, 3 << 20, 6 << 20, 3);
    assert_int_equal(cg_image_pwrite(image, zeros, sizeof zeros, (4 << 20) + 100, 0, &err), 0);
    assert_int_equal(cg_image_pwrite(image, zeros, sizeof zeros, 12 << 20, 0, &err), 0);
    put(image, SIZE - 700, 700, 4);
}

static void assert_same(struct cg_image *a, struct cg_image *b)
{
    struct cg_error err;
    CG_CLEANUP(cg_free) uint8_t *x = malloc(SIZE);
    CG_CLEANUP(cg_free) uint8_t *y = malloc(SIZE);

    assert_int_equal(cg_image_pread(a, x, SIZE, 0, &err), 0);
    assert_int_equal(cg_image_pread(b, y, SIZE, 0, &err), 0);
    assert_memory_equal(x, y, SIZE);
}

static int count_data(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    (void)err;
    if (extent->type == CG_DATA)
        *(uint64_t *)opaque += extent->len;
    return 0;
}

static uint64_t data_in(struct cg_image *image)
{
    struct cg_error err;
    uint64_t n = 0;

    assert_int_equal(cg_image_walk(image, 0, cg_image_size(image), count_data, &n, &err), 0);
    return n;
}

static void test_sparse(void **state)
{
    (void)state;
    struct cg_error err;

    _Atomic uint64_t bytes_read = 0;

    for (int dirty = 0; dirty < 2; dirty++) {
        CG_CLEANUP(cg_image_cleanup)
        struct cg_image *source = fake_image_new(SIZE, NULL, &bytes_read);
        CG_CLEANUP(cg_image_cleanup) struct cg_image *target = fake_image_new(SIZE, NULL, NULL);
        struct cg_copy_options o = { .target_is_zero = !dirty };
        fill(source);
        bytes_read = 0;
        if (dirty)
            put(target, 0, SIZE, 9);
        assert_int_equal(cg_copy(source, target, &o, &err), 0);
        /* Holes are not read, but for small gaps. */
        assert_true(bytes_read < data_in(source) + 65536);
        assert_same(source, target);
        /* 16 blocks of zeros in the middle of data, 15 of them whole, 16 alone. */
        assert_true(data_in(target) <= data_in(source) - 31 * 4096);
    }
}

static void test_too_small(void **state)
{
    (void)state;
    struct cg_error err;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *source = fake_image_new(SIZE, NULL, NULL);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *target = fake_image_new(SIZE - 512, NULL, NULL);
    struct cg_copy_options o = { .target_is_zero = true };

    assert_int_equal(cg_copy(source, target, &o, &err), -ENOSPC);
}

/* Every call fails once: the copy fails with it and nothing hangs or leaks. */
static void test_faults(void **state)
{
    (void)state;
    struct cg_error err;

    for (unsigned n = 1;; n++) {
        struct fake_faults faults = { .fail_at = 0 };
        CG_CLEANUP(cg_image_cleanup) struct cg_image *source = fake_image_new(SIZE, &faults, NULL);
        CG_CLEANUP(cg_image_cleanup) struct cg_image *target = fake_image_new(SIZE, &faults, NULL);
        struct cg_copy_options o = { .target_is_zero = n % 2 };
        fill(source);
        faults.calls = 0;
        faults.fail_at = n;
        err.message[0] = '\0';
        int r = cg_copy(source, target, &o, &err);
        if (r == 0) {
            assert_true(faults.calls < n);
            assert_true(n > 10);
            assert_false(faults.unflushed);
            faults.fail_at = 0;
            assert_same(source, target);
            break;
        }
        assert_int_equal(r, -EIO);
        assert_non_null(strstr(err.message, "injected"));
    }
}

struct cancel {
    _Atomic unsigned reports;
    unsigned at;
    _Atomic uint64_t most;
};

static int cancel(void *opaque, uint64_t done, uint64_t total)
{
    struct cancel *c = opaque;

    assert_true(done <= total);
    if (done == total)
        atomic_store(&c->most, done);
    return atomic_fetch_add(&c->reports, 1) + 1 == c->at;
}

static void test_progress(void **state)
{
    (void)state;
    struct cg_error err;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *source = fake_image_new(SIZE, NULL, NULL);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *target = fake_image_new(SIZE, NULL, NULL);
    struct cancel c = { .at = 0 };
    struct cg_progress p = { cancel, &c };
    struct cg_copy_options o = { .target_is_zero = true, .progress = &p };

    fill(source);
    assert_int_equal(cg_copy(source, target, &o, &err), 0);
    assert_true(c.most == SIZE);
    c.reports = 0;
    c.at = 2;
    assert_int_equal(cg_copy(source, target, &o, &err), -ECANCELED);
}

struct reader {
    int fd;
    uint8_t *bytes;
    size_t len, stop; /* closes the pipe at stop */
};

static void *read_pipe(void *opaque)
{
    struct reader *d = opaque;

    while (d->len < d->stop) {
        ssize_t n = read(d->fd, d->bytes + d->len, d->stop - d->len);
        if (n <= 0)
            break;
        d->len += (size_t)n;
    }
    close(d->fd);
    return NULL;
}

/* Streams into a pipe that is closed after stop bytes. */
static int stream(struct cg_image *source, struct reader *d, size_t stop, struct cg_error *err)
{
    int fds[2];
    pthread_t thread;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    *d = (struct reader){ .fd = fds[0], .bytes = calloc(1, SIZE), .stop = stop };
    assert_int_equal(pthread_create(&thread, NULL, read_pipe, d), 0);
    int r = cg_copy_stream(source, fds[1], NULL, err);
    close(fds[1]);
    pthread_join(thread, NULL);
    return r;
}

static void test_stream(void **state)
{
    (void)state;
    struct cg_error err;
    struct reader d;
    _Atomic uint64_t bytes_read = 0;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *source = fake_image_new(SIZE, NULL, &bytes_read);
    CG_CLEANUP(cg_image_cleanup) struct cg_image *got = fake_image_new(SIZE, NULL, NULL);

    fill(source);
    assert_int_equal(stream(source, &d, SIZE, &err), 0);
    assert_int_equal(d.len, SIZE);
    assert_int_equal(cg_image_pwrite(got, d.bytes, SIZE, 0, 0, &err), 0);
    free(d.bytes);
    assert_true(bytes_read <= SIZE - (4 << 20)); /* a piece that is a hole isn't read */
    assert_same(source, got);

    assert_int_equal(stream(source, &d, 100, &err), -EPIPE);
    free(d.bytes);
}

static void test_stream_faults(void **state)
{
    (void)state;
    struct cg_error err;

    for (unsigned n = 1;; n++) {
        struct fake_faults faults = { .fail_at = 0 };
        struct reader d;
        CG_CLEANUP(cg_image_cleanup) struct cg_image *source = fake_image_new(SIZE, &faults, NULL);
        fill(source);
        faults.calls = 0;
        faults.fail_at = n;
        int r = stream(source, &d, SIZE, &err);
        free(d.bytes);
        if (r == 0) {
            assert_true(faults.calls < n);
            assert_true(n > 6);
            break;
        }
        assert_int_equal(r, -EIO);
        assert_true(d.len < SIZE);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sparse), cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_progress),
        cmocka_unit_test(test_stream), cmocka_unit_test(test_stream_faults),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
