/* A pool in a directory of its own for tests of volumes, with parents that are plain memory. */
#ifndef CG_TESTS_VOLUMES_POOL_H
#define CG_TESTS_VOLUMES_POOL_H

#include "core/space.h"

struct pool {
    char dir[64], run[64]; /* the pool and its run directory ($COWGATE_RUN) */
    struct cg_space *space;
};

/* Makes the directories and opens the pool. */
void pool_setup(struct pool *pool);

/* Frees the space and opens the pool again, as another process would. */
void pool_reopen(struct pool *pool);

/* Another space over the same pool: to the first, it's as good as another process. */
struct cg_space *pool_second(struct pool *pool);

/* As after a reboot: all that is in the run directory is gone, and what the lock files say is of
 * another boot. */
void pool_reboot(struct pool *pool);

void pool_teardown(struct pool *pool);

/* Puts the pool's directory, which isn't made, on tmpfs: for tests that make many. */
void pool_move_to_tmpfs(struct pool *pool);

/* The parent "backups/p/v/20260101T000000Z": so many bytes, which the caller keeps. */
void pool_set_parent(const void *bytes, uint64_t size);
/* Its hold: the uuid of the last hold that wasn't released, by child processes too; "" for none. */
const char *pool_held(void);
/* Makes hold fail with this errno (0: no more). */
void pool_fail_hold(int errnum);
void pool_fail_release(int errnum);
/* This is called before each hold and release; NULL: nothing. */
void pool_before_holds(void (*fn)(void));
/* The same for each time the parent is opened, between the layers of a clone and the clone. */
void pool_before_opens(void (*fn)(void));
#define POOL_PARENT "backups/p/v/20260101T000000Z"

struct cg_name pool_name(const char *text);

/* These fail the test if they fail. */
void pool_create(struct cg_space *space, const char *name, uint64_t size);
struct cg_image *pool_open(struct cg_space *space, const char *name, unsigned flags);
void pool_snapshot(struct cg_space *space, const char *name);
void pool_clone(struct cg_space *space, const char *parent, const char *name);
void pool_remove(struct cg_space *space, const char *name);
void pool_write(struct cg_image *image, const void *buf, size_t len, uint64_t off);
void pool_read(struct cg_image *image, void *buf, size_t len, uint64_t off);

/* A progress that wants an end. */
int pool_cancel(void *opaque, uint64_t done, uint64_t total);

/* The image's content is these bytes, by reading and by extents. */
void pool_same(struct cg_image *image, const uint8_t *want, uint64_t size);

#endif
