/* Inside the restore job: which chunks of the target need to be read to know what is in them. */
#ifndef CG_JOBS_RESTORE_LOOK_H
#define CG_JOBS_RESTORE_LOOK_H

#include "core/backups/repository.h"
#include "core/jobs/restore.h"

enum cg_look {
    CG_LOOK_READ,
    CG_LOOK_ZEROS, /* the target says that all of it reads as zeros */
    CG_LOOK_RIGHT, /* unchanged since the point's own snapshot: only with trust_diff */
};

/* Fills look, one enum cg_look for each of the point's chunks, all CG_LOOK_READ before. If
 * options->trust_diff can't be followed, ret_why says why, else it is "". */
int cg_restore_look(struct cg_project *project, const struct cg_point *point,
                    struct cg_image *target, const struct cg_restore_options *options,
                    uint8_t *look, char ret_why[static CG_RESTORE_WHY], struct cg_error *err);

#endif
