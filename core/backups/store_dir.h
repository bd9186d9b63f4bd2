/* What the two files of the directory store share. */
#ifndef CG_BACKUPS_STORE_DIR_H
#define CG_BACKUPS_STORE_DIR_H

#include "core/backups/store.h"

struct cg_store_dir {
    struct cg_store store;
    int fd; /* of the repository's top */
};

/* The mode of files and directories. */
#define CG_STORE_FILE 0600
#define CG_STORE_DIR 0700

/* Makes the directories above path. */
int cg_store_dir_parents(int dirfd, const char *path, struct cg_error *err);

int cg_store_dir_list(struct cg_store *store, const char *path, cg_store_list_fn *fn, void *opaque,
                      struct cg_error *err);
int cg_store_dir_session_begin(struct cg_store *store, const char *project, const char *volume,
                               const char *id, struct cg_store_session **ret_session,
                               struct cg_error *err);
int cg_store_dir_session_write(struct cg_store_session *session, const void *buf, size_t len,
                               struct cg_error *err);
int cg_store_dir_session_put(struct cg_store_session *session, const char *path, const void *header,
                             size_t header_len, const void *payload, size_t payload_len,
                             struct cg_error *err);
int cg_store_dir_session_sync(struct cg_store_session *session, struct cg_error *err);
int cg_store_dir_session_commit(struct cg_store_session *session, const char *path,
                                struct cg_error *err);
void cg_store_dir_session_end(struct cg_store_session *session);
int cg_store_dir_session_alive(struct cg_store *store, const char *project, const char *id,
                               struct cg_error *err);

#endif
