/* A partition as an image: a window onto another. */
#ifndef CG_IMAGE_WINDOW_H
#define CG_IMAGE_WINDOW_H

#include "core/image/image.h"

/* The window [off, off + len) of base, which gets a reference of its own. */
int cg_window_open(struct cg_image *base, uint64_t off, uint64_t len, struct cg_image **ret_image,
                   struct cg_error *err);

/* Where base's partition number lies, in bytes; else as cg_window_open_partition. */
int cg_window_find_partition(struct cg_image *base, unsigned number, uint64_t *ret_off,
                             uint64_t *ret_len, struct cg_error *err);

/* The window of base's partition number (from 1) by its GPT or MBR table.  -ENOENT: no such
 * partition, or no table. */
int cg_window_open_partition(struct cg_image *base, unsigned number, struct cg_image **ret_image,
                             struct cg_error *err);

#endif
