#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/size.h"

static const char units[] = "KMGT";

/* Digits and an optional fraction of up to 9 digits, as value and value-after-the-point / scale. */
static const char *parse_number(const char *p, uint64_t *whole, uint64_t *frac, uint64_t *scale)
{
    *whole = *frac = 0;
    *scale = 1;
    const char *start = p;
    for (; *p >= '0' && *p <= '9'; p++) {
        *whole = *whole * 10 + (uint64_t)(*p - '0');
        if (*whole > CG_IMAGE_MAX)
            return NULL;
    }
    if (p == start)
        return NULL;
    if (*p != '.')
        return p;
    const char *point = ++p;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (p - point >= 9)
            return NULL;
        *frac = *frac * 10 + (uint64_t)(*p - '0');
        *scale *= 10;
    }
    return p == point ? NULL : p;
}

int cg_size_parse(const char *text, uint64_t *ret_size, struct cg_error *err)
{
    uint64_t whole, frac, scale;
    unsigned shift = 0;
    const char *p = parse_number(text, &whole, &frac, &scale);

    if (p && *p) {
        const char *unit = strchr(units, *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
        if (unit) {
            shift = 10 * (unsigned)(unit - units + 1);
            p++;
            if (*p == 'i' && p[1] == 'B')
                p++;
        }
        if (*p == 'B')
            p++;
    }
    if (!p || *p)
        return cg_error_say(err, EINVAL, "'%s' is not a size: write bytes or 512M, 10G, 1.5T",
                            text);
    if (whole > CG_IMAGE_MAX >> shift)
        return cg_error_say(err, EINVAL, "size %s is larger than 4 EiB", text);
    unsigned __int128 fraction = (unsigned __int128)frac << shift;
    if (fraction % scale)
        return cg_error_say(err, EINVAL, "size %s is not a whole number of bytes", text);
    uint64_t size = (whole << shift) + (uint64_t)(fraction / scale);
    if (size > CG_IMAGE_MAX)
        return cg_error_say(err, EINVAL, "size %s is larger than 4 EiB", text);
    *ret_size = size;
    return 0;
}

int cg_size_parse_image(const char *text, uint64_t *ret_size, struct cg_error *err)
{
    uint64_t size;
    int r = cg_size_parse(text, &size, err);

    if (r < 0)
        return r;
    if (size == 0)
        return cg_error_say(err, EINVAL, "size 0: an image has at least 512 bytes");
    if (size % CG_SECTOR)
        return cg_error_say(err, EINVAL, "size %s is not a multiple of 512 bytes", text);
    *ret_size = size;
    return 0;
}

void cg_size_text(char ret[static CG_SIZE_TEXT], uint64_t size)
{
    static const char *const names[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = (double)size;
    unsigned i = 0;

    while (value >= 1000 && i + 1 < sizeof names / sizeof *names) {
        value /= 1024;
        i++;
    }
    int digits = i == 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(ret, CG_SIZE_TEXT, "%.*f %s", digits, value, names[i]);
}
