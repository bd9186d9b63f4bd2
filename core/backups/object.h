/* Objects: chunks and pages as they lie in the repository, in an envelope of 96 bytes
 * (docs/format-repository.md). */
#ifndef CG_BACKUPS_OBJECT_H
#define CG_BACKUPS_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/base/error.h"
#include "core/base/name.h"

struct cg_keys;

#define CG_CHUNK_SIZE (UINT32_C(4) << 20) /* bytes of a volume in one chunk */
#define CG_OBJECT_ID 32
#define CG_OBJECT_HEADER 96
#define CG_OBJECT_MAX (CG_OBJECT_HEADER + CG_CHUNK_SIZE) /* of a whole object, bytes */

enum cg_object_kind {
    CG_OBJECT_CHUNK = 1,
    CG_OBJECT_PAGE = 2,
};

/* What points and pages say of an object. */
struct cg_ref {
    uint8_t id[CG_OBJECT_ID];
    uint32_t era;
    uint32_t len; /* of the plaintext, bytes; 0: all zeros, stored nowhere */
};

static inline bool cg_ref_is_zero(const struct cg_ref *ref)
{
    return ref->len == 0;
}

/* The same content, in whichever era it was stored. */
static inline bool cg_ref_same(const struct cg_ref *a, const struct cg_ref *b)
{
    return a->len == b->len && memcmp(a->id, b->id, sizeof a->id) == 0;
}

static inline bool cg_ref_equal(const struct cg_ref *a, const struct cg_ref *b)
{
    return a->era == b->era && cg_ref_same(a, b);
}

#define CG_OBJECT_PATH (CG_PART_MAX + 96)

/* "PROJECT/chunks/ERA/xx/ID".  Returns ret. */
char *cg_object_path(const char *project, enum cg_object_kind kind, const struct cg_ref *ref,
                     char ret[static CG_OBJECT_PATH]);

/* Reads an era as names have it, 8 hex digits; false if text is anything else. */
bool cg_object_era(const char *text, uint32_t *ret_era);

/* "chunk" or "page". */
const char *cg_object_kind_text(enum cg_object_kind kind);

/* Contexts and a buffer for one thread at a time that encodes or decodes. */
struct cg_codec;

/* NULL if memory is short. */
struct cg_codec *cg_codec_new(void);
void cg_codec_free(struct cg_codec *codec);

/* CG_OBJECT_MAX bytes to read an object into; encoding overwrites them. */
uint8_t *cg_codec_buffer(struct cg_codec *codec);

/* An object to be written: header, then payload. */
struct cg_encoded {
    uint8_t header[CG_OBJECT_HEADER];
    const void *payload; /* in the codec, or the plaintext itself: valid as long as both are */
    size_t payload_len;
};

/* Packs len bytes (1 to CG_CHUNK_SIZE) whose id is known.  Compressed only if that saves at least
 * 5 %.  Returns 0, -ENOMEM or -EIO. */
int cg_object_encode(struct cg_codec *codec, enum cg_object_kind kind,
                     const uint8_t id[static CG_OBJECT_ID], const void *plain, size_t len,
                     struct cg_encoded *ret, struct cg_error *err);

/* Unpacks an object of object_len bytes into exactly ref->len bytes and checks that they are what
 * ref's id stands for.  Returns 0; -EIO: damaged, or not the object of ref; -ENOTSUP: written by a
 * later version or encrypted; -ENOMEM.  After a failure the content of ret_plain is undefined. */
int cg_object_decode(struct cg_codec *codec, struct cg_keys *keys, enum cg_object_kind kind,
                     const struct cg_ref *ref, const void *object, size_t object_len,
                     void *ret_plain, struct cg_error *err);

#endif
