/* What is run around the taking of snapshots (--freeze, --thaw), so that those who write come to
 * rest: a database, the file systems in a guest. */
#ifndef CG_CLI_HOOKS_H
#define CG_CLI_HOOKS_H

#include <stdbool.h>

#include "core/base/error.h"

struct cli_hooks {
    const char *freeze, *thaw; /* commands for a shell; NULL for none */
    char **names;              /* what is snapshotted: their arguments; ends with a NULL */
    bool begun;
};

/* For a command's table of options, and the function for cli_args that sets them. */
#define CLI_HOOKS_OPTIONS                                                                          \
    { "freeze", required_argument, NULL, 'F' },                                                    \
    {                                                                                              \
        "thaw", required_argument, NULL, 'T'                                                       \
    }
bool cli_hooks_set(struct cli_hooks *hooks, int option, const char *value);

/* Runs --freeze.  After a failure, too, cli_hooks_end follows; and from here to there a signal
 * doesn't end this process. */
int cli_hooks_begin(struct cli_hooks *hooks, struct cg_error *err);

/* Runs --thaw, if cli_hooks_begin came; taken: the snapshots are there. */
int cli_hooks_end(struct cli_hooks *hooks, bool taken, struct cg_error *err);

#endif
