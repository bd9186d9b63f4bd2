/* The pool of a program that tests volumes in one at a time, and bytes of one value in them. */
#ifndef CG_TESTS_ONE_POOL_H
#define CG_TESTS_ONE_POOL_H

#include "tests/unit/volumes-pool.h"

extern struct pool pool;

/* For cmocka, around each test. */
int one_pool_setup(void **state);
int one_pool_teardown(void **state);

/* len bytes of value are written; are what is read. */
void put(struct cg_image *image, char value, size_t len, uint64_t off);
void expect(struct cg_image *image, char value, size_t len, uint64_t off);

#endif
