/* The writer's side of a repository: a session, in which a backup relies only on what it pinned or
 * stored itself, and which ends in a whole new point or in none (docs/format-repository.md). */
#ifndef CG_BACKUPS_SESSION_H
#define CG_BACKUPS_SESSION_H

#include "core/backups/repository.h"

struct cg_session;

/* Opens a session that will write a point of backups/PROJECT/VOLUME; the project is made if it's
 * new.  Reads the era, removes what dead sessions left, pins the latest point of each of the
 * project's volumes and checks that each is still there.  -EBUSY: another backup of that volume is
 * running. */
int cg_session_begin(struct cg_repository *repository, const char *project, const char *volume,
                     struct cg_session **ret_session, struct cg_error *err);

/* Ends it, committed or not: without a commit, no point.  NULL is fine. */
void cg_session_end(struct cg_session *session);

/* CG_SESSION_ID characters. */
const char *cg_session_id(const struct cg_session *session);
struct cg_project *cg_session_project(const struct cg_session *session);

/* The volume's latest point, pinned; or NULL, and *ret_why says why there is none. */
const struct cg_point *cg_session_base(const struct cg_session *session, const char **ret_why);

/* References of a page of the base.  As cg_project_page, but -EIO too for a page recorded as
 * damaged; and references to chunks recorded as damaged are in ret_damaged (CG_PAGE_CHUNKS of
 * them). */
int cg_session_base_page(struct cg_session *session, uint64_t number, struct cg_ref *ret_refs,
                         bool *ret_damaged, struct cg_error *err);

/* Reads the pages of all pinned points, in parallel: from now on cg_session_store knows what they
 * hold. */
int cg_session_index(struct cg_session *session, struct cg_error *err);

/* Stores len bytes, unless this session may rely on an object with them.  *ret_ref refers to it;
 * *ret_stored gets the bytes written, 0 if it was known.  Any thread, each with its own codec. */
int cg_session_store(struct cg_session *session, struct cg_codec *codec, enum cg_object_kind kind,
                     const void *plain, uint32_t len, struct cg_ref *ret_ref, uint64_t *ret_stored,
                     struct cg_error *err);

/* Makes everything stored durable and point visible: fills in its project, volume, name, sequence,
 * parent-independent fields of the session (tool, id, era, pins).  After a failure there is no
 * point.  -ECANCELED: the session was revoked. */
int cg_session_commit(struct cg_session *session, struct cg_point *point, struct cg_error *err);

#endif
