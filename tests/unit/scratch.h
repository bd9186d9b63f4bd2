/* A directory for a test's files. */
#ifndef CG_TESTS_SCRATCH_H
#define CG_TESTS_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

extern char scratch[]; /* its path */

/* For cmocka: made before the first test, removed with all in it after the last. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* Writes into a file that is there. */
void scratch_put(const char *path, const void *bytes, size_t len, uint64_t off);

#endif
