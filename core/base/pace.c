#include "config.h"

#include <errno.h>
#include <time.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/pace.h"

#define NS UINT64_C(1000000000)

void cg_pace_init(struct cg_pace *pace, uint64_t rate)
{
    pthread_mutex_init(&pace->lock, NULL);
    pace->rate = rate;
    pace->next = 0;
}

void cg_pace_clear(struct cg_pace *pace)
{
    pthread_mutex_destroy(&pace->lock);
}

static uint64_t reserve(struct cg_pace *pace, uint64_t len)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    CG_LOCK(&pace->lock);
    uint64_t begin = cg_max(pace->next, (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec);
    pace->next = begin + (uint64_t)((double)len / (double)pace->rate * (double)NS);
    return begin;
}

void cg_pace_wait(struct cg_pace *pace, uint64_t len)
{
    if (pace->rate == 0)
        return;
    uint64_t begin = reserve(pace, len);
    struct timespec t = { .tv_sec = (time_t)(begin / NS), .tv_nsec = (long)(begin % NS) };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}
