/* The keys and values of marks (marks.h). */
#ifndef CG_RBD_MARK_KEY_H
#define CG_RBD_MARK_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/bytes.h"

struct cg_rbd_mark {
    uint64_t snapshot;
    bool protection;            /* else a hold */
    char uuid[CG_UUID_LEN + 1]; /* of who holds it, or of the protecting */
    char host[65];
};

/* Appends to the size bytes at ret (the image's prefix is there) what stands for the mark. */
void cg_rbd_mark_key_encode(char *ret, size_t size, const struct cg_rbd_mark *mark);

/* What a key, behind the image's prefix, and its value say; false: it's of a later version. */
bool cg_rbd_mark_key_decode(const char *key, const char *value, struct cg_rbd_mark *ret);

#endif
