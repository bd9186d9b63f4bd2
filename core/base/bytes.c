#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <isa-l/crc.h>
#include <isa-l/mem_routines.h>

#include "core/base/bytes.h"

uint32_t cg_crc32c(const void *buf, size_t len)
{
    uint32_t crc = ~UINT32_C(0);
    const uint8_t *p = buf;

    while (len > 0) {
        int n = len > (1 << 30) ? 1 << 30 : (int)len;
        crc = crc32_iscsi((unsigned char *)p, n, crc);
        p += n;
        len -= (size_t)n;
    }
    return ~crc;
}

bool cg_is_zero(const void *buf, size_t len)
{
    return len == 0 || isal_zero_detect((void *)buf, len) == 0;
}

size_t cg_zero_run(const void *buf, size_t len, size_t grain, bool *ret_zeros)
{
    const uint8_t *p = buf;
    size_t n = (size_t)cg_min(len, grain);
    bool zeros = cg_is_zero(p, n);

    while (n < len && cg_is_zero(p + n, (size_t)cg_min(len - n, grain)) == zeros)
        n += (size_t)cg_min(len - n, grain);
    *ret_zeros = zeros;
    return n;
}

void cg_hex(char *ret, const void *buf, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = buf;

    for (size_t i = 0; i < len; i++) {
        *ret++ = digits[p[i] >> 4];
        *ret++ = digits[p[i] & 15];
    }
    *ret = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

bool cg_unhex(void *ret, size_t len, const char *text)
{
    uint8_t *p = ret;

    for (size_t i = 0; i < len; i++) {
        int hi = hex_digit(text[0]);
        int lo = hi < 0 ? -1 : hex_digit(text[1]);
        if (lo < 0)
            return false;
        p[i] = (uint8_t)(hi << 4 | lo);
        text += 2;
    }
    return *text == '\0';
}

void cg_random(void *buf, size_t len)
{
    uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            abort();
        }
        p += n;
        len -= (size_t)n;
    }
}

void cg_uuid(char ret[static CG_UUID_LEN + 1])
{
    uint8_t b[16];
    char hex[33];

    cg_random(b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    cg_hex(hex, b, sizeof b);
    snprintf(ret, CG_UUID_LEN + 1, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
             hex + 20);
}

bool cg_uuid_valid(const char *text)
{
    for (size_t i = 0; i < CG_UUID_LEN; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? text[i] != '-' : hex_digit(text[i]) < 0)
            return false;
    }
    return text[CG_UUID_LEN] == '\0';
}
