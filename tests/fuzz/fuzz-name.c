/* The names that clients of NBD ask for. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/name.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A name that is taken has no part that leads elsewhere, and is the text of itself. */
static void check(const char *text, const struct cg_name *name)
{
    char again[CG_NAME_MAX];

    if (name->draft || name->parts > CG_PARTS ||
        strcmp(cg_name_text(name, false, again), text) != 0)
        abort();
    for (unsigned i = 0; i < name->parts; i++) {
        if (name->part[i][0] == '.' || strchr(name->part[i], '/') || !*name->part[i])
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1);
    struct cg_name name;
    struct cg_error err;

    if (size > 0)
        memcpy(text, data, size);
    if (cg_name_parse(text, &name, &err) == 0)
        check(text, &name);
    if (cg_name_parse_prefix(text, &name, &err) == 0 && name.parts > CG_PARTS)
        abort();
    free(text);
    return 0;
}
