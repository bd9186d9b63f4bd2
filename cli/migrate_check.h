/* Whether what answers at a migration's address is what the migration reads. */
#ifndef CG_CLI_MIGRATE_CHECK_H
#define CG_CLI_MIGRATE_CHECK_H

#include "cli/cli.h"
#include "core/jobs/migration.h"

/* Whether all that the migration reads can be opened. */
int cli_migrate_check_sources(struct cli *cli, const struct cg_migration_record *record);

/* The size of the new image's content, bytes. */
int cli_migrate_size(struct cli *cli, const struct cg_migration_record *record, uint64_t *ret);

/* Refuses what librbd is known to fail with: before 19.2.3, which knows files only, writes to an
 * image that came with snapshots fail if a size isn't a multiple of the object size. */
int cli_migrate_check_sizes(struct cli *cli, const struct cg_migration_record *record);

/* Connects to the record's address as others will, and compares each image's size and samples of
 * its content with the root's own. */
int cli_migrate_check(struct cli *cli, const struct cg_migration_record *record);

#endif
