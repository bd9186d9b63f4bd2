/* Inside the backup job: what is read, and the snapshots made for that. */
#ifndef CG_JOBS_BACKUP_SOURCE_H
#define CG_JOBS_BACKUP_SOURCE_H

#include "core/backups/session.h"
#include "core/jobs/backup.h"

struct cg_backup_source {
    struct cg_space *space; /* NULL: only an image */
    struct cg_name name;    /* the snapshot that is read */
    struct cg_image *image; /* a reference */
    struct cg_identity identity;
    int64_t time; /* of the snapshot, seconds */
    bool own;     /* the snapshot was made for this backup */
};

/* Snapshots the source where it is a head, opens what is to be read and identifies it.  After a
 * failure no snapshot of this backup is left. */
int cg_backup_source_open(struct cg_backup_source *source, const struct cg_backup_options *options,
                          struct cg_session *session, struct cg_error *err);

/* Closes; removes the snapshot made for this backup if nothing came of it. */
void cg_backup_source_close(struct cg_backup_source *source, bool committed);

/* Removes snapshots, of the source and of its neighbours in a project of volumes, that backups into
 * this repository made and no longer need: their session is dead, and no latest point names
 * them.  progress (may be NULL) can end the giving back of their space. */
int cg_backup_source_sweep(const struct cg_backup_source *source, struct cg_repository *repository,
                           const struct cg_progress *progress, struct cg_error *err);

/* True if the base's snapshot is still there: *ret_from names it.  Else a sentence that says why
 * this backup is full in ret_why. */
bool cg_backup_source_base(const struct cg_backup_source *source, const struct cg_point *base,
                           struct cg_name *ret_from, char ret_why[static 256]);

#endif
