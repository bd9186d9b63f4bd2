/* Which points a history is made of, and keeping them together. */
#ifndef CG_BACKUPS_HISTORY_POINTS_H
#define CG_BACKUPS_HISTORY_POINTS_H

#include "core/backups/repository.h"

struct cg_history_points {
    size_t count, allocated;
    struct cg_history_name {
        char name[CG_PART_MAX + 1];
        uint64_t sequence;
    } * v;
};

/* The points of a volume with a sequence up to that of the one called last, in order of their
 * sequence; cg_history_points_clear frees what ret holds, also after a failure.  -ENOENT: no such
 * point.  -EIO: one can't be read, so that it isn't known whether it belongs to them. */
int cg_history_points(struct cg_project *project, const char *volume, const char *last,
                      struct cg_history_points *ret, struct cg_error *err);
void cg_history_points_clear(struct cg_history_points *points);

/* What is the same for the same points only; as the snapshot of a struct cg_identity. */
int cg_history_identify(struct cg_project *project, const char *volume, const char *last,
                        char ret[static CG_ID_MAX + 1], struct cg_error *err);

/* cg_point_hold for all of them, each by a uuid made from uuid and its name, and cg_point_release.
 * When holding fails none is held by it. */
int cg_history_hold(struct cg_project *project, const char *volume, const char *last,
                    const char *uuid, struct cg_error *err);
int cg_history_release(struct cg_project *project, const char *volume, const char *uuid,
                       struct cg_error *err);

#endif
