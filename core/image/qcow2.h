/* An image that can't change, as a read-only virtual qcow2 file: for importers that know of no
 * holes in a raw file (librbd's file stream). */
#ifndef CG_IMAGE_QCOW2_H
#define CG_IMAGE_QCOW2_H

#include "core/image/image.h"

/* The qcow2 file (version 3, clusters of 64 KiB, no snapshots) whose content is base's: its bytes
 * are made when they are read, and are always the same.  What base calls a hole or zeros has no
 * cluster.  The image takes a reference to base.  -EINVAL if base can change; -EFBIG for more than
 * librbd's 128 TiB. */
int cg_qcow2_open(struct cg_image *base, struct cg_image **ret_image, struct cg_error *err);

#endif
