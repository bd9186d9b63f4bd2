/* Random operations on an image, compared with the same on plain memory. */
#ifndef CG_TESTS_ORACLE_H
#define CG_TESTS_ORACLE_H

#include <stdint.h>

#include "core/image/image.h"

struct oracle_options {
    unsigned operations, threads; /* threads: each in its own part of the image */
    uint64_t seed;
    uint64_t grain;   /* offsets and lengths are multiples of it */
    uint64_t longest; /* bytes of one operation */
};

/* The image, which reads as zeros, is written, zeroed, trimmed, flushed and read at random; each
 * read, each extent that claims zeros and the whole at the end must agree with memory.  Fails the
 * cmocka test otherwise. */
void oracle_run(struct cg_image *image, const struct oracle_options *options);

#endif
