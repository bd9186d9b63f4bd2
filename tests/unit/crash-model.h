/* What a volume and its snapshots and clones must hold after a crash of the host, at any point of a
 * sequence of steps: each sector of a volume is as it was at the last flush that was acknowledged,
 * or as some later operation left it, the one under way included; a snapshot or a clone that was
 * acknowledged is there with exactly its bytes, one that was being made or deleted is there whole
 * or not at all.  Failures fail the cmocka test. */
#ifndef CG_TESTS_CRASH_MODEL_H
#define CG_TESTS_CRASH_MODEL_H

#include "core/space.h"
#include "tests/unit/recorder.h"
#include "tests/unit/volumes-pool.h"

#define SIZE (160 * 1024 + 1536u)
#define GROWN (SIZE + 8192u)
#define SECTOR 512u
#define STEPS_MAX 100

/* The volume after each step. */
struct moment {
    uint8_t bytes[GROWN];
    uint64_t size;     /* 0: there is no volume yet */
    unsigned flushed;  /* the last step that made all before it durable */
    uint64_t value[4]; /* which images have appeared: the step at which their content was, + 1 */
};

enum { SNAPSHOT_1, SNAPSHOT_2, CLONE_1, CLONE_2, IMAGES };
extern const char *const crash_image[IMAGES];

enum op {
    CREATE, /* a clone of a point; with off 1: of another volume, which is one and was written */
    WRITE,
    ZERO,
    TRIM,
    FLUSH,
    FUA,
    SNAPSHOT,
    UNSNAPSHOT,
    CLONE,
    REMOVE,
    RESIZE,
    CLOSE,
    FLATTEN,
    RECLAIM,
    DELETE, /* UNSNAPSHOT and RECLAIM */
    ROLLBACK
};

struct step {
    enum op op;
    uint32_t off, len; /* or which image */
};

/* The volume before step i, for all steps and after them. */
extern struct moment crash_history[STEPS_MAX + 1];

/* Said where something is wrong: what was done; "" if that is clear. */
extern char crash_what[64];

/* Learns what the steps, which stay the caller's, make of the volume. */
void crash_plan(const struct step *steps, unsigned count);

/* Does a step, number i.  *image is opened where it's needed. */
int crash_perform(struct cg_space *space, struct cg_image **image, const struct step *s, unsigned i,
                  struct cg_error *err);

/* The image must be what it was after the first `done` steps, or become by the next. */
void crash_check_image(struct cg_space *space, unsigned which, unsigned done, const char *where);

/* Replays what is recorded up to a cut, and checks all.  bad_close: the step at which the volume
 * was closed without all of it being flushed; 0 for none. */
void crash_replay(size_t cut, enum recorder_loss loss, unsigned seed, unsigned bad_close);

#endif
