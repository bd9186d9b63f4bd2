/* The record of a migration into a new image: what was asked for, what it reads and how far it is,
 * so that each step can be taken again after whoever took it died.  It lies in the root, as
 * migrations/TARGET/migration.json, where TARGET is the name of the new image with '+' for '/'.
 *
 * An open record is locked: one process at a time takes steps.
 */
#ifndef CG_JOBS_MIGRATION_H
#define CG_JOBS_MIGRATION_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/base/bytes.h"
#include "core/base/error.h"
#include "core/base/name.h"
#include "core/space.h"

/* Beyond each of these the next process goes on from there. */
enum cg_migration_phase {
    CG_MIGRATION_PREPARING, /* nothing, some or all of what makes it ready is done */
    CG_MIGRATION_READY,     /* the new image is there */
    CG_MIGRATION_COMMITTING,
    CG_MIGRATION_ABORTING,
};

/* One image of what the new one is made from. */
struct cg_migration_image {
    char name[CG_NAME_MAX];         /* under which it is served; never changes */
    char snapshot[CG_PART_MAX + 1]; /* what the new image calls it; "" for its content */
};

struct cg_migration_record {
    char target[CG_NAME_MAX];
    char source[CG_NAME_MAX]; /* as it was asked for; a path is absolute */
    bool snapshots;           /* those of the source too */
    char uuid[CG_UUID_LEN + 1];
    enum cg_migration_phase phase;
    char stream[8];                 /* "nbd" or "file"; "" if it isn't known yet */
    char address[CG_NAME_MAX];      /* where that is served from; "" if it isn't known yet */
    bool own;                       /* by a server started for this migration, told these: */
    char listen[264];               /* ADDR:PORT, or "" for a socket */
    char certificates[CG_NAME_MAX]; /* the directory of those for TLS, or "" */
    bool verify_peer;               /* with certificates: clients have to show one */
    bool insecure;
    uint64_t size;                /* of the new image, bytes; 0 if it isn't known yet */
    char *spec;                   /* what the cluster is given; NULL before */
    char image_id[CG_ID_MAX + 1]; /* the new image's (see struct cg_migration_status); "" before it
                                     is ready */
    size_t count, allocated;
    struct cg_migration_image *image; /* oldest first, the content last */
};

struct cg_migration {
    struct cg_migration_record record; /* changed by the owner, then saved */
    char *dir;                         /* of the record, absolute */
    int lock;
};

/* Opens the record of the migration into target, begun with a new uuid if there is none.  source:
 * a name, an absolute path or a URI.  -EBUSY: one from another source, or another process is at it
 * and isn't done within seconds.
 * cg_migration_close lets go of it. */
int cg_migration_begin(const char *root, const struct cg_name *target, const char *source,
                       bool snapshots, struct cg_migration **ret, struct cg_error *err);

/* Opens one that is there; -ENOENT, and what a dead process left of one is gone.  -EBUSY: another
 * process is at it, and not done within seconds. */
int cg_migration_open(const char *root, const struct cg_name *target, struct cg_migration **ret,
                      struct cg_error *err);

/* Makes what was changed durable. */
int cg_migration_save(struct cg_migration *m, struct cg_error *err);

/* Adds an image to the record (not saved yet). */
int cg_migration_add(struct cg_migration *m, const char *name, const char *snapshot,
                     struct cg_error *err);

/* Removes the record: all is done, and let go of.  It's still to be closed. */
int cg_migration_end(struct cg_migration *m, struct cg_error *err);

/* NULL is fine. */
void cg_migration_close(struct cg_migration *m);
void cg_migration_cleanup(struct cg_migration **m); /* for CG_CLEANUP */

/* The absolute path of the directory of the record, which need not be there. */
int cg_migration_dir(const char *root, const struct cg_name *target, char ret[static PATH_MAX],
                     struct cg_error *err);

/* Reads a record as it is, whoever is at it; -ENOENT.  The caller clears it. */
int cg_migration_read(const char *root, const struct cg_name *target,
                      struct cg_migration_record *ret, struct cg_error *err);
void cg_migration_record_clear(struct cg_migration_record *record);

/* Reads a record's text.  -EINVAL: it's none; -ENOTSUP: of a newer format.  The caller clears it.
 */
int cg_migration_record_decode(const char *text, size_t len, struct cg_migration_record *ret,
                               struct cg_error *err);

/* Calls fn with the target of each record of the root, until it returns non-zero, which is then
 * returned. */
int cg_migration_list(const char *root,
                      int (*fn)(void *opaque, const struct cg_name *target, struct cg_error *err),
                      void *opaque, struct cg_error *err);

#endif
