#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <zstd.h>

#include "core/backups/keys.h"
#include "core/backups/object.h"
#include "core/base/bytes.h"

/* The envelope, little-endian. */
enum {
    AT_MAGIC = 0,       /* 4 */
    AT_VERSION = 4,     /* u16 */
    AT_KIND = 6,        /* u8 */
    AT_FLAGS = 7,       /* u8 */
    AT_PLAIN_LEN = 8,   /* u32 */
    AT_STORED_LEN = 12, /* u32 */
    AT_GENERATION = 16, /* u32, 0 if not encrypted */
    AT_ID = 20,         /* 32 */
    AT_NONCE = 52,      /* 12 */
    AT_TAG = 64,        /* 16 */
    AT_PAYLOAD_CRC = 80,
    AT_RESERVED = 84, /* 8 */
    AT_HEADER_CRC = 92,
    AT_END = 96,
};
_Static_assert(AT_END == CG_OBJECT_HEADER, "the envelope has 96 bytes");

#define ENVELOPE 1
#define LEVEL 1

enum {
    FLAG_ZSTD = 1,
    FLAG_GCM = 2,
};

static const uint8_t magic[4] = { 'C', 'G', 'O', 'B' };

struct cg_codec {
    ZSTD_CCtx *compress;   /* made on first use */
    ZSTD_DCtx *decompress; /* made on first use */
    uint8_t *buffer;       /* CG_OBJECT_MAX bytes */
};

const char *cg_object_kind_text(enum cg_object_kind kind)
{
    return kind == CG_OBJECT_PAGE ? "page" : "chunk";
}

char *cg_object_path(const char *project, enum cg_object_kind kind, const struct cg_ref *ref,
                     char ret[static CG_OBJECT_PATH])
{
    char id[2 * CG_OBJECT_ID + 1];

    cg_hex(id, ref->id, sizeof ref->id);
    snprintf(ret, CG_OBJECT_PATH, "%s/%ss/%08x/%.2s/%s", project, cg_object_kind_text(kind),
             ref->era, id, id);
    return ret;
}

bool cg_object_era(const char *text, uint32_t *ret_era)
{
    uint8_t b[4];

    if (!cg_unhex(b, sizeof b, text))
        return false;
    *ret_era = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    return true;
}

struct cg_codec *cg_codec_new(void)
{
    struct cg_codec *codec = calloc(1, sizeof *codec);

    if (!codec)
        return NULL;
    codec->buffer = malloc(CG_OBJECT_MAX);
    if (!codec->buffer) {
        free(codec);
        return NULL;
    }
    return codec;
}

void cg_codec_free(struct cg_codec *codec)
{
    if (!codec)
        return;
    ZSTD_freeCCtx(codec->compress);
    ZSTD_freeDCtx(codec->decompress);
    free(codec->buffer);
    free(codec);
}

uint8_t *cg_codec_buffer(struct cg_codec *codec)
{
    return codec->buffer;
}

/* Compresses into the codec's buffer.  Returns the length, 0 if it isn't worth it, or -ENOMEM. */
static int64_t compress(struct cg_codec *codec, const void *plain, size_t len)
{
    if (!codec->compress)
        codec->compress = ZSTD_createCCtx();
    if (!codec->compress)
        return -ENOMEM;
    /* An output buffer that is too small ends the work early: all we want to know then. */
    size_t worth = len - (len + 19) / 20;
    size_t n = ZSTD_compressCCtx(codec->compress, codec->buffer, worth, plain, len, LEVEL);
    return ZSTD_isError(n) ? 0 : (int64_t)n;
}

int cg_object_encode(struct cg_codec *codec, enum cg_object_kind kind,
                     const uint8_t id[static CG_OBJECT_ID], const void *plain, size_t len,
                     struct cg_encoded *ret, struct cg_error *err)
{
    int64_t packed = compress(codec, plain, len);
    uint8_t *h = ret->header;

    if (packed < 0)
        return cg_error_set(err, ENOMEM, "compress a %s", cg_object_kind_text(kind));
    ret->payload = packed ? codec->buffer : plain;
    ret->payload_len = packed ? (size_t)packed : len;
    memset(h, 0, CG_OBJECT_HEADER);
    memcpy(h + AT_MAGIC, magic, sizeof magic);
    cg_put_le16(h + AT_VERSION, ENVELOPE);
    h[AT_KIND] = (uint8_t)kind;
    h[AT_FLAGS] = packed ? FLAG_ZSTD : 0;
    cg_put_le32(h + AT_PLAIN_LEN, (uint32_t)len);
    cg_put_le32(h + AT_STORED_LEN, (uint32_t)ret->payload_len);
    memcpy(h + AT_ID, id, CG_OBJECT_ID);
    cg_put_le32(h + AT_PAYLOAD_CRC, cg_crc32c(ret->payload, ret->payload_len));
    cg_put_le32(h + AT_HEADER_CRC, cg_crc32c(h, CG_OBJECT_HEADER));
    return 0;
}

/* The header's own soundness, then whether it is the object that was meant. */
static int check_header(enum cg_object_kind kind, const struct cg_ref *ref, const uint8_t *object,
                        size_t object_len, struct cg_error *err)
{
    uint8_t h[CG_OBJECT_HEADER];

    if (object_len < CG_OBJECT_HEADER)
        return cg_error_say(err, EIO, "only %zu bytes, less than a header", object_len);
    memcpy(h, object, sizeof h);
    if (memcmp(h + AT_MAGIC, magic, sizeof magic) != 0)
        return cg_error_say(err, EIO, "doesn't begin like an object");
    cg_put_le32(h + AT_HEADER_CRC, 0);
    if (cg_crc32c(h, sizeof h) != cg_le32(object + AT_HEADER_CRC))
        return cg_error_say(err, EIO, "the header's checksum is wrong");
    if (cg_le16(h + AT_VERSION) != ENVELOPE)
        return cg_error_say(err, ENOTSUP, "has format %u; this version of cowgate reads format %d",
                            cg_le16(h + AT_VERSION), ENVELOPE);
    if (h[AT_FLAGS] & FLAG_GCM)
        return cg_error_say(err, ENOTSUP, "is encrypted; this version of cowgate can't read that");
    if (h[AT_FLAGS] & ~FLAG_ZSTD)
        return cg_error_say(err, ENOTSUP, "has unknown flags 0x%02x", h[AT_FLAGS]);
    if (cg_le32(h + AT_GENERATION) || !cg_is_zero(h + AT_NONCE, 12) ||
        !cg_is_zero(h + AT_TAG, 16) || !cg_is_zero(h + AT_RESERVED, 8))
        return cg_error_say(err, EIO, "the header has bytes set that must be zero");
    if (h[AT_KIND] != kind)
        return cg_error_say(err, EIO, "is of kind %u, not a %s", h[AT_KIND],
                            cg_object_kind_text(kind));
    if (memcmp(h + AT_ID, ref->id, CG_OBJECT_ID) != 0)
        return cg_error_say(err, EIO, "has another object's id");
    if (cg_le32(h + AT_PLAIN_LEN) != ref->len)
        return cg_error_say(err, EIO, "says %u bytes of content where %u are referred to",
                            cg_le32(h + AT_PLAIN_LEN), ref->len);
    if (cg_le32(h + AT_STORED_LEN) != object_len - CG_OBJECT_HEADER)
        return cg_error_say(err, EIO, "has %zu bytes of payload, but says %u",
                            object_len - CG_OBJECT_HEADER, cg_le32(h + AT_STORED_LEN));
    return 0;
}

/* One frame, of exactly len bytes when unpacked: what it claims is checked before any is. */
static int decompress(struct cg_codec *codec, const void *payload, size_t payload_len, void *plain,
                      size_t len, struct cg_error *err)
{
    if (ZSTD_getFrameContentSize(payload, payload_len) != len ||
        ZSTD_findFrameCompressedSize(payload, payload_len) != payload_len)
        return cg_error_say(err, EIO, "isn't one zstd frame of %zu bytes", len);
    if (!codec->decompress)
        codec->decompress = ZSTD_createDCtx();
    if (!codec->decompress)
        return cg_error_set(err, ENOMEM, "decompress");
    size_t n = ZSTD_decompressDCtx(codec->decompress, plain, len, payload, payload_len);
    if (ZSTD_isError(n))
        return cg_error_say(err, EIO, "can't be decompressed: %s", ZSTD_getErrorName(n));
    if (n != len)
        return cg_error_say(err, EIO, "decompresses to %zu bytes, not %zu", n, len);
    return 0;
}

int cg_object_decode(struct cg_codec *codec, struct cg_keys *keys, enum cg_object_kind kind,
                     const struct cg_ref *ref, const void *object, size_t object_len,
                     void *ret_plain, struct cg_error *err)
{
    const uint8_t *h = object, *payload = h + CG_OBJECT_HEADER;
    uint8_t id[CG_OBJECT_ID];

    int r = check_header(kind, ref, h, object_len, err);
    if (r < 0)
        return r;
    size_t payload_len = object_len - CG_OBJECT_HEADER;
    if (cg_crc32c(payload, payload_len) != cg_le32(h + AT_PAYLOAD_CRC))
        return cg_error_say(err, EIO, "the payload's checksum is wrong");
    if (h[AT_FLAGS] & FLAG_ZSTD) {
        r = decompress(codec, payload, payload_len, ret_plain, ref->len, err);
        if (r < 0)
            return r;
    } else if (payload_len != ref->len) {
        return cg_error_say(err, EIO, "has %zu bytes, not %u", payload_len, ref->len);
    } else {
        memcpy(ret_plain, payload, payload_len);
    }
    r = cg_keys_object_id(keys, kind, ret_plain, ref->len, id, err);
    if (r < 0)
        return r;
    if (memcmp(id, ref->id, sizeof id) != 0)
        return cg_error_say(err, EIO, "the content isn't what its id stands for");
    return 0;
}
