/* An image whose holes nobody knows, with its zeros found by reading. */
#ifndef CG_IMAGE_DETECT_H
#define CG_IMAGE_DETECT_H

#include "core/image/image.h"

/* base, which gets a reference of its own, to be read only; its bytes must not change while this is
 * open.  What base calls data is read when extents are asked for, and runs of zeros in it, by
 * aligned 64 KiB, are told as CG_ZERO; a call looks at 32 MiB of data at most.  What can't be read
 * is called data, so that whoever reads it hears why. */
int cg_detect_open(struct cg_image *base, struct cg_image **ret_image, struct cg_error *err);

#endif
