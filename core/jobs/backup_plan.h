/* Inside the backup job: which chunks of the source are looked at. */
#ifndef CG_JOBS_BACKUP_PLAN_H
#define CG_JOBS_BACKUP_PLAN_H

#include "core/backups/session.h"
#include "core/space.h"

/* Chunks in order, each once. */
struct cg_plan {
    uint64_t size; /* of the source */
    size_t count, allocated;
    uint64_t *v; /* chunk number * 2, + 1 if it's known to be all zeros */
};

static inline uint64_t cg_plan_chunk(const struct cg_plan *plan, size_t i)
{
    return plan->v[i] >> 1;
}

static inline bool cg_plan_is_zero(const struct cg_plan *plan, size_t i)
{
    return plan->v[i] & 1;
}

/* All chunks of image that aren't holes; the others are zeros. */
int cg_plan_full(struct cg_plan *plan, struct cg_image *image, struct cg_error *err);

/* The chunks in which image, which is the snapshot to, may differ from the session's base, which is
 * the snapshot from; and those whose object can't be relied on.  -ENOTSUP: the two aren't
 * related. */
int cg_plan_diff(struct cg_plan *plan, struct cg_session *session, struct cg_space *space,
                 const struct cg_name *from, const struct cg_name *to, struct cg_error *err);

void cg_plan_clear(struct cg_plan *plan);

#endif
