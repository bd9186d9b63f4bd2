/* Points: everything a full restore needs, as two lines of JSON: the point, and its MAC
 * (docs/format-repository.md). */
#ifndef CG_BACKUPS_POINT_H
#define CG_BACKUPS_POINT_H

#include <jansson.h>

#include "core/backups/object.h"
#include "core/space.h"

struct cg_keys;

#define CG_POINT_BYTES_MAX (128u << 20) /* of a point's file */
#define CG_POINT_PAGES_MAX (1u << 20)   /* 2 PiB of volume */
#define CG_POINT_HEAD 8192              /* bytes that hold a point up to its pages */
#define CG_POINT_SUPERSEDED 16          /* names, at most */
#define CG_SESSION_ID 25                /* characters: 8 hex digits, '-', 16 hex digits */

/* A point in memory; the one who made it fills it in. */
struct cg_point {
    char project[CG_PART_MAX + 1];
    char volume[CG_PART_MAX + 1];
    char name[CG_PART_MAX + 1];
    uint64_t sequence; /* from 1; the highest of a volume is its latest */
    uint64_t size, original_size;
    int64_t time; /* of the snapshot, seconds since the epoch */
    struct {
        char text[CG_NAME_MAX];         /* for people */
        struct cg_identity identity;    /* "" where the source has none */
        char snapshot[CG_PART_MAX + 1]; /* the snapshot's name; "" for none */
    } source;
    char parent[CG_PART_MAX + 1]; /* the point it was an increment of; "" for none */
    char tool[64];
    /* Names of points that come later by their name, but came before, and couldn't be read when
     * this one was made; an array, owned, or NULL for none. */
    json_t *superseded;
    char session[CG_SESSION_ID + 1];
    uint32_t era;
    json_t *pins; /* array of "VOLUME/POINT"; owned */
    /* One reference for each 2 GiB, its len CG_PAGE_BYTES or, all zeros, 0; owned.  NULL in the
     * head of a point. */
    uint64_t page_count;
    struct cg_ref *pages;
};

/* Frees; NULL is fine. */
void cg_point_free(struct cg_point *point);
void cg_point_cleanup(struct cg_point **point); /* for CG_CLEANUP */

/* An empty point. NULL if memory is short. */
struct cg_point *cg_point_new(void);

/* The bytes of its file, which the caller frees. */
int cg_point_encode(const struct cg_point *point, struct cg_keys *keys, char **ret_text,
                    size_t *ret_len, struct cg_error *err);

/* Checks the MAC, then everything else, and that it is the point of that place.  -EIO: damaged, or
 * of another place; -ENOTSUP: of a later format. */
int cg_point_decode(struct cg_keys *keys, const char *project, const char *volume, const char *name,
                    const char *text, size_t len, struct cg_point **ret_point,
                    struct cg_error *err);

/* All but the pages, from the first bytes (at most CG_POINT_HEAD) of a point's file.  Checks a CRC,
 * no MAC: good for choosing and for listing, not for trusting.  -EIO if it can't be read. */
int cg_point_decode_head(const char *project, const char *volume, const char *name,
                         const char *text, size_t len, struct cg_point **ret_point,
                         struct cg_error *err);

/* The name of a point of that time, the number-th of its second (from 1). */
void cg_point_name(int64_t time, unsigned number, char ret[static CG_PART_MAX + 1]);

/* True if the point says that it came after the one of that name. */
bool cg_point_supersedes(const struct cg_point *point, const char *name);

/* Text as JSON, its bytes that aren't UTF-8 replaced by '?'. */
json_t *cg_point_text(const char *text);

#endif
