/* What a job tells whoever waits for it. */
#ifndef CG_JOBS_PROGRESS_H
#define CG_JOBS_PROGRESS_H

#include <stdint.h>

/* report is called from any thread of the job, not too often to be cheap (per chunk): done of
 * total bytes.  Returning non-zero asks the job to end with -ECANCELED as soon as it can, leaving
 * what a failure would leave. */
struct cg_progress {
    int (*report)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
};

#endif
