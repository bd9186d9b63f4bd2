/* The one grammar for names: CLI arguments, NBD export names and FUSE paths.
 *
 *     volumes/PROJECT/VOLUME[@SNAPSHOT[.qcow2]]
 *     backups/PROJECT/VOLUME/POINT[.qcow2]
 *     rbd/POOL[/NAMESPACE]/IMAGE[@SNAPSHOT[.qcow2]]
 *     any of them with .pN: its N-th partition
 *
 * Only the form is checked here; what exists is for the spaces to know.
 */
#ifndef CG_BASE_NAME_H
#define CG_BASE_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

#define CG_PART_MAX 128 /* bytes of one component */
#define CG_PARTS 3
#define CG_NAME_MAX 1024 /* bytes of a whole name with its NUL, as cg_name_text writes it */

enum cg_name_space {
    CG_NAME_ROOT, /* only in a prefix: above the spaces */
    CG_NAME_VOLUMES,
    CG_NAME_BACKUPS,
    CG_NAME_RBD,
};

struct cg_name {
    enum cg_name_space space;
    unsigned parts;                       /* components behind the space's */
    char part[CG_PARTS][CG_PART_MAX + 1]; /* volumes: project, volume; backups: project, volume,
                                             point; rbd: pool, [namespace,] image */
    char snapshot[CG_PART_MAX + 1];       /* "" for none */
    unsigned partition;                   /* 0 for the whole image */
    bool qcow2;                           /* POINT.qcow2: with its history; SNAPSHOT.qcow2 */
    bool draft;                           /* a volume that is being filled and isn't visible under
                                             its name yet; never set by parsing */
};

enum cg_arg {
    CG_ARG_NAME,
    CG_ARG_PATH, /* begins with '/', './' or '../', or is '-' */
    CG_ARG_URI,  /* nbd://, nbds://, nbd+unix://, nbds+unix:// */
};

/* What a command's argument is, by its form alone. */
enum cg_arg cg_arg_kind(const char *text);

/* Parses the name of an image.  Returns 0; -EINVAL with a message that says what is wrong and,
 * where the text may have been meant as a path, to write "./TEXT". */
int cg_name_parse(const char *text, struct cg_name *ret_name, struct cg_error *err);

/* Parses a prefix for listing: "", a space, or a name cut off at a '/' (a trailing '/' is
 * allowed); a whole name is a prefix too. */
int cg_name_parse_prefix(const char *text, struct cg_name *ret_name, struct cg_error *err);

/* True if text is a valid PROJECT, VOLUME or SNAPSHOT. */
bool cg_name_part_valid(const char *text);

/* True for a SNAPSHOT that cowgate makes for itself: cowgate-SESSION of a backup, and
 * cowgate-clone-UUID.  They don't keep a volume, and go by themselves. */
bool cg_name_own_snapshot(const char *snapshot);

/* True if text has the form of a POINT, or is "latest". */
bool cg_name_point_valid(const char *text);

/* The name as text, without its partition if whole is true.  Returns ret. */
char *cg_name_text(const struct cg_name *name, bool whole, char ret[static CG_NAME_MAX]);

/* "volumes", "backups", "rbd"; "" for CG_NAME_ROOT. */
const char *cg_name_space_text(enum cg_name_space space);

#endif
