#include "config.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/bulk.h"
#include "core/jobs/chunk_workers.h"

int cg_chunk_workers_init(struct cg_chunk_workers *w, struct cg_repository *repository,
                          uint64_t count, struct cg_error *err)
{
    *w = (struct cg_chunk_workers){ .repository = repository, .count = (unsigned)count };
    w->v = calloc(count + 1, sizeof *w->v);
    for (unsigned i = 0; w->v && i < count; i++) {
        w->v[i].buf = cg_bulk_buffer(CG_CHUNK_SIZE);
        w->v[i].codec = cg_repository_codec(repository);
        if (!w->v[i].buf || !w->v[i].codec)
            return cg_error_set(err, ENOMEM, "begin to work on chunks");
    }
    return w->v ? 0 : cg_error_set(err, ENOMEM, "begin to work on chunks");
}

void cg_chunk_workers_clear(struct cg_chunk_workers *w)
{
    for (unsigned i = 0; w->v && i < w->count; i++) {
        free(w->v[i].buf);
        cg_repository_codec_done(w->repository, w->v[i].codec);
    }
    free(w->v);
}
