/* An image in memory whose n-th call fails, for sweeps over n. */
#ifndef CG_TESTS_FAKE_IMAGE_H
#define CG_TESTS_FAKE_IMAGE_H

#include <stdbool.h>

#include "core/image/image.h"

struct fake_faults {
    _Atomic unsigned calls; /* so far, by all images that share this */
    unsigned fail_at;       /* the call that fails with EIO, from 1; 0 for none */
    _Atomic bool unflushed; /* something was changed since the last flush */
};

/* size bytes of memory in blocks of 4 KiB; the image is the memory's only owner.  Blocks never
 * written are holes.  Either may be NULL: faults; bytes_read, which counts what is read. */
struct cg_image *fake_image_new(uint64_t size, struct fake_faults *faults,
                                _Atomic uint64_t *bytes_read);

#endif
