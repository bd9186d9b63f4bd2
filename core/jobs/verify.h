/* Reads everything that the points below a prefix stand on. */
#ifndef CG_JOBS_VERIFY_H
#define CG_JOBS_VERIFY_H

#include "core/backups/backups.h"
#include "core/jobs/progress.h"

struct cg_verify_result {
    uint64_t points, pages, chunks, bytes; /* looked at; bytes as decoded */
    uint64_t damaged;                      /* objects and points found damaged or missing */
    char warning[512]; /* why what was found couldn't be recorded; "" if it was */
};

/* Called from any thread, one call at a time, for each damaged object: its path in the repository
 * and what is wrong with it. */
typedef void cg_verify_fn(void *opaque, const char *object, const char *why);

/* Checks MAC and place of each point, each of its pages and chunks once, and records what is
 * damaged in damaged/, so that the next backup stores it anew; what has become right again is
 * struck off. Returns 0 also when damage was found, recorded or not; a failure to look is an
 * error. */
int cg_verify(struct cg_repository *repository, const struct cg_name *prefix,
              const struct cg_progress *progress, cg_verify_fn *damaged, void *opaque,
              struct cg_verify_result *ret, struct cg_error *err);

#endif
