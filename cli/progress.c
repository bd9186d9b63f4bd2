#include "config.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/base/cleanup.h"
#include "core/base/size.h"

/* Thread model: the job's threads report; lock guards everything below it.  A signal comes on any
 * of them: what its handler says is atomic, and lock-free, as a handler needs it. */

_Static_assert(ATOMIC_BOOL_LOCK_FREE == 2, "a signal's handler can't take locks");
static atomic_bool interrupted, held;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const char *what; /* NULL: no bar */
    bool terminal, quiet, drawn;
    struct timespec start, last;
} bar;

static void on_interrupt(int sig)
{
    if (atomic_exchange(&interrupted, true) && !atomic_load(&held)) {
        signal(sig, SIG_DFL); /* asked twice */
        raise(sig);
    }
}

/* What nohup, or a shell for what runs in the background, ignores stays so. */
static void handle(int sig, void (*handler)(int sig))
{
    const struct sigaction sa = { .sa_handler = handler };
    struct sigaction old;

    if (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
        sigaction(sig, &sa, NULL);
}

void cli_catch_interrupts(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        handle(signals[i], on_interrupt);
}

void cli_hold_interrupts(bool hold)
{
    atomic_store(&held, hold);
    if (hold)
        cli_catch_interrupts();
    handle(SIGQUIT, hold ? on_interrupt : SIG_DFL);
}

bool cli_interrupted(void)
{
    return atomic_load(&interrupted);
}

static double seconds_between(const struct timespec *a, const struct timespec *b)
{
    return (double)(b->tv_sec - a->tv_sec) + (double)(b->tv_nsec - a->tv_nsec) / 1e9;
}

static void left_text(char ret[static 32], double seconds)
{
    unsigned long s = seconds > 359999 ? 359999 : (unsigned long)seconds;

    if (s >= 3600)
        snprintf(ret, 32, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(ret, 32, "%lu:%02lu", s / 60, s % 60);
}

static void draw_locked(uint64_t done, uint64_t total, double elapsed)
{
    char done_text[CG_SIZE_TEXT], total_text[CG_SIZE_TEXT], rate_text[CG_SIZE_TEXT], left[32] = "-";
    double share = total ? (double)done / (double)total : 1;
    uint64_t rate = elapsed > 0 ? (uint64_t)((double)done / elapsed) : 0;

    cg_size_text(done_text, done);
    cg_size_text(total_text, total);
    cg_size_text(rate_text, rate);
    if (done > 0 && done <= total)
        left_text(left, elapsed * ((double)total / (double)done - 1));
    if (!bar.terminal) {
        fprintf(stderr, "%s: %s of %s (%.0f %%), %s/s, %s left\n", bar.what, done_text, total_text,
                100 * share, rate_text, left);
        return;
    }
    char cells[31];
    size_t full = (size_t)(share * 30);
    memset(cells, ' ', 30);
    memset(cells, '=', full > 30 ? 30 : full);
    cells[30] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%  %s of %s  %s/s  %s left\033[K", bar.what, cells,
            100 * share, done_text, total_text, rate_text, left);
    bar.drawn = true;
}

static int report(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    if (atomic_load(&interrupted))
        return 1;
    CG_LOCK(&lock);
    if (!bar.what || bar.quiet)
        return 0;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (seconds_between(&bar.last, &now) < (bar.terminal ? 0.1 : 10))
        return 0;
    bar.last = now;
    draw_locked(done, total, seconds_between(&bar.start, &now));
    return 0;
}

static const struct cg_progress progress = { .report = report };

const struct cg_progress *cli_progress_begin(struct cli *cli, const char *what)
{
    cli_catch_interrupts();
    CG_LOCK(&lock);
    bar.what = what;
    bar.quiet = cli->quiet;
    bar.terminal = isatty(STDERR_FILENO);
    bar.drawn = false;
    clock_gettime(CLOCK_MONOTONIC, &bar.start);
    bar.last = bar.start;
    return &progress;
}

void cli_progress_end(void)
{
    CG_LOCK(&lock);
    if (bar.drawn)
        fputs("\r\033[K", stderr);
    memset(&bar, 0, sizeof bar);
}
