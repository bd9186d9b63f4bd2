/* Pages: 512 references to chunks, 2 GiB of a volume (docs/format-repository.md). */
#ifndef CG_BACKUPS_PAGE_H
#define CG_BACKUPS_PAGE_H

#include "core/backups/object.h"

#define CG_PAGE_CHUNKS 512
#define CG_PAGE_ENTRY 48
#define CG_PAGE_BYTES (CG_PAGE_CHUNKS * CG_PAGE_ENTRY)
#define CG_PAGE_SPAN (UINT64_C(512) << 22) /* bytes of a volume */

/* Pages and chunks that an image of size bytes has. */
uint64_t cg_page_count(uint64_t size);
uint64_t cg_chunk_count(uint64_t size);

/* Bytes of chunk number chunk in an image of size bytes: CG_CHUNK_SIZE but for the last. */
uint32_t cg_chunk_len(uint64_t size, uint64_t chunk);

/* Writes CG_PAGE_BYTES. */
void cg_page_encode(const struct cg_ref refs[static CG_PAGE_CHUNKS],
                    uint8_t ret[static CG_PAGE_BYTES]);

/* The i-th reference of a page.  Returns 0, or -EIO if it can't be one. */
int cg_page_entry(const uint8_t page[static CG_PAGE_BYTES], unsigned i, struct cg_ref *ret,
                  struct cg_error *err);

/* All of them, of page number page of an image of size bytes, whose chunks' lengths they must have.
 * Returns 0 or -EIO. */
int cg_page_decode(const uint8_t page[static CG_PAGE_BYTES], uint64_t number, uint64_t size,
                   struct cg_ref ret[static CG_PAGE_CHUNKS], struct cg_error *err);

#endif
