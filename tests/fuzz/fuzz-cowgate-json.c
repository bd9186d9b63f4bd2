/* cowgate.json, with what it says of rbd/. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/rbd/settings.h"
#include "core/root.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_rbd(const json_t *rbd)
{
    struct cg_rbd_config config;
    struct cg_error err;

    if (cg_rbd_config_read(rbd, &config, &err) == 0) {
        if (!config.id || config.timeout < 1 || !(config.audit >= 0 && config.audit <= 1))
            abort();
        /* Who is bound to a project may use only what is given to it. */
        if (!config.pools && cg_rbd_config_allows(&config, "rbd", "", "acme"))
            abort();
        if (cg_rbd_config_allows(&config, "rbd", "", "acme") &&
            !cg_rbd_config_allows(&config, "rbd", NULL, NULL))
            abort();
    }
    cg_rbd_config_clear(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cg_root root;
    struct cg_error err;

    if (cg_root_decode("/srv/root", (const char *)data, size, &root, &err) < 0)
        return 0;
    if (root.repository[0] != '/' || root.pool[0] != '/')
        abort();
    if (root.pool_warn < 1 || root.pool_warn > 101 || root.pool_interval < 1)
        abort();
    read_rbd(root.rbd);
    cg_root_clear(&root);
    return 0;
}
