/* A point onto an image: only the chunks in which the two differ are fetched and written. */
#ifndef CG_JOBS_RESTORE_H
#define CG_JOBS_RESTORE_H

#include <stdbool.h>

#include "core/backups/backups.h"
#include "core/jobs/progress.h"
#include "core/space.h"

#define CG_RESTORE_WHY 256

struct cg_restore_options {
    bool fresh; /* the target reads as zeros, so it need not be read */
    /* Chunks that the target's space calls unchanged since the point's own snapshot are taken for
     * right, unread; if that isn't possible all are read, and the result says why. */
    bool trust_diff;
    struct cg_space *space;             /* of the target, which nobody else writes; NULL: none */
    const struct cg_name *name;         /* of the target in it: a head */
    const struct cg_progress *progress; /* may be NULL */
};

struct cg_restore_result {
    uint64_t bytes_read;    /* of the target, to compare */
    uint64_t bytes_skipped; /* were right already, or zero in both */
    uint64_t bytes_trusted; /* of these: not looked at, since the diff doesn't name them */
    uint64_t bytes_fetched; /* of the repository, decoded */
    uint64_t bytes_written; /* to the target, zeroed ranges included */
    uint64_t chunks_fetched;
    bool tail_kept;                /* the target is larger: what is behind the point's end stays */
    char distrust[CG_RESTORE_WHY]; /* why trust_diff wasn't followed; "" if it was, or not asked */
};

/* point names a point.  The target is at least as large (-ENOSPC); it may be restored again after
 * an interruption.  Ends with a flush. */
int cg_restore(struct cg_repository *repository, const struct cg_name *point,
               struct cg_image *target, const struct cg_restore_options *options,
               struct cg_restore_result *ret, struct cg_error *err);

#endif
