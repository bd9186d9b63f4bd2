/* A pipe that several threads fill in order: each makes a piece in a buffer of its own and then
 * waits for its turn to write it.  Pieces have to be begun in order, as cg_parallel does, so that
 * the one whose turn it is is always being worked on. */
#ifndef CG_JOBS_OUTPUT_H
#define CG_JOBS_OUTPUT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/jobs/progress.h"

struct cg_output {
    int fd, given;
    const struct cg_progress *progress;
    uint64_t total;
    _Atomic uint64_t done;
    pthread_mutex_t lock; /* guards turn and failed */
    pthread_cond_t wake;
    uint64_t turn; /* the piece to be written next, from 0 */
    bool failed;
};

/* fd stays the caller's.  progress may be NULL; total is what it counts up to. */
void cg_output_init(struct cg_output *o, int fd, const struct cg_progress *progress,
                    uint64_t total);
void cg_output_clear(struct cg_output *o);

/* Waits for the piece's turn; false if another piece failed, so that it won't come. */
bool cg_output_wait(struct cg_output *o, uint64_t piece);

/* Writes all of buf; only by whose turn it is, or before and after all turns.  Whoever reads a pipe
 * may never do: progress is asked meanwhile. */
int cg_output_write(struct cg_output *o, const void *buf, size_t len, struct cg_error *err);

/* Reports len more of the total as done; -ECANCELED. */
int cg_output_report(struct cg_output *o, uint64_t len, struct cg_error *err);

/* Ends a turn, r 0, or the whole (r a failure, whether it was this piece's turn or not).  Returns r
 * if it is the first failure, else 0. */
int cg_output_end(struct cg_output *o, int r);

#endif
