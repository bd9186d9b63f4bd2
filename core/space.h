/* A space: what lies behind a top-level name (volumes, backups, rbd).  Each is a const table of
 * operations; what a space can't do is a NULL in it, and cg_space_* then says so.  The spaces don't
 * know each other: what a volume stands on is opened through struct cg_parents.
 *
 * All calls may come from any thread.  Names have been parsed; the space checks whether their shape
 * makes sense for it.  Partitions are the gateway's business: a space ignores name->partition.
 * Nothing starts a thread or takes a write lock before it is needed.
 */
#ifndef CG_SPACE_H
#define CG_SPACE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <jansson.h>

#include "core/base/error.h"
#include "core/base/name.h"
#include "core/image/image.h"

struct cg_space;

enum {
    CG_OPEN_READ = 0,      /* as of now, or of when this process opened it, if it's still open:
                              later writes of other processes don't show */
    CG_OPEN_WRITE = 1,     /* may write: the lock is taken at the first write */
    CG_OPEN_EXCLUSIVE = 2, /* with WRITE: the lock is taken now, against other processes (this one's
                              handles share it); -EBUSY names the holder */
};

enum {
    CG_REMOVE_SNAPSHOTS = 1, /* a volume that has snapshots goes with them; else -ENOTEMPTY */
};

/* One name directly below a prefix.  Valid during the call only. */
struct cg_entry {
    const char *name;        /* the last component: "acme", "web", "web@s1", "latest" */
    bool directory;          /* names lie below; else an image */
    bool self;               /* not below the prefix, but the image that the prefix names, or a
                                snapshot of it */
    uint64_t size;           /* of an image, bytes */
    time_t time;             /* when it was made; 0 if unknown */
    bool draft;              /* an unfinished volume, which doesn't open */
    const char *description; /* for people: "snapshot", "point, 3.2 GiB"; may be NULL */
};

#define CG_DEPTH_MAX 16

#define CG_ID_MAX 64

/* How far an image is that fills itself from a stream. */
enum cg_migration_state {
    CG_MIGRATION_NONE, /* the image is there and no migration is under way */
    CG_MIGRATION_PREPARED,
    CG_MIGRATION_EXECUTING, /* or it was, when who did it died */
    CG_MIGRATION_EXECUTED,
    CG_MIGRATION_UNSETTLED, /* something else was begun, and not ended: it can be aborted */
};

struct cg_migration_status {
    enum cg_migration_state state;
    char image_id[CG_ID_MAX + 1]; /* another image, of the same name too, has another */
    bool same;                    /* what was asked about is what it is filled from */
    char description[128];        /* what the space says of it; may be "" */
};

enum cg_migration_step {
    CG_MIGRATION_EXECUTE,
    CG_MIGRATION_COMMIT,
    CG_MIGRATION_ABORT,
    CG_MIGRATION_SPARSIFY,
};

/* Returning non-zero ends the listing with that result. */
typedef int cg_entry_fn(void *opaque, const struct cg_entry *entry, struct cg_error *err);

/* What an image is beyond its name: equal ids are the same thing for ever. */
struct cg_identity {
    char image[CG_ID_MAX + 1];
    char snapshot[CG_ID_MAX + 1]; /* "" for a head */
    /* What a clone still takes a part of its content from: "" for nothing, or if the space doesn't
     * say.  Unlike the ids it goes, when the clone is flattened. */
    char parent[CG_ID_MAX + 1];
};

/* What all images of a space, drafts too, could still take of where they lie. */
struct cg_space_usage {
    size_t images;
    uint64_t reserve; /* bytes */
};

struct cg_space_ops {
    /* True if the image of a name belongs to a project; with prefix, if names below it do.  NULL:
     * what its first component says. */
    bool (*in_project)(void *self, const struct cg_name *name, bool prefix, const char *project);
    /* Which share of the chunks that diff calls unchanged a backup reads and compares.  NULL:
     * none. */
    double (*audit)(void *self);
    /* How many names list has left out so far because they aren't such as ours.  NULL: none. */
    size_t (*hidden)(void *self);
    /* Calls fn for each name directly below prefix, or, if prefix is an image, for it and its
     * snapshots; an unknown prefix is -ENOENT, an empty one is not.  Names come in no particular
     * order.  With prefix->draft drafts are told too. */
    int (*list)(void *self, const struct cg_name *prefix, cg_entry_fn *fn, void *opaque,
                struct cg_error *err);
    /* Opens an image.  Opening what is open in this process shares it, so that all handles show
     * the same.  -EBUSY, for writing: another process wrote it, and an earlier moment is still
     * being read here. */
    int (*open)(void *self, const struct cg_name *name, unsigned flags, struct cg_image **ret_image,
                struct cg_error *err);
    /* Replaces what stands for something else ("latest") by what it means now.  NULL: nothing
     * does. */
    int (*resolve)(void *self, struct cg_name *name, struct cg_error *err);
    int (*identify)(void *self, const struct cg_name *name, struct cg_identity *ret,
                    struct cg_error *err);
    /* Details as a JSON object that the caller owns; keys documented in cowgate(1). */
    int (*info)(void *self, const struct cg_name *name, json_t **ret_info, struct cg_error *err);
    int (*usage)(void *self, struct cg_space_usage *ret, struct cg_error *err);
    /* An empty image of size bytes (a multiple of 512, not 0).  original_size is what info shows as
     * the size before rounding up; equal to size if nothing was rounded.  With name->draft: see
     * rename; a draft of this size that an interrupted job left is kept with what it holds, for a
     * restore to go on with: who needs an empty one removes the draft first.  After a failure of
     * this or of clone there is no volume, unless the message says that there is. */
    int (*create)(void *self, const struct cg_name *name, uint64_t size, uint64_t original_size,
                  struct cg_error *err);
    /* Snapshots, all of one consistent moment. */
    int (*snapshot)(void *self, const struct cg_name *names, size_t count, struct cg_error *err);
    /* name becomes a CoW clone of parent, which is a name, an absolute path or a URI.  -EXDEV: this
     * space can't lay one over that: copy it instead.  1: it is done, but stands on more than
     * CG_DEPTH_MAX others: flatten it. */
    int (*clone)(void *self, const char *parent, const struct cg_name *name, struct cg_error *err);
    int (*rollback)(void *self, const struct cg_name *snapshot, struct cg_error *err);
    /* Lets go of the parent, while the image is in use; gone on with by the next call if it's
     * interrupted.  rate: bytes a second, 0 for no limit.  progress may be NULL; a non-zero return
     * of it cancels.  1: done, but the parent is held until those have closed the image who read
     * it since before. */
    int (*flatten)(void *self, const struct cg_name *name, uint64_t rate,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   struct cg_error *err);
    /* Gives back what deleted snapshots of an image took, where remove leaves that undone because
     * it takes its time; the image may be in use.  name is the image's, or was such a snapshot's.
     * Gone on with by the next call if it's interrupted.  progress as for flatten.  1: not all, as
     * somebody has it open who reads what could go.  NULL: nothing is left undone. */
    int (*reclaim)(void *self, const struct cg_name *name,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   struct cg_error *err);
    int (*resize)(void *self, const struct cg_name *name, uint64_t size, struct cg_error *err);
    /* -EEXIST if to is there.  A draft (from->draft) becomes visible under its name by this. */
    int (*rename)(void *self, const struct cg_name *from, const struct cg_name *to,
                  struct cg_error *err);
    /* Deletes a volume, a snapshot, a draft, or puts a point into the trash. */
    int (*remove)(void *self, const struct cg_name *name, unsigned flags, struct cg_error *err);
    /* Calls fn for the ranges of to that may differ from the snapshot from, in order; their types
     * are those in to.  -ENOTSUP if the two aren't related: compare them instead. */
    int (*diff)(void *self, const struct cg_name *from, const struct cg_name *to, cg_extent_fn *fn,
                void *opaque, struct cg_error *err);
    /* Makes name stand for what it is now where it stands for what changes: for a snapshot that is
     * made for a clone to stand on, and goes when that is released.  NULL: names are left alone. */
    int (*freeze)(void *self, struct cg_name *name, struct cg_error *err);
    /* Makes name what an image is called now that had that name, and this identity; -ENOENT if it's
     * gone.  NULL: only by its name is an image known. */
    int (*find)(void *self, const struct cg_identity *identity, struct cg_name *name,
                struct cg_error *err);
    /* Keeps an image from changing or going until it's released by the same uuid; durable when it
     * returns; again for the same uuid is fine, and so is a release of what isn't held. */
    int (*hold)(void *self, const struct cg_name *name, const char *uuid, struct cg_error *err);
    int (*release)(void *self, const struct cg_name *name, const char *uuid, struct cg_error *err);
    /* 0 if images of name's place can fill themselves from a stream of this kind ("nbd", "file");
     * -ENOTSUP if not. */
    int (*migrate_stream)(void *self, const struct cg_name *name, const char *stream,
                          struct cg_error *err);
    /* Makes an image that is usable at once and takes what it hasn't got yet from the stream that
     * spec (JSON, as the space's own tools take it) describes.  -EEXIST if there is an image. */
    int (*migrate_prepare)(void *self, const struct cg_name *name, const char *spec,
                           struct cg_error *err);
    /* EXECUTE fills it, and may be called again after it failed or died; COMMIT makes it
     * independent of the stream; ABORT removes it; SPARSIFY, after COMMIT, gives back what was
     * copied as zeros from a stream that has no holes.  progress may be NULL; what it
     * returns counts for nothing: none can be cancelled, but EXECUTE may die with its process. */
    int (*migrate_step)(void *self, const struct cg_name *name, enum cg_migration_step step,
                        int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                        struct cg_error *err);
    /* -ENOENT: there is no such image.  -EBUSY: the one with image_id ("": unknown) is there, but
     * not by this name.  spec: what to compare its own with; may be NULL.  Works also when the
     * stream can't be reached. */
    int (*migrate_status)(void *self, const struct cg_name *name, const char *image_id,
                          const char *spec, struct cg_migration_status *ret, struct cg_error *err);
    void (*close)(void *self);
};

/* How a space reaches what its images stand on, given to it by the gateway.  ref is a resolved
 * name, an absolute path or a URI. */
struct cg_parents {
    void *opaque;
    /* A canonical ref (latest resolved, what changes frozen) for text, which is released if it
     * comes to nothing, also if it was never held; and what identifies its content ("" if nothing
     * can): for a file its device-independent inode, size and mtime. */
    int (*resolve)(void *opaque, const char *text, char ret_ref[static CG_NAME_MAX],
                   char ret_identity[static CG_NAME_MAX], struct cg_error *err);
    /* -ESTALE if identity isn't "" and no longer holds. */
    int (*open)(void *opaque, const char *ref, const char *identity, struct cg_image **ret_image,
                struct cg_error *err);
    /* As in cg_space_ops; nothing to do for files and URIs. */
    int (*hold)(void *opaque, const char *ref, const char *identity, const char *uuid,
                struct cg_error *err);
    int (*release)(void *opaque, const char *ref, const char *identity, const char *uuid,
                   struct cg_error *err);
};

/* Wraps a backend's self, which the space then owns.  NULL if memory is short. */
struct cg_space *cg_space_new(enum cg_name_space kind, const struct cg_space_ops *ops, void *self);
void cg_space_free(struct cg_space *space);

/* True if the image of a name, or with prefix some names below it, belong to the project. */
bool cg_space_in_project(struct cg_space *space, const struct cg_name *name, bool prefix,
                         const char *project);

double cg_space_audit(struct cg_space *space);
size_t cg_space_hidden(struct cg_space *space);

/* Each calls the operation of the same name, -ENOTSUP with a message if there is none. */
int cg_space_list(struct cg_space *space, const struct cg_name *prefix, cg_entry_fn *fn,
                  void *opaque, struct cg_error *err);
int cg_space_open(struct cg_space *space, const struct cg_name *name, unsigned flags,
                  struct cg_image **ret_image, struct cg_error *err);
int cg_space_resolve(struct cg_space *space, struct cg_name *name, struct cg_error *err);
int cg_space_identify(struct cg_space *space, const struct cg_name *name, struct cg_identity *ret,
                      struct cg_error *err);
int cg_space_info(struct cg_space *space, const struct cg_name *name, json_t **ret_info,
                  struct cg_error *err);
int cg_space_usage(struct cg_space *space, struct cg_space_usage *ret, struct cg_error *err);
int cg_space_create(struct cg_space *space, const struct cg_name *name, uint64_t size,
                    uint64_t original_size, struct cg_error *err);
int cg_space_snapshot(struct cg_space *space, const struct cg_name *names, size_t count,
                      struct cg_error *err);
int cg_space_clone(struct cg_space *space, const char *parent, const struct cg_name *name,
                   struct cg_error *err);
int cg_space_rollback(struct cg_space *space, const struct cg_name *snapshot, struct cg_error *err);
int cg_space_flatten(struct cg_space *space, const struct cg_name *name, uint64_t rate,
                     int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                     struct cg_error *err);
int cg_space_reclaim(struct cg_space *space, const struct cg_name *name,
                     int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                     struct cg_error *err);
int cg_space_resize(struct cg_space *space, const struct cg_name *name, uint64_t size,
                    struct cg_error *err);
int cg_space_rename(struct cg_space *space, const struct cg_name *from, const struct cg_name *to,
                    struct cg_error *err);
int cg_space_remove(struct cg_space *space, const struct cg_name *name, unsigned flags,
                    struct cg_error *err);
int cg_space_diff(struct cg_space *space, const struct cg_name *from, const struct cg_name *to,
                  cg_extent_fn *fn, void *opaque, struct cg_error *err);
int cg_space_freeze(struct cg_space *space, struct cg_name *name, struct cg_error *err);
int cg_space_find(struct cg_space *space, const struct cg_identity *identity, struct cg_name *name,
                  struct cg_error *err);
int cg_space_hold(struct cg_space *space, const struct cg_name *name, const char *uuid,
                  struct cg_error *err);
int cg_space_release(struct cg_space *space, const struct cg_name *name, const char *uuid,
                     struct cg_error *err);
int cg_space_migrate_stream(struct cg_space *space, const struct cg_name *name, const char *stream,
                            struct cg_error *err);
int cg_space_migrate_prepare(struct cg_space *space, const struct cg_name *name, const char *spec,
                             struct cg_error *err);
int cg_space_migrate_step(struct cg_space *space, const struct cg_name *name,
                          enum cg_migration_step step,
                          int (*progress)(void *opaque, uint64_t done, uint64_t total),
                          void *opaque, struct cg_error *err);
int cg_space_migrate_status(struct cg_space *space, const struct cg_name *name,
                            const char *image_id, const char *spec, struct cg_migration_status *ret,
                            struct cg_error *err);

#endif
