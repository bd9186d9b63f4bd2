#include "config.h"

#include <errno.h>

#include "core/backups/page.h"
#include "core/base/bytes.h"

enum {
    AT_ID = 0,        /* 32 */
    AT_ERA = 32,      /* u32 */
    AT_FLAGS = 36,    /* u32, zero */
    AT_LEN = 40,      /* u32 */
    AT_RESERVED = 44, /* u32, zero */
    AT_END = 48,
};
_Static_assert(AT_END == CG_PAGE_ENTRY, "an entry has 48 bytes");
_Static_assert(CG_PAGE_SPAN == (uint64_t)CG_PAGE_CHUNKS * CG_CHUNK_SIZE, "a page spans 2 GiB");

uint64_t cg_page_count(uint64_t size)
{
    return (size + CG_PAGE_SPAN - 1) / CG_PAGE_SPAN;
}

uint64_t cg_chunk_count(uint64_t size)
{
    return (size + CG_CHUNK_SIZE - 1) / CG_CHUNK_SIZE;
}

uint32_t cg_chunk_len(uint64_t size, uint64_t chunk)
{
    return (uint32_t)cg_min(CG_CHUNK_SIZE, size - chunk * CG_CHUNK_SIZE);
}

void cg_page_encode(const struct cg_ref refs[static CG_PAGE_CHUNKS],
                    uint8_t ret[static CG_PAGE_BYTES])
{
    memset(ret, 0, CG_PAGE_BYTES);
    for (unsigned i = 0; i < CG_PAGE_CHUNKS; i++) {
        uint8_t *p = ret + i * CG_PAGE_ENTRY;
        if (cg_ref_is_zero(&refs[i]))
            continue;
        memcpy(p + AT_ID, refs[i].id, CG_OBJECT_ID);
        cg_put_le32(p + AT_ERA, refs[i].era);
        cg_put_le32(p + AT_LEN, refs[i].len);
    }
}

int cg_page_entry(const uint8_t page[static CG_PAGE_BYTES], unsigned i, struct cg_ref *ret,
                  struct cg_error *err)
{
    const uint8_t *p = page + (size_t)i * CG_PAGE_ENTRY;
    struct cg_ref ref = { .era = cg_le32(p + AT_ERA), .len = cg_le32(p + AT_LEN) };

    memcpy(ref.id, p + AT_ID, sizeof ref.id);
    if (cg_le32(p + AT_FLAGS) || cg_le32(p + AT_RESERVED) || ref.len > CG_CHUNK_SIZE ||
        (ref.len == 0 && (ref.era || !cg_is_zero(ref.id, sizeof ref.id))))
        return cg_error_say(err, EIO, "entry %u isn't a reference", i);
    *ret = ref;
    return 0;
}

int cg_page_decode(const uint8_t page[static CG_PAGE_BYTES], uint64_t number, uint64_t size,
                   struct cg_ref ret[static CG_PAGE_CHUNKS], struct cg_error *err)
{
    uint64_t chunks = cg_chunk_count(size);

    for (unsigned i = 0; i < CG_PAGE_CHUNKS; i++) {
        uint64_t chunk = number * CG_PAGE_CHUNKS + i;
        int r = cg_page_entry(page, i, &ret[i], err);
        if (r < 0)
            return r;
        uint32_t len = chunk < chunks ? cg_chunk_len(size, chunk) : 0;
        if (ret[i].len && ret[i].len != len)
            return cg_error_say(err, EIO, "entry %u has %u bytes where the volume has %u", i,
                                ret[i].len, len);
    }
    return 0;
}
