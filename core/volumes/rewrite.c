#include "config.h"

#include <stdlib.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/volumes/marks.h"
#include "core/volumes/rewrite.h"

struct rewrite {
    struct cg_map *map;
    int fd;
    const char *uuid;
    uint8_t *buf; /* of size bytes */
    size_t size;
};

static int write_again(struct rewrite *w, uint64_t block, uint64_t count, struct cg_error *err)
{
    uint64_t off = block * CG_BLOCK;
    size_t len = (size_t)count * CG_BLOCK;

    if (cg_pread_full(w->fd, w->buf, len, off) < 0) {
        for (uint64_t i = 0; count > 1 && i < count; i++) {
            int r = write_again(w, block + i, 1, err);
            if (r < 0)
                return r;
        }
        return 0;
    }
    int r = cg_pwrite_full(w->fd, w->buf, len, off);
    if (r < 0)
        return cg_error_set(err, -r, "write %s.data again at %llu", w->uuid,
                            (unsigned long long)off);
    cg_marks_written(cg_map_work(w->map), block, count);
    return 0;
}

/* Those of the blocks that have data. */
static int rewrite_range(struct rewrite *w, uint64_t block, uint64_t count, struct cg_error *err)
{
    uint64_t end = block + count, n;

    for (; block < end; block += n) {
        enum cg_state state;
        int r = cg_map_run(w->map, block, cg_min(end - block, w->size / CG_BLOCK), &state, &n, err);
        if (r == 0 && state == CG_STATE_DATA)
            r = write_again(w, block, n, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int cg_rewrite_unsure(struct cg_map *map, int fd, const char *uuid, struct cg_error *err)
{
    struct rewrite w = { .map = map, .fd = fd, .uuid = uuid, .size = (size_t)1 << 20 };
    uint64_t count;

    if (!cg_marks_unsure(cg_map_work(map)))
        return 0;
    CG_CLEANUP(cg_free) uint8_t *buf = malloc(w.size);
    if (!buf)
        return cg_error_set(err, ENOMEM, "write %s.data again", uuid);
    w.buf = buf;
    for (uint64_t block = 0; cg_marks_next_unsure(cg_map_work(map), &block, &count);
         block += count) {
        int r = rewrite_range(&w, block, count, err);
        if (r < 0)
            return r;
    }
    return 0;
}
