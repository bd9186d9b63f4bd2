/* What each thread of a job that works on chunks has of its own. */
#ifndef CG_JOBS_CHUNK_WORKERS_H
#define CG_JOBS_CHUNK_WORKERS_H

#include "core/backups/repository.h"

struct cg_chunk_worker {
    uint8_t *buf; /* CG_CHUNK_SIZE bytes */
    struct cg_codec *codec;
};

struct cg_chunk_workers {
    struct cg_repository *repository;
    unsigned count; /* for cg_parallel */
    struct cg_chunk_worker *v;
};

/* Makes ready count workers.  Returns 0 or -ENOMEM; cg_chunk_workers_clear frees them also then. */
int cg_chunk_workers_init(struct cg_chunk_workers *workers, struct cg_repository *repository,
                          uint64_t count, struct cg_error *err);

/* All zeros is fine. */
void cg_chunk_workers_clear(struct cg_chunk_workers *workers);

#endif
