#include "config.h"

#include "core/base/bytes.h"
#include "core/rbd/migration_header.h"

#define KNOWN_VERSION 3
#define TARGET 2 /* header_type */

struct reader {
    const uint8_t *p;
    size_t left;
    bool short_of;
};

/* The next n bytes; NULL once it's short of them. */
static const uint8_t *take(struct reader *r, size_t n)
{
    const uint8_t *p = r->p;

    if (r->short_of || n > r->left) {
        r->short_of = true;
        return NULL;
    }
    r->p += n;
    r->left -= n;
    return p;
}

static uint8_t take_byte(struct reader *r)
{
    const uint8_t *p = take(r, 1);

    return p ? *p : 0;
}

static uint32_t take_count(struct reader *r)
{
    const uint8_t *p = take(r, 4);

    return p ? cg_le32(p) : 0;
}

static const char *take_text(struct reader *r, size_t *ret_len)
{
    *ret_len = take_count(r);
    return (const char *)take(r, *ret_len);
}

bool cg_rbd_migration_decode(const void *answer, size_t len, struct cg_rbd_migration *ret)
{
    struct reader r = { .p = answer, .left = len };
    struct cg_rbd_migration m = { .description = "", .spec = "" };
    size_t ignored;

    uint8_t version = take_byte(&r), compatible = take_byte(&r);
    size_t size = take_count(&r);
    if (r.short_of || compatible > KNOWN_VERSION || size > r.left)
        return false;
    r.left = size;
    m.target = take_byte(&r) == TARGET;
    take(&r, 8);                     /* the pool */
    for (unsigned i = 0; i < 3; i++) /* its namespace, the other image's name and id */
        take_text(&r, &ignored);
    uint64_t snapshots = take_count(&r);
    if (snapshots * 16 > r.left)
        return false;
    take(&r, snapshots * 16 + 8 + 2); /* the overlap, two flags */
    m.state = take_byte(&r);
    m.description = take_text(&r, &m.description_len);
    if (version >= 2)
        take(&r, 1); /* how it's mirrored */
    if (version >= 3)
        m.spec = take_text(&r, &m.spec_len);
    if (r.short_of)
        return false;
    *ret = m;
    return true;
}
