#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/control.h"
#include "core/volumes/writer_record.h"

static int read_once(int dirfd, struct cg_writer *ret, struct cg_error *err)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len;

    *ret = (struct cg_writer){ .pid = 0 };
    int r = cg_file_read(dirfd, "lock", CG_WRITER_RECORD, &text, &len, err);
    if (r == -ENOENT || (r == 0 && len == 0))
        return 0;
    if (r == 0)
        r = cg_writer_record_decode(text, len, ret);
    if (r == -EIO || r == -EFBIG)
        return cg_error_say(err, EIO,
                            "its file `lock` is damaged, so that nothing says where writes may be "
                            "that were not flushed: if there are none, delete that file");
    return r;
}

int cg_writer_read(int dirfd, struct cg_writer *ret, struct cg_error *err)
{
    /* Somebody may just be writing it. */
    for (unsigned attempt = 0;; attempt++) {
        int r = read_once(dirfd, ret, err);
        if (r == 0 || attempt >= 8 || !cg_writer_wait(attempt))
            return r;
    }
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
        if (cg_writer_read(dirfd, &writer, NULL) < 0)
            writer.pid = 0;
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
    char record[CG_WRITER_RECORD];
    int r = cg_writer_record_encode(writer, record, err);

    if (r < 0)
        return r;
    r = cg_pwrite_full(lock_fd, record, sizeof record, 0);
    return r < 0 ? cg_error_set(err, -r, "write the lock file") : 0;
}

int cg_writer_clear(int lock_fd)
{
    if (ftruncate(lock_fd, 0) < 0)
        return -errno;
    /* A block of it stays: in a full pool, too, there can be a writer, who may give room back. */
    (void)!fallocate(lock_fd, FALLOC_FL_KEEP_SIZE, 0, CG_WRITER_RECORD);
    return 0;
}

int cg_writer_run_dir(int dirfd, char ret[static PATH_MAX], bool *ret_left, struct cg_error *err)
{
    struct cg_writer last;
    char boot[37];
    int r = cg_boot_id(boot, err);

    if (r == 0)
        r = cg_writer_read(dirfd, &last, err);
    if (r < 0)
        return r;
    *ret_left = *last.run && strcmp(last.boot, boot) == 0;
    if (!*ret_left)
        return cg_run_dir(ret, PATH_MAX, err);
    snprintf(ret, PATH_MAX, "%s", last.run);
    return 0;
}

int cg_writer_lost(const char *run, struct cg_error *err)
{
    return cg_error_say(err, EIO,
                        "its last writer was killed, and the record of what it wrote and did not "
                        "flush is not in %s any more: put that directory back, or, to go on with "
                        "what was flushed, delete the file `lock` of the volume",
                        run);
}

void cg_writer_forget_socket(int dirfd)
{
    struct cg_writer writer;
    struct stat st;

    if (cg_writer_read(dirfd, &writer, NULL) == 0 && lstat(writer.socket, &st) == 0 &&
        S_ISSOCK(st.st_mode))
        unlink(writer.socket);
}

pid_t cg_writer_alive(int dirfd)
{
    struct cg_writer writer;

    if (cg_writer_read(dirfd, &writer, NULL) < 0)
        return 0;
    return *writer.socket && cg_control_answers(writer.socket) ? writer.pid : 0;
}
