/* Bytes as stored: little- and big-endian codec, hex, CRC-32C, zero detection, random bytes and
 * uuids. */
#ifndef CG_BASE_BYTES_H
#define CG_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline uint16_t cg_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t cg_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t cg_le64(const uint8_t *p)
{
    return cg_le32(p) | (uint64_t)cg_le32(p + 4) << 32;
}

static inline void cg_put_le16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void cg_put_le32(uint8_t *p, uint32_t v)
{
    cg_put_le16(p, (uint16_t)v);
    cg_put_le16(p + 2, (uint16_t)(v >> 16));
}

static inline void cg_put_le64(uint8_t *p, uint64_t v)
{
    cg_put_le32(p, (uint32_t)v);
    cg_put_le32(p + 4, (uint32_t)(v >> 32));
}

static inline void cg_put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void cg_put_be32(uint8_t *p, uint32_t v)
{
    cg_put_be16(p, (uint16_t)(v >> 16));
    cg_put_be16(p + 2, (uint16_t)v);
}

static inline void cg_put_be64(uint8_t *p, uint64_t v)
{
    cg_put_be32(p, (uint32_t)(v >> 32));
    cg_put_be32(p + 4, (uint32_t)v);
}

/* align is a power of two.  cg_round_up must not overflow: the callers' values are at most
 * CG_IMAGE_MAX (2^62). */
static inline uint64_t cg_round_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}

static inline uint64_t cg_round_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}

static inline uint64_t cg_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t cg_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4) of len bytes. */
uint32_t cg_crc32c(const void *buf, size_t len);

/* True if all len bytes are zero; true for len 0. */
bool cg_is_zero(const void *buf, size_t len);

/* The length of the run that begins at buf (len at least 1) of pieces of grain bytes, the last one
 * perhaps shorter, that are all zeros or all not; *ret_zeros says which. */
size_t cg_zero_run(const void *buf, size_t len, size_t grain, bool *ret_zeros);

/* Writes 2 * len lower-case digits and a terminating NUL. */
void cg_hex(char *ret, const void *buf, size_t len);

/* Reads exactly 2 * len lower-case hex digits; false, with ret undefined, if text is anything
 * else. */
bool cg_unhex(void *ret, size_t len, const char *text);

/* Random bytes from the kernel; never fails (aborts if the kernel can't). */
void cg_random(void *buf, size_t len);

#define CG_UUID_LEN 36

/* A random (version 4, RFC 4122) uuid as text. */
void cg_uuid(char ret[static CG_UUID_LEN + 1]);

/* True for the form that cg_uuid writes. */
bool cg_uuid_valid(const char *text);

#endif
