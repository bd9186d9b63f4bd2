/* The backup of an image: a whole new point, or none. */
#ifndef CG_JOBS_BACKUP_H
#define CG_JOBS_BACKUP_H

#include <stdbool.h>

#include "core/backups/backups.h"
#include "core/jobs/progress.h"
#include "core/space.h"

struct cg_backup_options {
    /* What is backed up: a name in a space that can snapshot (a head is snapshotted as
     * "cowgate-SESSION", a snapshot is taken as it is), or, with space NULL, an open image. */
    struct cg_space *space;
    struct cg_name source;
    struct cg_image *image;
    const char *source_text; /* what the point says it came from */
    const char *project;     /* the target: backups/PROJECT/VOLUME */
    const char *volume;
    bool full;                          /* read everything, whatever the last point says */
    double audit;                       /* share (0 to 1) of the chunks called unchanged by a diff
                                           that are read and compared */
    uint64_t rate;                      /* at most so many bytes read a second; 0 for no limit */
    const struct cg_progress *progress; /* may be NULL */
    /* Around the snapshot of a head; NULL for nothing.  after follows before also when that
     * failed; taken: the snapshot is there. */
    int (*before_snapshot)(void *opaque, struct cg_error *err);
    void (*after_snapshot)(void *opaque, bool taken);
    void *snapshot_opaque;
};

struct cg_backup_result {
    char point[CG_NAME_MAX]; /* backups/PROJECT/VOLUME/POINT */
    bool incremental;
    char reason[256];                                   /* why it was full, if it was */
    uint64_t size;                                      /* of the image, bytes */
    uint64_t bytes_read, chunks_read;                   /* of the source */
    uint64_t bytes_audited, chunks_audited;             /* of it, beside these */
    uint64_t bytes_stored, chunks_stored, pages_stored; /* new in the repository, as stored */
    uint64_t chunks_known;                              /* read, but already in the repository */
    char warning[512]; /* what went wrong after the point was there; "" for nothing */
};

/* After a failure nothing of the point is visible, and its snapshot is gone (or, after a crash,
 * goes with the next backup into the same repository).  -EBADMSG: the audit found the diff wrong,
 * and the next backup reads everything. */
int cg_backup(struct cg_repository *repository, const struct cg_backup_options *options,
              struct cg_backup_result *ret, struct cg_error *err);

#endif
