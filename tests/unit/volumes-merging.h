/* For tests of merging layers: a pool with the volume V, and looks at what it consists of. */
#ifndef CG_TESTS_VOLUMES_MERGING_H
#define CG_TESTS_VOLUMES_MERGING_H

#include "core/volumes/volume_json.h"
#include "tests/unit/volumes-faults.h"

extern struct cg_space *second; /* as another process has it */

/* For cmocka. */
int merging_setup(void **state);
int merging_teardown(void **state);

/* Merges what can be; 1: not all. */
int reclaim_by(struct cg_space *space);
int reclaim(void);

/* What is written down of a volume in the project; the caller clears it. */
struct cg_volume_json json_of(const char *volume);

/* Of V: of its head, and half merged. */
size_t layers(void);
size_t mixed(void);

/* Opens, writes or compares, and closes. */
void write_v(struct cg_space *space, char value, size_t len, uint64_t off);
void expect_in(const char *name, char value, size_t len, uint64_t off);
void expect_v(char value, size_t len, uint64_t off);

#endif
