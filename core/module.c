#include "config.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/module.h"

int cg_module_load(const char *space, const struct cg_module **ret_module, struct cg_error *err)
{
    const char *dir = getenv("COWGATE_MODULES");
    char path[PATH_MAX];

    if (!dir || !*dir)
        dir = PKGLIBDIR;
    if ((size_t)snprintf(path, sizeof path, "%s/cowgate-%s.so", dir, space) >= sizeof path)
        return cg_error_set(err, ENAMETOOLONG, "load the module for %s/", space);
    /* What a module links to starts threads: it stays for the rest of the process's life. */
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        return cg_error_say(err, ENOENT,
                            "%s/ needs a module that can't be loaded (%s): is cowgate built with "
                            "it, and are its libraries installed?",
                            space, dlerror());
    const struct cg_module *module = dlsym(handle, CG_MODULE_SYMBOL);
    if (!module || strcmp(module->version, CG_MODULE_VERSION) != 0)
        return cg_error_say(err, ENOENT, "%s belongs to another version of cowgate", path);
    *ret_module = module;
    return 0;
}
