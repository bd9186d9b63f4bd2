#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/control.h"
#include "core/volumes/writer.h"

#define LOCK_FILE_MAX 16384

static void copy_text(char *ret, size_t size, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    if (text && strlen(text) < size)
        memcpy(ret, text, strlen(text) + 1);
}

void cg_writer_read(int dirfd, struct cg_writer *ret)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;

    *ret = (struct cg_writer){ .pid = 0 };
    if (cg_file_read(dirfd, "lock", LOCK_FILE_MAX, &text, &len, NULL) < 0)
        return;
    json_t *root = json_loadb(text, len, 0, NULL);
    ret->pid = (pid_t)json_integer_value(json_object_get(root, "pid"));
    ret->brief = json_is_true(json_object_get(root, "brief"));
    copy_text(ret->boot, sizeof ret->boot, root, "boot");
    copy_text(ret->run, sizeof ret->run, root, "run");
    copy_text(ret->socket, sizeof ret->socket, root, "socket");
    json_decref(root);
}

bool cg_writer_wait(unsigned attempt)
{
    /* 1 ms, 2 ms ... 32 ms, then 50 ms a time: about a minute. */
    struct timespec pause = { .tv_nsec = attempt < 6 ? 1000000L << attempt : 50000000L };

    if (attempt > 1200)
        return false;
    nanosleep(&pause, NULL);
    return true;
}

static int busy(const struct cg_writer *writer, const char *label, struct cg_error *err)
{
    if (writer->pid == 0)
        return cg_error_say(err, EBUSY, "%s is in use by another process", label);
    if (!*writer->socket)
        return cg_error_say(err, EBUSY, "%s is in use by process %ld", label, (long)writer->pid);
    return cg_error_say(err, EBUSY, "%s is being written by process %ld (socket %s)", label,
                        (long)writer->pid, writer->socket);
}

int cg_writer_lock(int dirfd, const char *label, int *ret_fd, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = openat(dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return cg_error_set(err, errno, "open the lock of %s", label);
    for (unsigned attempt = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; attempt++) {
        struct cg_writer writer;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return cg_error_set(err, errno, "lock %s", label);
        cg_writer_read(dirfd, &writer);
        bool writes = !writer.brief && *writer.socket && cg_control_answers(writer.socket);
        if (writes || !cg_writer_wait(attempt))
            return busy(&writer, label, err);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int cg_writer_describe(int lock_fd, const struct cg_writer *writer, struct cg_error *err)
{
    json_t *root = json_pack("{s:I, s:b, s:s, s:s, s:s}", "pid", (json_int_t)writer->pid, "brief",
                             writer->brief, "boot", writer->boot, "run", writer->run, "socket",
                             writer->socket);
    CG_CLEANUP(cg_free) char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

    json_decref(root);
    if (!text)
        return cg_error_set(err, ENOMEM, "write the lock file");
    /* Whoever reads half of it takes it for nothing and looks again. */
    int r = cg_pwrite_full(lock_fd, text, strlen(text), 0);
    if (r == 0 && ftruncate(lock_fd, (off_t)strlen(text)) < 0)
        r = -errno;
    return r < 0 ? cg_error_set(err, -r, "write the lock file") : 0;
}

void cg_writer_clear(int lock_fd)
{
    /* If this fails, the next writer looks for a working map that isn't there: no harm. */
    if (ftruncate(lock_fd, 0) < 0)
        return;
}

int cg_writer_run_dir(int dirfd, char ret[static PATH_MAX], struct cg_error *err)
{
    struct cg_writer last;
    char boot[37];
    int r = cg_boot_id(boot, err);

    if (r < 0)
        return r;
    cg_writer_read(dirfd, &last);
    if (*last.run && strcmp(last.boot, boot) == 0 && access(last.run, F_OK) == 0) {
        snprintf(ret, PATH_MAX, "%s", last.run);
        return 0;
    }
    return cg_run_dir(ret, PATH_MAX, err);
}

pid_t cg_writer_alive(int dirfd)
{
    struct cg_writer writer;

    cg_writer_read(dirfd, &writer);
    return *writer.socket && cg_control_answers(writer.socket) ? writer.pid : 0;
}
