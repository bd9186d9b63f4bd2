/* Sizes and rates as people write and read them. */
#ifndef CG_BASE_SIZE_H
#define CG_BASE_SIZE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* The largest image: sums of two offsets can't overflow. */
#define CG_IMAGE_MAX (UINT64_C(1) << 62)

/* What image sizes are multiples of, in bytes. */
#define CG_SECTOR 512

/* Parses "10G", "512", "1.5T": decimal digits, an optional fraction, an optional K, M, G or T
 * (powers of 1024; "iB" or "B" may follow).  Returns 0, or -EINVAL for anything else, for what
 * isn't a whole number of bytes and for more than CG_IMAGE_MAX. */
int cg_size_parse(const char *text, uint64_t *ret_size, struct cg_error *err);

/* As cg_size_parse for the size of an image: -EINVAL too for 0 and for what isn't a multiple
 * of 512. */
int cg_size_parse_image(const char *text, uint64_t *ret_size, struct cg_error *err);

#define CG_SIZE_TEXT 24

/* "1.5 GiB": for people, three significant digits. */
void cg_size_text(char ret[static CG_SIZE_TEXT], uint64_t size);

#endif
