/* What is taken at one moment is taken whole or not at all, also if who takes it dies: before the
 * first snapshot a record names them all, in the pool; when all are there it goes, and that is when
 * they count.  A record that nobody holds was left by somebody who died: the snapshots that it
 * names are taken back. */
#ifndef CG_VOLUMES_MOMENT_RECORD_H
#define CG_VOLUMES_MOMENT_RECORD_H

#include <jansson.h>

#include "core/base/bytes.h"
#include "core/volumes/space.h"

struct cg_moment_record {
    char path[16 + CG_UUID_LEN]; /* in the pool; "" for none */
    int fd;                      /* holds it */
};

/* Makes one, durable and held.  snapshots: [{name, uuid}]. */
int cg_moment_record_create(struct cg_volumes *space, const json_t *snapshots,
                            struct cg_moment_record *ret, struct cg_error *err);

/* Removes it, durably.  Closed or not, afterwards it's to be closed. */
int cg_moment_record_remove(struct cg_volumes *space, struct cg_moment_record *record,
                            struct cg_error *err);

/* Lets go of it: one that wasn't removed is for others to clean up. */
void cg_moment_record_close(struct cg_moment_record *record);

/* Calls fn for each record that nobody holds; it's removed if that returns 0. */
void cg_moment_record_each_left(struct cg_volumes *space,
                                int (*fn)(struct cg_volumes *space, const json_t *snapshots));

#endif
