/* A space of volumes in shared memory, with snapshots and diffs, whose n-th call fails.  A child
 * process that is killed leaves in it what it did. */
#ifndef CG_TESTS_FAKE_SPACE_H
#define CG_TESTS_FAKE_SPACE_H

#include "core/space.h"
#include "tests/unit/fake-image.h"

#define FAKE_BLOCK (1u << 20) /* what is copied on write and compared */

struct fake_space;

/* Both must be freed, the cg_space first.  faults may be NULL. */
struct fake_space *fake_space_new(struct fake_faults *faults);
void fake_space_free(struct fake_space *f);
struct cg_space *fake_space_open(struct fake_space *f);

/* A volume volumes/acme/NAME of size bytes; growing it; writing its head. */
void fake_space_add(struct fake_space *f, const char *name, uint64_t size);
void fake_space_grow(struct fake_space *f, const char *name, uint64_t size);
void fake_space_write(struct fake_space *f, const char *name, const void *buf, size_t len,
                      uint64_t off);

/* Gives the range back: zeros. */
void fake_space_punch(struct fake_space *f, const char *name, uint64_t len, uint64_t off);

/* The volume was rolled back or made anew: its snapshots aren't related any more. */
void fake_space_renew(struct fake_space *f, const char *name);

/* From now on diffs name nothing: they are wrong; or they are right again. */
void fake_space_lie(struct fake_space *f, bool lie);

/* Reads of images fail with EIO beyond this offset: a source that shrinks.  UINT64_MAX: none. */
void fake_space_shrink(struct fake_space *f, uint64_t at);

unsigned fake_space_snapshots(struct fake_space *f, const char *name);
uint64_t fake_space_bytes_read(struct fake_space *f);

#endif
