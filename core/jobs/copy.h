/* Copies an image into another in a bounded parallel pipeline. */
#ifndef CG_JOBS_COPY_H
#define CG_JOBS_COPY_H

#include <stdbool.h>

#include "core/image/image.h"
#include "core/jobs/progress.h"

struct cg_copy_options {
    bool target_is_zero; /* the target reads as zeros: holes and zeros of the source are skipped */
    const struct cg_progress *progress; /* may be NULL */
};

/* Copies all of source to the start of target, which is at least as large, and flushes target.
 * Holes aren't read; zeros are found in what is read and become holes (by zeroing, where the target
 * isn't zero). */
int cg_copy(struct cg_image *source, struct cg_image *target, const struct cg_copy_options *options,
            struct cg_error *err);

/* Writes all of source, in order, to a file descriptor that can't seek (a pipe).  It can be
 * cancelled also while nobody reads the pipe. */
int cg_copy_stream(struct cg_image *source, int fd, const struct cg_progress *progress,
                   struct cg_error *err);

#endif
