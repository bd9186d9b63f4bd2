/* A point onto an image: only the chunks in which the two differ are fetched and written. */
#ifndef CG_JOBS_RESTORE_H
#define CG_JOBS_RESTORE_H

#include <stdbool.h>

#include "core/backups/backups.h"
#include "core/jobs/progress.h"

struct cg_restore_result {
    uint64_t bytes_read;    /* of the target, to compare */
    uint64_t bytes_skipped; /* were right already, or zero in both */
    uint64_t bytes_fetched; /* of the repository, decoded */
    uint64_t bytes_written; /* to the target, zeroed ranges included */
    uint64_t chunks_fetched;
    bool tail_kept; /* the target is larger: what is behind the point's end stays */
};

/* point names a point.  The target is at least as large (-ENOSPC); it may be restored again after
 * an interruption.  fresh: the target reads as zeros, so it need not be read.  Ends with a flush.
 */
int cg_restore(struct cg_repository *repository, const struct cg_name *point,
               struct cg_image *target, bool fresh, const struct cg_progress *progress,
               struct cg_restore_result *ret, struct cg_error *err);

#endif
