/* What the header of an image that is being migrated says of that: Ceph's MigrationSpec, as the
 * method migration_get of its class rbd answers (src/cls/rbd/cls_rbd_types.cc, versions 1 to 3 and
 * later ones that are compatible). */
#ifndef CG_RBD_MIGRATION_HEADER_H
#define CG_RBD_MIGRATION_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Texts point into what was decoded, without a NUL. */
struct cg_rbd_migration {
    bool target;   /* this is the new image of the two */
    uint8_t state; /* as rbd_image_migration_state_t counts */
    const char *description, *spec;
    size_t description_len, spec_len;
};

/* False for what isn't such an answer. */
bool cg_rbd_migration_decode(const void *answer, size_t len, struct cg_rbd_migration *ret);

#endif
