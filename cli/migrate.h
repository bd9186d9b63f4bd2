/* The steps of a migration, each of which can be taken again after it failed or died. */
#ifndef CG_CLI_MIGRATE_H
#define CG_CLI_MIGRATE_H

#include "cli/cli.h"
#include "core/jobs/migrate_source.h"
#include "core/jobs/migration.h"

/* How the stream is to be served. */
struct cli_migrate_options {
    bool serve;         /* by a server of its own */
    bool snapshots;     /* of the source too */
    bool insecure;      /* with listen: also without TLS */
    const char *listen; /* of an own server: ADDR:PORT; NULL for a socket */
    const char *certificates;
    bool verify_peer;      /* with certificates: clients have to show one */
    const char *advertise; /* where a server answers, for all who open the new image; or NULL */
    bool explicit_advertise;
    const char *stream; /* "nbd", "file", or NULL for what this host's librbd can read */
};

/* An open migration with all that its steps need. */
struct cli_migration {
    struct cli *cli;
    struct cg_migration *m;
    struct cg_name target;
    struct cg_space *space; /* of the target */
    struct cg_migration_spaces spaces;
};

/* Opens the migration into the image of that name.  -ENOENT: there is none. */
int cli_migration_open(struct cli *cli, const char *target, struct cli_migration *ret);
void cli_migration_close(struct cli_migration *mi);

/* Begins the migration, or goes on with what is there, until the new image can be used; then it's
 * open.  After a failure nothing is left of what this began. */
int cli_migration_prepare(struct cli *cli, const char *source, const char *target,
                          const struct cli_migrate_options *options, struct cli_migration *ret);

int cli_migration_execute(struct cli_migration *mi);
int cli_migration_commit(struct cli_migration *mi);
int cli_migration_abort(struct cli_migration *mi);

/* Waits, after letting go of the migration for others, until it or its own server has ended, -EIO
 * then, or this process is asked to end: that ends the server, unless another process is at the
 * migration. */
int cli_migration_stay(struct cli_migration *mi);

#endif
