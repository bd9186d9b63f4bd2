/* What the files of the steps share: the new image in the cluster, and what every step does. */
#ifndef CG_CLI_MIGRATE_INSIDE_H
#define CG_CLI_MIGRATE_INSIDE_H

#include "cli/migrate.h"

/* migrate_image.c */

/* How far the new image is; -ENOENT if there is none, -ESTALE if another has its name. */
int cli_migrate_look(const struct cli_migration *mi, struct cg_migration_status *ret);

/* The same without an open migration. */
int cli_migrate_look_at(struct cg_space *space, const struct cg_name *target,
                        const struct cg_migration_record *record, struct cg_migration_status *ret,
                        struct cg_error *err);

/* True if look said that the migration's image isn't there. */
bool cli_migrate_is_gone(int r);

/* Takes a step with a progress bar.  An interrupted fill ends the process. */
int cli_migrate_step(struct cli_migration *mi, enum cg_migration_step step);

/* Removes an image that isn't being filled: what a prepare left that was killed in between, if it
 * has never been written; -EEXIST: it isn't that.  Waits for who died with it open. */
int cli_migrate_remove_leftover(struct cli_migration *mi);

/* Removes the migration's image.  Waits for who died with it open. */
int cli_migrate_remove_image(struct cli_migration *mi);

/* migrate_steps.c */

/* Finds the spaces of the target and of what the record reads. */
int cli_migrate_find_spaces(struct cli_migration *mi);

/* Starts the migration's own server, as its image is there and reads from it. */
int cli_migrate_serve_again(struct cli_migration *mi, const struct cg_migration_status *status);

/* For what is to be done with an image that was prepared: how far it is, and that it can be read.
 */
int cli_migrate_going_on(struct cli_migration *mi, struct cg_migration_status *ret);

/* Ends the server, lets go of all that is read, removes the record: the cluster's part is done. */
int cli_migrate_finish(struct cli_migration *mi);

#endif
