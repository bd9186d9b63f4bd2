/* Inside the backup job: the audit of an incremental backup, which looks at a random sample of what
 * the space's diff calls unchanged.  A wrong diff would go from point to point unnoticed. */
#ifndef CG_JOBS_BACKUP_AUDIT_H
#define CG_JOBS_BACKUP_AUDIT_H

#include "core/jobs/backup_plan.h"

struct cg_audit {
    size_t count, allocated;
    struct cg_audit_chunk {
        uint64_t chunk;
        struct cg_ref ref; /* what the base has there */
    } * v;
};

/* Chooses share (0 to 1) of the chunks that plan, by cg_plan_diff, takes over from the session's
 * base; if share isn't 0 at least a few of those with data and of those that are zeros, as far as
 * there are any. */
int cg_audit_choose(struct cg_audit *audit, struct cg_session *session, const struct cg_plan *plan,
                    double share, struct cg_error *err);

/* Compares what the source has there, len bytes, with the base: 1 if it's the same, 0 if not, or
 * -errno. */
int cg_audit_compare(const struct cg_audit_chunk *chunk, struct cg_project *project,
                     const void *buf, uint32_t len, struct cg_error *err);

void cg_audit_clear(struct cg_audit *audit);

#endif
