/* The image: a thread-safe array of bytes with holes.  Everything cowgate knows is turned into
 * one, and every face shows nothing else.
 *
 * Calls are synchronous and may come from any number of threads at once.  Any byte range is taken,
 * though 512 is what faces advertise as the minimum.  cg_image_* checks ranges, overflow and
 * writability once; the operations below it never see a bad range, an empty one, or a write to a
 * read-only image.
 *
 * An acknowledged write survives the death of this process; it survives the host's after a flush,
 * which covers everything acknowledged before it on whichever handle, or if it carried CG_FUA.
 */
#ifndef CG_IMAGE_IMAGE_H
#define CG_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct cg_image;

/* Flags of writes, trims and zeroes. */
enum {
    CG_FUA = 1,      /* this request is stable when it returns */
    CG_MAY_TRIM = 2, /* zero: may leave a hole */
    CG_FAST = 4,     /* zero: fail with -ENOTSUP rather than be as slow as writing zeros */
    CG_BULK = 8,     /* write: one of many large ones, to be flushed in the end and not read soon */
};

enum cg_extent_type {
    CG_DATA, /* allocated; may be anything */
    CG_ZERO, /* allocated; reads as zeros */
    CG_HOLE, /* not allocated; reads as zeros */
};

struct cg_extent {
    uint64_t off, len;
    enum cg_extent_type type;
};

/* A growing, contiguous list of extents within [start, end). */
struct cg_extents {
    uint64_t start, end; /* the range asked for */
    uint64_t next;       /* everything before is described */
    size_t max;          /* stop after so many extents; 0 for no limit */
    size_t count, allocated;
    struct cg_extent *v;
};

/* An empty list for a range. */
void cg_extents_init(struct cg_extents *e, uint64_t start, uint64_t end, size_t max);
void cg_extents_clear(struct cg_extents *e);

/* Says what [next, end) is; end beyond the list's end is clipped, end at or before next ignored.
 * Equal neighbours become one.  Returns 0, or -ENOMEM. */
int cg_extents_to(struct cg_extents *e, uint64_t end, enum cg_extent_type type,
                  struct cg_error *err);

/* True when more would be of no use: the range or the limit is reached. */
bool cg_extents_full(const struct cg_extents *e);

/* What an image prefers, in bytes (powers of two). */
struct cg_block_size {
    uint32_t minimum, preferred, maximum;
};

/* Bytes of an image where they lie in memory, unchanged until they are given back. */
struct cg_loan {
    const void *buf;
    void *opaque; /* the backend's */
};

struct cg_image_ops {
    const char *name;
    /* Reads exactly len bytes. */
    int (*pread)(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err);
    /* Lends exactly len bytes; -ENOTSUP: they don't lie together, read them.  NULL, both: never. */
    int (*borrow)(void *self, size_t len, uint64_t off, struct cg_loan *ret, struct cg_error *err);
    void (*give_back)(void *self, struct cg_loan *loan);
    /* NULL: the image is read-only.  flags: CG_FUA, and CG_BULK, which may be ignored. */
    int (*pwrite)(void *self, const void *buf, size_t len, uint64_t off, unsigned flags,
                  struct cg_error *err);
    /* NULL: nothing to do. */
    int (*flush)(void *self, struct cg_error *err);
    /* A hint: the range's content becomes undefined-or-zero, later reads agree with each other.
     * NULL: nothing is done.  flags: CG_FUA. */
    int (*trim)(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err);
    /* The range reads as zeros.  flags: all.  NULL, or -ENOTSUP without CG_FAST: core writes
     * zeros. */
    int (*zero)(void *self, uint64_t len, uint64_t off, unsigned flags, struct cg_error *err);
    /* Describes at least the first byte of e's range with cg_extents_to, more while it is cheap.
     * A ZERO or HOLE that doesn't read as zeros is a bug.  NULL: all data. */
    int (*extents)(void *self, struct cg_extents *e, struct cg_error *err);
    /* Bytes; a multiple of 512 except for images over plain files. */
    uint64_t (*size)(void *self);
    /* Bytes before they were rounded up to the size.  NULL, or anything that doesn't round up to it
     * (any more): the size. */
    uint64_t (*original_size)(void *self);
    /* Begins to make the range fast to read, without waiting.  NULL: nothing to do. */
    void (*prefetch)(void *self, uint64_t len, uint64_t off);
    /* NULL: 512, 4096, 32 MiB. */
    void (*block_size)(void *self, struct cg_block_size *ret);
    /* True if the bytes can't change while the image is open, whoever writes: a point, a
     * snapshot.  NULL: false. */
    bool (*immutable)(void *self);
    /* Nothing is in flight; can't fail.  Flushes nothing. */
    void (*close)(void *self);
    bool remote;        /* each read waits for another machine */
    bool cheap_extents; /* of a remote image: one request tells them for a gigabyte */
};

/* Wraps a backend's self, which the image then owns (close frees it).  One reference.  read_only
 * hides the backend's writing operations.  NULL if memory is short; self is untouched then. */
struct cg_image *cg_image_new(const struct cg_image_ops *ops, void *self, bool read_only);

/* Owns one more reference. */
struct cg_image *cg_image_ref(struct cg_image *image);

/* Gives a reference back; the last one closes.  NULL is fine. */
void cg_image_unref(struct cg_image *image);
void cg_image_cleanup(struct cg_image **image); /* for CG_CLEANUP */

/* All return 0 or -errno with err set.  -EINVAL: beyond the end; for writes -ENOSPC, as block
 * devices say it.  -EROFS: the image is read-only.  A length of 0 does nothing. */
int cg_image_pread(struct cg_image *image, void *buf, size_t len, uint64_t off,
                   struct cg_error *err);
/* As a read without the copy, for who only passes the bytes on; -ENOTSUP without a message: read
 * them.  What was lent is given back, soon. */
int cg_image_borrow(struct cg_image *image, size_t len, uint64_t off, struct cg_loan *ret,
                    struct cg_error *err);
void cg_image_give_back(struct cg_image *image, struct cg_loan *loan);
int cg_image_pwrite(struct cg_image *image, const void *buf, size_t len, uint64_t off,
                    unsigned flags, struct cg_error *err);
int cg_image_flush(struct cg_image *image, struct cg_error *err);
int cg_image_trim(struct cg_image *image, uint64_t len, uint64_t off, unsigned flags,
                  struct cg_error *err);
int cg_image_zero(struct cg_image *image, uint64_t len, uint64_t off, unsigned flags,
                  struct cg_error *err);

/* Fills e, which cg_extents_init prepared, as far as the backend says in one go; at least one
 * extent. */
int cg_image_extents(struct cg_image *image, struct cg_extents *e, struct cg_error *err);

/* Says what e's next range is by what base has there, which is distance bytes further on in it (-N
 * for N bytes before), up to base's end; as far as base says in one go. */
int cg_extents_as_in(struct cg_extents *e, struct cg_image *base, uint64_t distance,
                     struct cg_error *err);

/* Calls fn for each extent of the range, in order, without gaps, until fn returns non-zero, which
 * is then returned. */
typedef int cg_extent_fn(void *opaque, const struct cg_extent *extent, struct cg_error *err);
int cg_image_walk(struct cg_image *image, uint64_t off, uint64_t len, cg_extent_fn *fn,
                  void *opaque, struct cg_error *err);

uint64_t cg_image_size(struct cg_image *image);
uint64_t cg_image_original_size(struct cg_image *image); /* before it was rounded up to the size */
bool cg_image_read_only(struct cg_image *image);
bool cg_image_immutable(struct cg_image *image);
bool cg_image_remote(struct cg_image *image);
bool cg_image_cheap_extents(struct cg_image *image);
bool cg_image_can_trim(struct cg_image *image);
bool cg_image_can_zero(struct cg_image *image); /* faster than writing zeros */
void cg_image_block_size(struct cg_image *image, struct cg_block_size *ret);
void cg_image_prefetch(struct cg_image *image, uint64_t len, uint64_t off);

#endif
