#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/jobs/output.h"

/* The same pipe by a descriptor of our own that doesn't block: to set that on the given one would
 * set it for everybody who shares it.  The given one for anything else. */
static int dont_block(int fd)
{
    struct stat st;
    char path[32];

    if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
        return fd;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    return own < 0 ? fd : own;
}

void cg_output_init(struct cg_output *o, int fd, const struct cg_progress *progress, uint64_t total)
{
    *o = (struct cg_output){
        .fd = dont_block(fd), .given = fd, .progress = progress, .total = total
    };
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->wake, NULL);
}

void cg_output_clear(struct cg_output *o)
{
    pthread_cond_destroy(&o->wake);
    pthread_mutex_destroy(&o->lock);
    if (o->fd != o->given)
        close(o->fd);
}

bool cg_output_wait(struct cg_output *o, uint64_t piece)
{
    CG_LOCK(&o->lock);

    while (o->turn != piece && !o->failed)
        pthread_cond_wait(&o->wake, &o->lock);
    return !o->failed;
}

int cg_output_report(struct cg_output *o, uint64_t len, struct cg_error *err)
{
    uint64_t done = atomic_fetch_add(&o->done, len) + len;

    if (o->progress && o->progress->report(o->progress->opaque, done, o->total))
        return cg_error_say(err, ECANCELED, "cancelled");
    return 0;
}

static int wait_for_reader(struct cg_output *o, struct cg_error *err)
{
    struct pollfd p = { .fd = o->fd, .events = POLLOUT };

    return poll(&p, 1, 100) != 0 ? 0 : cg_output_report(o, 0, err);
}

int cg_output_write(struct cg_output *o, const void *buf, size_t len, struct cg_error *err)
{
    const char *p = buf;

    for (size_t done = 0; done < len;) {
        ssize_t n = write(o->fd, p + done, len - done);
        int r = 0;
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            r = wait_for_reader(o, err);
        else if (errno != EINTR)
            r = cg_error_set(err, errno, "write the output");
        if (r < 0)
            return r;
    }
    return 0;
}

int cg_output_end(struct cg_output *o, int r)
{
    CG_LOCK(&o->lock);
    bool first = r < 0 && !o->failed;

    if (r < 0)
        o->failed = true;
    else
        o->turn++;
    pthread_cond_broadcast(&o->wake);
    return first ? r : 0;
}
