/* The file `lock` of a volume: who holds its flock may write the volume or change its structure,
 * and says in it who they are. */
#ifndef CG_VOLUMES_WRITER_H
#define CG_VOLUMES_WRITER_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "core/base/error.h"

struct cg_writer {
    pid_t pid;          /* 0: the last writer ended cleanly, or there was none */
    bool brief;         /* it is done in a moment: ending, or only changing the structure */
    char boot[37];      /* the boot in which it ran */
    char run[PATH_MAX]; /* where its working maps are; "" if it has none */
    char socket[108];   /* "" if it has none */
};

/* What the lock file in dirfd says, true or not; a missing or empty one says that nobody was there.
 * -EIO: something else is in it. */
int cg_writer_read(int dirfd, struct cg_writer *ret, struct cg_error *err);

/* Takes the lock of the volume in dirfd; label names it in messages.  Waits for somebody who is
 * done in a moment.  -EBUSY: somebody writes; the message names them. */
int cg_writer_lock(int dirfd, const char *label, int *ret_fd, struct cg_error *err);

/* Says who holds the lock. */
int cg_writer_describe(int lock_fd, const struct cg_writer *writer, struct cg_error *err);

/* Says that nothing is left to be gone on with: what is in working maps doesn't count any more. */
int cg_writer_clear(int lock_fd);

/* The pid of a process that writes the volume now and answers; 0 if there is none. */
pid_t cg_writer_alive(int dirfd);

/* Where working maps of the volume in dirfd are.  *ret_left: its last writer in this boot didn't
 * end cleanly; they are where that one had them, and one of the top layer must be there.  Else it's
 * this process's run directory, and what may be there is stale. */
int cg_writer_run_dir(int dirfd, char ret[static PATH_MAX], bool *ret_left, struct cg_error *err);

/* The error for a working map that must be there and isn't. */
int cg_writer_lost(const char *run, struct cg_error *err);

/* Removes the socket that a writer left which was killed.  Only when nobody can be writing. */
void cg_writer_forget_socket(int dirfd);

/* A pause for somebody else to get on, longer with each attempt (from 0).  False when that has
 * gone on for a minute. */
bool cg_writer_wait(unsigned attempt);

#endif
