/* What lies between two points, as a stream for Ceph's own tool: "rbd import-diff" brings an image
 * that is as the one point was to the other (format: Ceph's documentation, dev/rbd-diff, v1). */
#ifndef CG_JOBS_EXPORT_DIFF_H
#define CG_JOBS_EXPORT_DIFF_H

#include "core/backups/backups.h"
#include "core/jobs/progress.h"

struct cg_export_diff_result {
    uint64_t chunks;       /* in which the points differ */
    uint64_t bytes_data;   /* in the stream */
    uint64_t bytes_zeroed; /* ranges that it makes zeros */
};

/* Writes the stream from one point to another of the same project, "latest" resolved, to fd, which
 * need not seek.  Its snapshots have the points' names.  Equal pages and chunks are known by their
 * ids: only what differs is fetched.  progress may be NULL. */
int cg_export_diff(struct cg_repository *repository, const struct cg_name *from,
                   const struct cg_name *to, int fd, const struct cg_progress *progress,
                   struct cg_export_diff_result *ret, struct cg_error *err);

#endif
