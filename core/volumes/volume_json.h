/* volume.json: what a volume consists of (docs/format-volumes.md). */
#ifndef CG_VOLUMES_VOLUME_JSON_H
#define CG_VOLUMES_VOLUME_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/bytes.h"
#include "core/base/error.h"
#include "core/base/name.h"
#include "core/volumes/layers.h"

struct cg_volume_snapshot {
    char name[CG_PART_MAX + 1];
    char uuid[CG_UUID_LEN + 1]; /* of this snapshot: no other has it, even with the same layers */
    int64_t time;               /* seconds since 1970 */
    struct cg_layers layers;
};

#define CG_REQUESTS_MAX 32 /* answered requests that are remembered */

struct cg_volume_json {
    char uuid[CG_UUID_LEN + 1];
    int64_t created;
    uint64_t original_size;
    char parent[CG_NAME_MAX]; /* "" for none */
    char parent_identity[CG_NAME_MAX];
    uint64_t parent_size;
    unsigned depth;                /* how many cloned from each other it stands on; 0: it's flat */
    struct cg_layers inherited;    /* of the volume that it was cloned from */
    char instead[CG_UUID_LEN + 1]; /* stands for all of inherited; if it's filling: it's to */
    char filling[CG_UUID_LEN + 1]; /* the lowest layer, if it's there to take the place of the
                                      parent, or of what is inherited and the parent */
    char release[CG_NAME_MAX]; /* a parent that it had and may still hold, as release_uuid; or "" */
    char release_identity[CG_NAME_MAX];
    char release_uuid[CG_UUID_LEN + 1];
    struct cg_layers mixed; /* have some of what is in the layer above: no chain may end at one */
    struct cg_layers head;
    size_t snapshots;
    struct cg_volume_snapshot *snapshot; /* owned */
    size_t requests;
    char request[CG_REQUESTS_MAX][CG_UUID_LEN + 1]; /* oldest first */
};

/* Frees what json owns and clears it. */
void cg_volume_json_clear(struct cg_volume_json *json);

/* A deep copy.  -ENOMEM. */
int cg_volume_json_copy(const struct cg_volume_json *json, struct cg_volume_json *ret,
                        struct cg_error *err);

/* Reads the text of a volume.json and checks everything in it.  -EIO: damaged; -ENOTSUP: of a
 * newer format. */
int cg_volume_json_parse(const char *text, size_t len, struct cg_volume_json *ret,
                         struct cg_error *err);

/* The text, which the caller frees; NULL if memory is short. */
char *cg_volume_json_text(const struct cg_volume_json *json);

/* Reads volume.json in dirfd; *ret_text (may be NULL) gets its bytes, to be freed. */
int cg_volume_json_read(int dirfd, struct cg_volume_json *ret, char **ret_text,
                        struct cg_error *err);

/* Replaces volume.json in dirfd, durably and atomically. */
int cg_volume_json_write(int dirfd, const struct cg_volume_json *json, struct cg_error *err);

/* NULL if there is none of that name. */
struct cg_volume_snapshot *cg_volume_json_snapshot(const struct cg_volume_json *json,
                                                   const char *name);

/* Adds a snapshot with a uuid of its own and a copy of layers. */
int cg_volume_json_add_snapshot(struct cg_volume_json *json, const char *name, int64_t time,
                                const struct cg_layers *layers, struct cg_error *err);
void cg_volume_json_remove_snapshot(struct cg_volume_json *json, const char *name);

/* Whether a request was answered already; remembers it. */
bool cg_volume_json_requested(const struct cg_volume_json *json, const char *id);
void cg_volume_json_remember(struct cg_volume_json *json, const char *id);

/* What the head or a snapshot of this size had before it was rounded up to it: the size itself if
 * it has been resized. */
uint64_t cg_volume_json_original_size(const struct cg_volume_json *json, uint64_t size);

/* True if a snapshot, or the head too, has this layer. */
bool cg_volume_json_in_snapshot(const struct cg_volume_json *json, const char *uuid);
bool cg_volume_json_names(const struct cg_volume_json *json, const char *uuid);

/* True if the layer is among those that are mixed. */
bool cg_volume_json_mixed(const struct cg_volume_json *json, const char *uuid);

/* True if a layer is being filled that is to take the place of what is inherited; if the layer is
 * that one or one of those: then it stays as it is. */
bool cg_volume_json_gathers(const struct cg_volume_json *json);
bool cg_volume_json_gathered(const struct cg_volume_json *json, const char *uuid);

/* Forgets what it says of layers that no chain has any more, and of what a layer stands for that
 * another is being merged into. */
void cg_volume_json_forget(struct cg_volume_json *json);

/* True if the head began with these layers, and they are still a moment of it: the one above them
 * wasn't merged away, so that their top one might be written again. */
bool cg_volume_json_shows(const struct cg_volume_json *json, const struct cg_layers *layers);

/* True if the one layer is right above the other wherever one of the two is: then the upper one
 * can be merged into the lower, in all chains at once. */
bool cg_volume_json_adjacent(const struct cg_volume_json *json, const char *lower,
                             const char *upper);

/* Takes a layer out of all chains. */
void cg_volume_json_drop(struct cg_volume_json *json, const char *uuid);

#endif
