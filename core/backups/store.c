#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/backups/store.h"
#include "core/base/cleanup.h"

#define FIRST 4096

int cg_store_read(struct cg_store *store, const char *path, size_t max, char **ret_buf,
                  size_t *ret_len, struct cg_error *err)
{
    size_t size = FIRST, len = 0;
    uint64_t total = 0;

    for (;;) {
        CG_CLEANUP(cg_free) char *buf = malloc(size + 1);
        if (!buf)
            return cg_error_set(err, ENOMEM, "read %s", path);
        int r = store->ops->get(store, path, buf, size, &len, &total, err);
        if (r < 0)
            return r;
        if (total > max)
            return cg_error_say(err, EFBIG, "%s has %llu bytes, more than %zu", path,
                                (unsigned long long)total, max);
        if (total <= size) {
            buf[len] = '\0';
            *ret_buf = buf;
            *ret_len = len;
            buf = NULL;
            return 0;
        }
        size = (size_t)total;
    }
}
