/* What the file `lock` of a volume says: one sector of JSON about the process that writes. */
#ifndef CG_VOLUMES_WRITER_RECORD_H
#define CG_VOLUMES_WRITER_RECORD_H

#include <stddef.h>

#include "core/volumes/writer.h"

/* The file is empty or has this length, one sector: it's replaced by a single write that neither a
 * kill nor a crash of the host can cut. */
#define CG_WRITER_RECORD 512

/* -ENAMETOOLONG: the run directory's path doesn't fit; -ENOMEM. */
int cg_writer_record_encode(const struct cg_writer *writer, char ret[static CG_WRITER_RECORD],
                            struct cg_error *err);

/* -EIO: that's nothing which encode writes; then nothing says whether working maps are left, so
 * that what is missing is never taken for "none". */
int cg_writer_record_decode(const char *text, size_t len, struct cg_writer *ret);

#endif
