/* The server that a migration starts for itself: this program's serve (for nbd) or mount (for
 * file), in a session of its own.  It outlives this process, since whoever has the new image open
 * reads from it; the next process that is at the migration finds it, or starts it again at the same
 * address. */
#ifndef CG_CLI_MIGRATE_SERVER_H
#define CG_CLI_MIGRATE_SERVER_H

#include <stdbool.h>

#include "cli/cli.h"
#include "core/jobs/migration.h"

/* The address at which a server of that stream would serve the migration: on a socket, at
 * record.listen, or a mount's directory. */
int cli_migrate_server_address(const struct cg_migration_record *record, const char *stream,
                               char ret[static CG_NAME_MAX], struct cg_error *err);

/* Starts the server of an open migration, whose record says how, unless it runs, and waits until it
 * answers.  After a failure it may be running. */
int cli_migrate_server_start(struct cli *cli, const struct cg_migration *m);

/* True if it runs.  dir: of the migration. */
bool cli_migrate_server_runs(const char *dir);

/* -EIO with what it said last. */
int cli_migrate_server_died(const char *dir, struct cg_error *err);

/* Ends it, and removes what one that was killed left: its socket, its mount. */
int cli_migrate_server_stop(const struct cg_migration *m, struct cg_error *err);

#endif
