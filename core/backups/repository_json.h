/* repository.json: what makes a directory a repository, and which. */
#ifndef CG_BACKUPS_REPOSITORY_JSON_H
#define CG_BACKUPS_REPOSITORY_JSON_H

#include <stddef.h>

#include "core/base/bytes.h"
#include "core/base/error.h"

#define CG_REPOSITORY_JSON "repository.json"
#define CG_REPOSITORY_JSON_BYTES 128 /* bytes of the text with its NUL */

void cg_repository_json_encode(const char *uuid, char ret[static CG_REPOSITORY_JSON_BYTES]);

/* -EIO: damaged; -ENOTSUP: of another format. */
int cg_repository_json_decode(const char *text, size_t len, char ret_uuid[static CG_UUID_LEN + 1],
                              struct cg_error *err);

#endif
