/* The command line of cowgate-fuse. */
#ifndef CG_FUSE_OPTIONS_H
#define CG_FUSE_OPTIONS_H

#include <stdbool.h>

#include <fuse_opt.h>

#include "core/base/error.h"

struct cg_options {
    const char *root, *dir; /* as given */
    char *project;          /* NULL: all */
    char **only;            /* names, with a NULL; or NULL: all */
    size_t only_count, only_allocated;
    bool read_only;
    unsigned max_read; /* 0: not given */
    bool foreground;
    bool help, version;
    struct fuse_args rest; /* for libfuse: the options that it or the kernel knows */
};

/* Parses the arguments of main.  Returns 0, or -EINVAL.  cg_options_clear afterwards in any case.
 */
int cg_options_parse(int argc, char **argv, struct cg_options *ret, struct cg_error *err);
void cg_options_clear(struct cg_options *options);

#endif
