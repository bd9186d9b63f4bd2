/* A hash table of references: the dedup index, what is damaged, what was looked at. */
#ifndef CG_BACKUPS_REFS_H
#define CG_BACKUPS_REFS_H

#include "core/backups/object.h"

struct cg_refs;

/* by_era: the same id in two eras is two entries; otherwise the first stands for both.  NULL if
 * memory is short.  The callers lock. */
struct cg_refs *cg_refs_new(bool by_era);
void cg_refs_free(struct cg_refs *refs);

/* Returns 1 if it's new, 0 if it was there (the old one stays), -ENOMEM. */
int cg_refs_add(struct cg_refs *refs, const struct cg_ref *ref, struct cg_error *err);

/* The entry for ref's id (and era, if by_era), or NULL.  Valid until the next add. */
const struct cg_ref *cg_refs_find(const struct cg_refs *refs, const struct cg_ref *ref);

size_t cg_refs_count(const struct cg_refs *refs);

/* The i-th entry in the order of adding. */
const struct cg_ref *cg_refs_at(const struct cg_refs *refs, size_t i);

#endif
