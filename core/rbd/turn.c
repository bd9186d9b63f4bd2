#include "config.h"

#include <errno.h>
#include <sys/time.h>
#include <time.h>

#include "core/rbd/cluster.h"
#include "core/rbd/turn.h"

/* Of the object, of the lock on it, and of who has it: the client's number tells them apart. */
#define NAME "cowgate.turn"
#define SECONDS 60

static time_t seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

int cg_rbd_turn_begin(rados_ioctx_t io, unsigned timeout, struct cg_error *err)
{
    const struct timespec pause = { 0, 50000000 };
    struct timeval duration = { SECONDS, 0 };
    time_t end = seconds() + timeout;
    int r;

    while ((r = rados_lock_exclusive(io, NAME, NAME, NAME, "", &duration, 0)) == -EBUSY &&
           seconds() <= end)
        nanosleep(&pause, NULL);
    if (r == -EBUSY)
        return cg_error_say(err, EBUSY, "another client is at it for more than %u s", timeout);
    return r < 0 && r != -EEXIST ? cg_rbd_failed(r, err, "wait for other clients") : 0;
}

void cg_rbd_turn_end(rados_ioctx_t io)
{
    rados_unlock(io, NAME, NAME, NAME);
}
