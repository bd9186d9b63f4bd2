/* What the backups' files and jobs know of a repository beyond backups.h: projects, their points
 * and their objects. */
#ifndef CG_BACKUPS_REPOSITORY_H
#define CG_BACKUPS_REPOSITORY_H

#include "core/backups/backups.h"
#include "core/backups/cache.h"
#include "core/backups/object.h"
#include "core/backups/point.h"
#include "core/backups/refs.h"
#include "core/backups/store.h"

struct cg_project;

/* A repository on a store, which it then owns, also after a failure. */
int cg_repository_open_store(struct cg_store *store, uint64_t cache_bytes,
                             struct cg_repository **ret_repository, struct cg_error *err);

struct cg_store *cg_repository_store(struct cg_repository *repository);
const char *cg_repository_uuid(struct cg_repository *repository);

/* Decoded chunks and pages, shared by all images. */
struct cg_cache *cg_repository_cache(struct cg_repository *repository);

/* Loads ref into the cache in the background, if there is room for the task. */
void cg_repository_prefetch(struct cg_repository *repository, struct cg_project *project,
                            const struct cg_ref *ref);

/* A codec of its own for the caller until it is given back.  NULL if memory is short. */
struct cg_codec *cg_repository_codec(struct cg_repository *repository);
void cg_repository_codec_done(struct cg_repository *repository, struct cg_codec *codec);

/* The project's keys, read on first use; the repository owns it.  -ENOENT: no such project, unless
 * create. */
int cg_repository_project(struct cg_repository *repository, const char *name, bool create,
                          struct cg_project **ret_project, struct cg_error *err);

/* Calls fn for each project's name. */
int cg_repository_projects(struct cg_repository *repository, cg_store_list_fn *fn, void *opaque,
                           struct cg_error *err);

const char *cg_project_name(const struct cg_project *project);
struct cg_keys *cg_project_keys(const struct cg_project *project);
struct cg_repository *cg_project_repository(const struct cg_project *project);

/* Reads and checks an object into buf, ref->len bytes; the message names it.  Any thread. */
int cg_project_fetch(struct cg_project *project, enum cg_object_kind kind, const struct cg_ref *ref,
                     struct cg_codec *codec, void *buf, struct cg_error *err);

/* As cg_project_fetch, through the cache: cg_cache_release it. */
int cg_project_cached(struct cg_project *project, enum cg_object_kind kind,
                      const struct cg_ref *ref, struct cg_cached **ret_entry, struct cg_error *err);

/* Reads len bytes at off of a chunk (zeros if ref is a zero one), through the cache. */
int cg_project_read(struct cg_project *project, const struct cg_ref *ref, void *buf, size_t len,
                    uint32_t off, struct cg_error *err);

/* Page number of a point as references, CG_PAGE_CHUNKS of them; all zero ones for a page that isn't
 * stored or lies behind the point's end. */
int cg_project_page(struct cg_project *project, const struct cg_point *point, uint64_t number,
                    struct cg_ref *ret_refs, struct cg_error *err);

/* Where chunk number chunk of a point lies; a zero reference for one that is all zeros. */
int cg_project_chunk(struct cg_project *project, const struct cg_point *point, uint64_t chunk,
                     struct cg_ref *ret_ref, struct cg_error *err);

/* Calls fn for each volume that has points, and for each point's name of a volume.  -ENOENT: no
 * such volume. */
int cg_project_volumes(struct cg_project *project, cg_store_list_fn *fn, void *opaque,
                       struct cg_error *err);
int cg_project_points(struct cg_project *project, const char *volume, cg_store_list_fn *fn,
                      void *opaque, struct cg_error *err);

/* A point, checked; or its head, unchecked.  The message names it.  -ENOENT: no such point. */
int cg_project_point(struct cg_project *project, const char *volume, const char *name,
                     struct cg_point **ret_point, struct cg_error *err);
int cg_project_head(struct cg_project *project, const char *volume, const char *name,
                    struct cg_point **ret_point, struct cg_error *err);

/* A point that can't be read, and why. */
struct cg_unreadable {
    char name[CG_PART_MAX + 1];
    int result;
    struct cg_error why;
    struct cg_unreadable *next;
};

/* What was seen of a volume's points. */
struct cg_seen {
    uint64_t sequence; /* the highest; 0 for none */
    struct cg_unreadable *unreadable;
};

void cg_seen_clear(struct cg_seen *seen);

/* The head of the point with the highest sequence.  A point that can't be read is passed over if
 * its name is of an earlier time than the one found, or that one supersedes it; else it's the
 * error.  -ENOENT: no points. */
int cg_project_latest(struct cg_project *project, const char *volume, struct cg_point **ret_head,
                      struct cg_error *err);

/* Called for each point of a volume: its head, or why it can't be read.  Returning non-zero ends
 * the listing with that result. */
typedef int cg_head_fn(void *opaque, const char *name, const struct cg_point *head, const char *why,
                       struct cg_error *err);

/* As cg_project_latest, and calls fn (may be NULL) on the way.  ret_seen (may be NULL) is filled
 * also after an error: cg_seen_clear it. */
int cg_project_heads(struct cg_project *project, const char *volume, cg_head_fn *fn, void *opaque,
                     struct cg_point **ret_latest, struct cg_seen *ret_seen, struct cg_error *err);

/* What is recorded as damaged, by kind: damaged objects are relied on by no backup. */
int cg_project_damaged(struct cg_project *project, enum cg_object_kind kind,
                       struct cg_refs **ret_refs, struct cg_error *err);

/* Records that ref is damaged, durably; or that it is right again.  Doing it twice is fine. */
int cg_project_record(struct cg_project *project, enum cg_object_kind kind,
                      const struct cg_ref *ref, struct cg_error *err);
int cg_project_strike(struct cg_project *project, enum cg_object_kind kind,
                      const struct cg_ref *ref, struct cg_error *err);

/* Records, durably, that what the source's space says changed since this point can't be relied on;
 * or forgets it.  Doing it twice is fine.  Whether it is recorded: 1, 0 or -errno. */
int cg_project_distrust(struct cg_project *project, const struct cg_point *point,
                        struct cg_error *err);
int cg_project_forget_distrust(struct cg_project *project, const struct cg_point *point,
                               struct cg_error *err);
int cg_project_distrusted(struct cg_project *project, const struct cg_point *point,
                          struct cg_error *err);

/* The history up to a point as a qcow2 file (core/backups/history.h). */
int cg_history_image(struct cg_project *project, const char *volume, const char *point,
                     struct cg_image **ret_image, struct cg_error *err);

/* A point as an image, which owns the point and needs the repository as long as it lives. */
int cg_point_image(struct cg_project *project, struct cg_point *point, struct cg_image **ret_image,
                   struct cg_error *err);

#endif
