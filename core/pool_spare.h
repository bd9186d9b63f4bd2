/* Room that is kept in a pool for what gives room back: deleting a snapshot writes a little first,
 * and in a full pool there would be none for that. */
#ifndef CG_POOL_SPARE_H
#define CG_POOL_SPARE_H

#include <stdbool.h>
#include <stdint.h>

/* Keeps some (a file in the directory pool) if there is much: room bytes are free there.  A failure
 * keeps none. */
void cg_pool_spare_keep(const char *pool, uint64_t room);

/* Gives it back to the file system.  False: there was none. */
bool cg_pool_spare_use(const char *pool);

#endif
