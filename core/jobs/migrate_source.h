/* What a migration reads, kept as it was when it began: a point, or a history, is held; anything
 * else is read through a local clone of it, volumes/PROJECT/migrate-UUID@source, which nobody
 * writes.  The source itself isn't touched, and may be written on. */
#ifndef CG_JOBS_MIGRATE_SOURCE_H
#define CG_JOBS_MIGRATE_SOURCE_H

#include "core/jobs/migration.h"
#include "core/space.h"

struct cg_migration_spaces {
    struct cg_space *volumes;
    struct cg_space *source; /* of the source's name; NULL for a path or a URI */
};

/* Puts into the record, and then makes, what is to be read; again after it was interrupted is
 * fine. */
int cg_migration_keep(struct cg_migration *m, const struct cg_migration_spaces *spaces,
                      struct cg_error *err);

/* Lets go of all that; again is fine.  -EBUSY: it's still being read. */
int cg_migration_release(struct cg_migration *m, const struct cg_migration_spaces *spaces,
                         struct cg_error *err);

#endif
