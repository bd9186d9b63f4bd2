/* What a volume stands on that isn't a volume: a point, a file, an export.
 *
 * Who reads through a parent holds a shared flock on the file `parent` in the volume's directory,
 * taken before volume.json said that the parent is the volume's.  A parent that volume.json doesn't
 * name any more, but as still to be released, is released when nobody has that lock: nobody can
 * come who reads through it. */
#ifndef CG_VOLUMES_PARENT_H
#define CG_VOLUMES_PARENT_H

#include "core/image/image.h"
#include "core/volumes/space.h"
#include "core/volumes/volume_json.h"

struct cg_parent;

/* Takes the lock that keeps the parent of the volume in dirfd from being released.  To be closed;
 * -1 if the file system is read-only. */
int cg_parent_lock(int dirfd, int *ret_fd, struct cg_error *err);

/* Opens the parent that json names, which was read while lock_fd was held; the parent owns that
 * then, on success only.  -ESTALE: it isn't what the volume was cloned from. */
int cg_parent_open(struct cg_volumes *space, const struct cg_volume_json *json, int lock_fd,
                   struct cg_parent **ret_parent, struct cg_error *err);

struct cg_parent *cg_parent_ref(struct cg_parent *parent);

/* The same parent for who reads it with less urgency, not as a client: a parent of its own, that
 * keeps the other.  NULL if memory is short. */
struct cg_parent *cg_parent_aside(struct cg_parent *parent);

/* The last one closes the image and lets go of the lock.  NULL is fine. */
void cg_parent_unref(struct cg_parent *parent);

/* Lives as long as the parent. */
struct cg_image *cg_parent_image(struct cg_parent *parent);

/* Reads for a client. */
int cg_parent_read(struct cg_parent *parent, void *buf, size_t len, uint64_t off,
                   struct cg_error *err);

/* Waits until no client of this process reads from the parent, but not for long: who reads it for
 * less urgent reasons makes some way all the same.  True if none has since the last call. */
bool cg_parent_give_way(struct cg_parent *parent);

/* Where a client has read last; false if none has since the last call. */
bool cg_parent_recent(struct cg_parent *parent, uint64_t *ret_off);

/* True if nobody reads through the parent that volume.json in dirfd named. */
bool cg_parent_unused(int dirfd);

/* Releases what json says is still to be released; again is fine. */
int cg_parent_release(struct cg_volumes *space, const struct cg_volume_json *json,
                      struct cg_error *err);

#endif
