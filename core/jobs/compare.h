/* Finds where two images differ by reading them. */
#ifndef CG_JOBS_COMPARE_H
#define CG_JOBS_COMPARE_H

#include "core/image/image.h"
#include "core/jobs/progress.h"

/* Calls fn, in order, for each range of to that differs from from, to whole blocks of 4 KiB; what
 * lies behind from's end differs unless it reads as zeros, what lies behind to's end isn't looked
 * at. Types are CG_ZERO for blocks of zeros and CG_DATA.  Ranges that are holes in both aren't
 * read. fn's non-zero return ends the comparison and is returned.  progress may be NULL. */
int cg_compare(struct cg_image *from, struct cg_image *to, cg_extent_fn *fn, void *opaque,
               const struct cg_progress *progress, struct cg_error *err);

#endif
