#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "core/base/cleanup.h"
#include "nbdkit-plugin/ending.h"

/* Thread model: one thread, the waiter, sleeps in sigwait; the signals are blocked in all threads,
 * so it alone gets them.  What is set before it starts is only read by it. */

enum {
    REQUESTS_SECONDS = 30, /* that requests may still take */
    NBDKIT_SECONDS = 1,    /* that nbdkit may take to end when nobody is connected */
};

pthread_rwlock_t ending_gate = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

static const char *socket_path;
static struct stat socket_id;
static int (*close_images)(bool alone, bool *ret_idle);
static sigset_t signals;
static pthread_t waiter;
static bool started;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finishing = PTHREAD_COND_INITIALIZER;
static bool finished; /* guarded by lock */

/* While the socket still answers, nobody takes its place. */
static void remove_socket(void)
{
    struct stat st;

    if (socket_path && lstat(socket_path, &st) == 0 && st.st_dev == socket_id.st_dev &&
        st.st_ino == socket_id.st_ino)
        unlink(socket_path);
    socket_path = NULL;
}

static struct timespec seconds_from_now(time_t seconds)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += seconds;
    return t;
}

static bool is_finished(void)
{
    CG_LOCK(&lock);
    return finished;
}

/* What else nbdkit and its filters have to do at the end, they can when nobody is connected; a
 * client that is still in the handshake may hold them up. */
static void let_nbdkit_end(void)
{
    const struct timespec until = seconds_from_now(NBDKIT_SECONDS);
    int r = 0;

    nbdkit_shutdown();
    CG_LOCK(&lock);
    while (!finished && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&finishing, &lock, &until);
    if (!finished)
        _exit(EXIT_SUCCESS);
}

static void *wait_for_end(void *arg)
{
    bool idle = false;
    int sig;

    (void)arg;
    while (sigwait(&signals, &sig) != 0)
        ;
    if (is_finished())
        return NULL;
    remove_socket();
    const struct timespec until = seconds_from_now(REQUESTS_SECONDS);
    bool alone = pthread_rwlock_timedwrlock(&ending_gate, &until) == 0; /* for ever */
    int r = close_images(alone, &idle);
    if (r < 0 || !alone || !idle)
        _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
    let_nbdkit_end();
    return NULL;
}

int ending_prepare(const char *socket, struct cg_error *err)
{
    if (socket && lstat(socket, &socket_id) < 0)
        return cg_error_set(err, errno, "stat %s", socket);
    if (socket && !S_ISSOCK(socket_id.st_mode))
        return cg_error_say(err, ENOTSOCK, "%s is no socket", socket);
    socket_path = socket;
    return 0;
}

int ending_start(int (*close_all)(bool alone, bool *ret_idle), struct cg_error *err)
{
    close_images = close_all;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGQUIT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    int r = pthread_create(&waiter, NULL, wait_for_end, NULL);
    if (r)
        return cg_error_set(err, r, "start a thread");
    started = true;
    return 0;
}

void ending_finish(void)
{
    if (!started)
        return;
    pthread_mutex_lock(&lock);
    finished = true;
    pthread_cond_signal(&finishing);
    pthread_mutex_unlock(&lock);
    pthread_kill(waiter, SIGTERM); /* it may be waiting for a signal */
    pthread_join(waiter, NULL);
    started = false;
    remove_socket();
}
