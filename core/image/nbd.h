/* An NBD export of another server as an image (libnbd). */
#ifndef CG_IMAGE_NBD_H
#define CG_IMAGE_NBD_H

#include "core/image/image.h"

/* Connects to a URI (nbd://, nbds://, nbd+unix://, nbds+unix://); several connections where the
 * server allows multi-conn. */
int cg_nbd_open(const char *uri, bool write, struct cg_image **ret_image, struct cg_error *err);

#endif
