/* Spaces that live in a module of their own (cowgate-NAME.so), loaded when one of their names is
 * first used, so that all the rest installs and runs without the libraries they need. */
#ifndef CG_MODULE_H
#define CG_MODULE_H

#include <jansson.h>

#include "core/base/error.h"
#include "core/space.h"

/* What a module exports under the symbol CG_MODULE_SYMBOL. */
struct cg_module {
    const char *version; /* CG_MODULE_VERSION: host and module are built together */
    /* Makes the module's space from its part of the root's configuration (NULL: none was given).
     * Connects to nothing yet. */
    int (*open)(const json_t *config, struct cg_space **ret_space, struct cg_error *err);
};

#define CG_MODULE_SYMBOL "cowgate_module"
#define CG_MODULE_VERSION PACKAGE_VERSION " interface 1"

/* Loads the module of a space, from $COWGATE_MODULES or where it was installed; a loaded module is
 * never unloaded.  -ENOENT: it isn't installed, or what it needs is missing.  Any thread. */
int cg_module_load(const char *space, const struct cg_module **ret_module, struct cg_error *err);

#endif
