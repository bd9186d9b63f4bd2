#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/rbd/policy.h"

static const char *value_of(const rbd_config_option_t *options, int count, const char *name,
                            const char *missing)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(options[i].name, name) == 0)
            return options[i].value;
    }
    return missing;
}

static bool is_true(const char *value)
{
    return strcmp(value, "true") == 0 || strcmp(value, "1") == 0 || strcmp(value, "yes") == 0;
}

int cg_rbd_policy(rbd_image_t image, struct cg_rbd_policy *ret)
{
    rbd_config_option_t *options = NULL;
    int max = 128, r;

    do {
        free(options);
        options = calloc((size_t)max, sizeof *options);
        if (!options)
            return -ENOMEM;
        r = rbd_config_image_list(image, options, &max);
    } while (r == -ERANGE);
    if (r == 0) {
        const char *policy = value_of(options, max, "rbd_cache_policy", "writearound");
        ret->writes_back = is_true(value_of(options, max, "rbd_cache", "true")) &&
                           strcmp(policy, "writethrough") != 0;
        ret->zero_copy = !is_true(value_of(options, max, "rbd_disable_zero_copy_writes", "false"));
        rbd_config_image_list_cleanup(options, max);
    }
    free(options);
    return r;
}
