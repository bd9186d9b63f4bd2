/* Where commands write images to: a file or device under its final name only when it's whole, a new
 * volume likewise, or something that is there. */
#ifndef CG_CLI_TARGET_H
#define CG_CLI_TARGET_H

#include "cli/cli.h"

struct cli_target {
    struct cg_image *image; /* NULL: a stream */
    bool fresh;             /* reads as zeros */
    struct cg_space *space; /* of a new volume: publish name.draft; else NULL */
    struct cg_name name;
    char *partial, *path; /* of a new file: rename partial to path; else NULL */
    int fd;               /* of the new file, locked, so that nobody else takes it for theirs */
    bool replace;         /* whatever has the new file's name */
};

/* A new volume of this size under a draft's name.  -EEXIST if the name is taken.  reuse: a draft
 * that an interrupted run left is gone on with, else it's thrown away. */
int cli_target_new_volume(struct cli *cli, const char *text, uint64_t size, uint64_t original_size,
                          bool reuse, struct cli_target *ret);

/* A new file of this size under the name PATH.cowgate-partial; one that an interrupted run left is
 * gone on with, so its content may be anything (see fresh).  replace: as PATH it may take another
 * file's or a symbolic link's place; else -EEXIST if there is one. */
int cli_target_new_file(struct cli *cli, const char *path, uint64_t size, bool replace,
                        struct cli_target *ret);

/* As cli_target_new_file for a stream of unknown length: it begins anew, is written through
 * ret->fd, and there is no image. */
int cli_target_new_stream(struct cli *cli, const char *path, bool replace, struct cli_target *ret);

/* What is there: a volume (its lock is taken), a file, a device, an NBD export. */
int cli_target_existing(struct cli *cli, const char *text, struct cli_target *ret);

/* Says that the target is larger than what was copied to it: a "point", an "image". */
void cli_tail_kept(const char *target, const char *source);

/* Gives the target its final name if result is 0, while nobody else can have it, and closes it; if
 * not, takes what is half-done
 * away unless keep.  Returns result, or the failure of doing so. */
int cli_target_finish(struct cli *cli, struct cli_target *target, int result, bool keep);

#endif
