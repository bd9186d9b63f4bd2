/* A page's references: the input is a volume's size, a page number and a page. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/page.h"
#include "core/base/bytes.h"
#include "core/base/size.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t page[CG_PAGE_BYTES] = { 0 }, again[CG_PAGE_BYTES];
    struct cg_ref refs[CG_PAGE_CHUNKS];
    struct cg_error err;

    if (size < 16)
        return 0;
    uint64_t volume = cg_le64(data) % CG_IMAGE_MAX, number = cg_le64(data + 8) % (1 << 20);
    memcpy(page, data + 16, size - 16 < sizeof page ? size - 16 : sizeof page);
    if (cg_page_decode(page, number, volume, refs, &err) < 0)
        return 0;
    /* What was taken for a page is written the same again. */
    cg_page_encode(refs, again);
    if (memcmp(page, again, sizeof page) != 0)
        abort();
    return 0;
}
