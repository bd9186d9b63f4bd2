/* An NBD client for volumes-killed-server.sh.
 *
 *     volumes-client write URI SERVER-PID SEED COUNT    writes pieces from 4 connections, never
 *         flushes, kills the server after COUNT acknowledgements, and prints "PIECE VALUE [VALUE]":
 *         what was acknowledged last, and what was under way then
 *     volumes-client check URI <LINES                   each piece is what a line says
 */
#include "config.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "core/base/cleanup.h"

#define PIECE 1536u /* blocks are shared by pieces */
#define PIECES 4000u
#define CONNECTIONS 4u

static const char *uri;
static pid_t server;
static unsigned seed, count;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned acknowledged; /* guarded by lock */
static struct nbd_handle *connection[CONNECTIONS];
/* Only their connection's thread changes them. */
static int value[PIECES], under_way[PIECES];

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, nbd_get_error());
    exit(1);
}

static struct nbd_handle *connect_server(void)
{
    struct nbd_handle *h = nbd_create();

    if (!h || nbd_connect_uri(h, uri) < 0)
        die("connect");
    return h;
}

static void acknowledge(void)
{
    CG_LOCK(&lock);
    if (++acknowledged == count)
        kill(server, SIGKILL);
}

static void *work(void *arg)
{
    unsigned number = (unsigned)(uintptr_t)arg;
    unsigned random = seed * CONNECTIONS + number;
    struct nbd_handle *h = connection[number];
    uint8_t buf[PIECE];

    for (;;) {
        random = random * 1103515245 + 12345;
        unsigned piece = (random >> 8) % (PIECES / CONNECTIONS) * CONNECTIONS + number;
        int v = (int)(random >> 24) & 127;
        memset(buf, v, sizeof buf);
        under_way[piece] = v;
        int r = v ? nbd_pwrite(h, buf, PIECE, (uint64_t)piece * PIECE, 0)
                  : nbd_zero(h, PIECE, (uint64_t)piece * PIECE, 0);
        if (r < 0)
            break;
        value[piece] = v;
        under_way[piece] = -1;
        acknowledge();
    }
    nbd_close(h);
    return NULL;
}

static int run_writes(void)
{
    pthread_t threads[CONNECTIONS];

    memset(value, -1, sizeof value);
    memset(under_way, -1, sizeof under_way);
    for (unsigned i = 0; i < CONNECTIONS; i++) /* all, before the server may be killed */
        connection[i] = connect_server();
    for (uintptr_t i = 0; i < CONNECTIONS; i++)
        pthread_create(&threads[i], NULL, work, (void *)i);
    for (unsigned i = 0; i < CONNECTIONS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < PIECES; i++)
        if (value[i] >= 0 || under_way[i] >= 0)
            printf("%u %d %d\n", i, value[i], under_way[i]);
    return acknowledged >= count ? 0 : 1;
}

/* Before: -1 for what nobody knows. */
static void check(struct nbd_handle *h, unsigned piece, int was, int will)
{
    uint8_t buf[PIECE];

    if (nbd_pread(h, buf, PIECE, (uint64_t)piece * PIECE, 0) < 0)
        die("read");
    for (unsigned at = 0; was >= 0 && at < PIECE; at++) {
        if (buf[at] == was || buf[at] == will)
            continue;
        fprintf(stderr, "piece %u has %d at %u, not %d or %d\n", piece, buf[at], at, was, will);
        exit(1);
    }
}

static int run_checks(void)
{
    struct nbd_handle *h = connect_server();
    unsigned piece, lines = 0;
    int was, will;

    for (; scanf("%u %d %d", &piece, &was, &will) == 3; lines++)
        check(h, piece, was, will);
    nbd_close(h);
    return lines ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    uri = argv[2];
    if (argc == 3)
        return run_checks();
    server = (pid_t)atol(argv[3]);
    seed = (unsigned)atoi(argv[4]);
    count = (unsigned)atoi(argv[5]);
    return run_writes();
}
