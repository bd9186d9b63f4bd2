#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"
#include "core/image/nbd.h"
#include "core/image/window.h"
#include "tests/unit/oracle.h"
#include "tests/unit/servers.h"
#include "tests/unit/cmocka-all.h"

#define MIB (UINT64_C(1) << 20)

static void start(struct server *s, const char *const *args)
{
    if (server_start(s, args) < 0)
        fail_msg("%s does not start", args[0]);
}

static void oracle_on(const char *const *args, uint64_t grain)
{
    struct cg_error err;
    struct server s;
    struct cg_image *image = NULL;
    struct oracle_options o = {
        .operations = 300, .threads = 6, .seed = grain, .grain = grain, .longest = 100 << 10
    };

    start(&s, args);
    assert_int_equal(cg_nbd_open(s.uri, true, &image, &err), 0);
    assert_int_equal(cg_image_size(image), 6 * MIB);
    oracle_run(image, &o);
    cg_image_unref(image);
    server_stop(&s, SIGTERM);
}

/* Several connections; holes known exactly. */
static void test_memory(void **state)
{
    (void)state;
    oracle_on((const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "memory", "6M", NULL }, 512);
    oracle_on((const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "memory", "6M", NULL }, 1);
}

/* Requests off the server's blocks are refused there, so we must not send any. */
static const char *const large_blocks[] = { "nbdkit",
                                            "-f",
                                            "-U",
                                            "@SOCKET@",
                                            "--filter=blocksize-policy",
                                            "memory",
                                            "6M",
                                            "blocksize-minimum=8192",
                                            "blocksize-preferred=8192",
                                            "blocksize-maximum=65536",
                                            "blocksize-error-policy=error",
                                            NULL };

static void test_large_blocks(void **state)
{
    (void)state;
    oracle_on(large_blocks, 512);
    oracle_on(large_blocks, 1);
}

struct blocks {
    struct cg_image *image;
    _Atomic bool done;
};

/* One writes a whole block again and again, the other a sector of it. */
static int share_block(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct blocks *b = opaque;
    uint8_t block[8192], got[8192];
    int r = 0;

    (void)worker;
    for (unsigned i = 1; item == 0 && r == 0 && i < 200; i++) {
        memset(block, (int)i, sizeof block);
        r = cg_image_pwrite(b->image, block, sizeof block, 0, 0, err);
        if (r == 0)
            r = cg_image_pread(b->image, got, sizeof got, 0, err);
        if (r == 0 && (memcmp(got, block, 512) || memcmp(got + 1024, block + 1024, 8192 - 1024)))
            r = cg_error_say(err, EILSEQ, "round %u was undone by the neighbour", i);
    }
    memset(block, 0xff, 512);
    while (item == 1 && r == 0 && !b->done)
        r = cg_image_pwrite(b->image, block, 512, 512, 0, err);
    if (item == 0)
        b->done = true;
    return r;
}

/* What shares a block of the server's doesn't disturb its neighbours. */
static void test_neighbours(void **state)
{
    (void)state;
    struct cg_error err;
    struct server s;
    struct blocks b = { .done = false };
    struct cg_image *window = NULL;
    struct oracle_options o = {
        .operations = 100, .threads = 16, .seed = 5, .grain = 1, .longest = 512
    };

    start(&s, large_blocks);
    assert_int_equal(cg_nbd_open(s.uri, true, &b.image, &err), 0);
    if (cg_parallel(2, 2, share_block, &b, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(cg_window_open(b.image, 8192, 8192, &window, &err), 0);
    oracle_run(window, &o);
    cg_image_unref(window);
    cg_image_unref(b.image);
    server_stop(&s, SIGTERM);
}

/* One connection, no multi-conn, no zeroing: what is missing is made up for. */
static void test_poor_server(void **state)
{
    (void)state;
    oracle_on((const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "--filter=nozero",
                                "--filter=noextents", "--filter=multi-conn", "memory", "6M",
                                "zeromode=none", "multi-conn-mode=disable", NULL },
              512);
}

static void test_qemu(void **state)
{
    (void)state;
    oracle_on((const char *[]){ "sh", "-c",
                                "truncate -s 6M @DIR@/disk && exec qemu-nbd -t -e 8 -f raw "
                                "--discard=unmap -k $0/sock $0/disk",
                                "@DIR@", NULL },
              512);
}

static void test_extents(void **state)
{
    (void)state;
    struct cg_error err;
    struct server s;
    struct cg_extents e;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;

    start(&s, (const char *[]){ "sh", "-c",
                                "truncate -s 8M $0/disk && printf data | dd of=$0/disk bs=1M "
                                "seek=2 conv=notrunc status=none && exec nbdkit -f -U $0/sock "
                                "file $0/disk",
                                "@DIR@", NULL });
    assert_int_equal(cg_nbd_open(s.uri, true, &image, &err), 0);
    cg_extents_init(&e, 1 * MIB, 7 * MIB, 0);
    assert_int_equal(cg_image_extents(image, &e, &err), 0);
    assert_int_equal(e.count, 3);
    assert_int_equal(e.v[0].type, CG_HOLE);
    assert_true(e.v[0].off == MIB && e.v[0].len == MIB);
    assert_int_equal(e.v[1].type, CG_DATA);
    assert_int_equal(e.v[2].type, CG_HOLE);
    assert_true(e.next == 7 * MIB);
    cg_extents_clear(&e);
    cg_image_unref(image);
    image = NULL;
    server_stop(&s, SIGTERM);
}

static void test_odd_size(void **state)
{
    (void)state;
    struct cg_error err;
    struct server s;
    uint8_t buf[1024];
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;

    start(&s, (const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "pattern", "1000", NULL });
    assert_int_equal(cg_nbd_open(s.uri, true, &image, &err), -EINVAL);
    assert_int_equal(cg_nbd_open(s.uri, false, &image, &err), 0);
    assert_int_equal(cg_image_size(image), 1024);
    memset(buf, 1, sizeof buf);
    assert_int_equal(cg_image_pread(image, buf, 1024, 0, &err), 0);
    assert_int_equal(buf[999], 0xe0); /* the pattern is each 8 bytes' offset, big-endian */
    assert_true(cg_is_zero(buf + 1000, 24));
    assert_int_equal(cg_image_pread(image, buf, 30, 990, &err), 0);
    assert_true(cg_is_zero(buf + 10, 20));
    cg_image_unref(image);
    image = NULL;
    server_stop(&s, SIGTERM);
}

struct killing {
    struct server server;
    struct cg_image *image;
    _Atomic unsigned done, failed;
};

/* Reads and writes until the server, which one of us kills, is gone. */
static int use_and_kill(void *opaque, uint64_t item, unsigned worker, struct cg_error *err)
{
    struct killing *k = opaque;
    static uint8_t buf[8][65536];

    (void)worker;
    for (unsigned i = 0;; i++) {
        if (item == 0 && i == 50)
            kill(k->server.pid, SIGKILL);
        uint64_t off = (item * 8 + i % 8) * 65536;
        int r = i % 2 ? cg_image_pread(k->image, buf[item], 65536, off, err)
                      : cg_image_pwrite(k->image, buf[item], 65536, off, 0, err);
        if (r < 0) {
            atomic_fetch_add(&k->failed, 1);
            return r == -EIO && strstr(err->message, "lost") ? 0 : r;
        }
        atomic_fetch_add(&k->done, 1);
    }
}

/* Everybody who uses a server that dies gets an error, and so does everybody later. */
static void test_dead_server(void **state)
{
    (void)state;
    struct cg_error err = { .message = "" };
    struct killing k = { .image = NULL };
    uint8_t buf[512];

    start(&k.server, (const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "memory", "6M", NULL });
    assert_int_equal(cg_nbd_open(k.server.uri, true, &k.image, &err), 0);
    if (cg_parallel(8, 8, use_and_kill, &k, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(k.failed, 8);
    assert_true(k.done >= 50);
    assert_int_equal(cg_image_pread(k.image, buf, 512, 0, &err), -EIO);
    assert_int_equal(cg_image_flush(k.image, &err), -EIO);
    cg_image_unref(k.image);
    server_stop(&k.server, SIGKILL);
}

/* FUA is a flush where the server doesn't know it.  A failed flush stays failed: what it lost can't
 * be flushed any more. */
static void test_failed_flush(void **state)
{
    (void)state;
    struct cg_error err;
    struct server s;
    uint8_t buf[512] = { 1 };
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;

    start(&s, (const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "eval", "get_size=echo 1M",
                                "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null",
                                "can_write=exit 0", "can_flush=exit 0", "can_fua=echo none",
                                "flush=if [ -e $tmpdir/x ]; then exit 0; fi; touch $tmpdir/x; "
                                "echo EIO broken >&2; exit 1",
                                NULL });
    assert_int_equal(cg_nbd_open(s.uri, true, &image, &err), 0);
    assert_int_equal(cg_image_pwrite(image, buf, 512, 0, 0, &err), 0);
    assert_int_equal(cg_image_pwrite(image, buf, 512, 0, CG_FUA, &err), -EIO);
    assert_int_equal(cg_image_flush(image, &err), -EIO);
    assert_non_null(strstr(err.message, "earlier flush"));
    cg_image_unref(image);
    image = NULL;
    server_stop(&s, SIGTERM);
}

static void test_refused(void **state)
{
    (void)state;
    struct cg_error err;
    struct server s;
    struct cg_image *image = NULL;

    assert_true(cg_nbd_open("nbd+unix:///?socket=/nowhere/at/all", false, &image, &err) < 0);
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    assert_true(cg_nbd_open("nbd://", false, &image, &err) < 0);
    start(&s, (const char *[]){ "nbdkit", "-f", "-r", "-U", "@SOCKET@", "memory", "1M", NULL });
    assert_int_equal(cg_nbd_open(s.uri, true, &image, &err), -EROFS);
    assert_int_equal(cg_nbd_open(s.uri, false, &image, &err), 0);
    assert_true(cg_image_read_only(image));
    cg_image_unref(image);
    server_stop(&s, SIGTERM);
}

/* It takes the connection, but says nothing. */
static void test_silent_server(void **state)
{
    (void)state;
    struct cg_error err;
    struct server s;
    struct cg_image *image = NULL;

    start(&s, (const char *[]){ "nbdkit", "-f", "-U", "@SOCKET@", "memory", "1M", NULL });
    assert_int_equal(kill(s.pid, SIGSTOP), 0);
    assert_int_equal(cg_nbd_open(s.uri, false, &image, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.message, "no answer within 30 s"));
    server_stop(&s, SIGKILL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),        cmocka_unit_test(test_large_blocks),
        cmocka_unit_test(test_neighbours),    cmocka_unit_test(test_poor_server),
        cmocka_unit_test(test_qemu),          cmocka_unit_test(test_extents),
        cmocka_unit_test(test_odd_size),      cmocka_unit_test(test_dead_server),
        cmocka_unit_test(test_failed_flush),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_silent_server),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
