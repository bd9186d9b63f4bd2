/* A hold as stored: PROJECT/holds/UUID is {"format": 1, "uuid": …, "point": "VOLUME/POINT"}. */
#ifndef CG_BACKUPS_HOLD_FILE_H
#define CG_BACKUPS_HOLD_FILE_H

#include <stddef.h>

#include "core/base/error.h"
#include "core/base/name.h"

#define CG_HOLD_POINT (2 * (CG_PART_MAX + 1)) /* bytes of VOLUME/POINT with its NUL */

/* The caller frees the text.  NULL if memory is short. */
char *cg_hold_file_encode(const char *uuid, const char *point);

/* What the hold of uuid holds.  -EIO: it isn't that hold. */
int cg_hold_file_decode(const char *uuid, const char *text, size_t len,
                        char ret_point[static CG_HOLD_POINT], struct cg_error *err);

#endif
