/* A repository in a directory of its own, a fake space, and the steps that the tests of backups
 * share.  Each step fails the test if it goes wrong. */
#ifndef CG_TESTS_BACKUP_LAB_H
#define CG_TESTS_BACKUP_LAB_H

#include "core/backups/repository.h"
#include "core/jobs/backup.h"
#include "core/jobs/restore.h"
#include "core/jobs/verify.h"
#include "tests/unit/fake-space.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

struct lab {
    char dir[64];
    struct fake_faults faults; /* of the source and, opened by lab_open_faulty, the store */
    struct fake_space *fake;
    struct cg_space *space;
    struct cg_repository *repo;
    double audit; /* of all backups */
};

/* A new repository and an empty space. */
void lab_begin(struct lab *lab);
void lab_end(struct lab *lab);

/* For cmocka: a lab as *state, in which volumes/acme/web and db of 3 GiB have a little data, the
 * same at one place. */
int lab_setup(void **state);
/* The same with nothing in it. */
int lab_setup_empty(void **state);
int lab_teardown(void **state);

/* Runs a command in the directory of the repository's project acme. */
void lab_sh(struct lab *lab, const char *command);

/* Opens the repository again, without anything cached. */
void lab_reopen(struct lab *lab);

/* size bytes of noise (seed) at off of volumes/acme/NAME. */
void lab_write(struct lab *lab, const char *name, uint64_t size, uint64_t off, uint32_t seed);

/* backup volumes/acme/NAME backups/PROJECT/VOLUME: the job's result. */
int lab_try_backup(struct lab *lab, const char *name, const char *project, const char *volume,
                   struct cg_backup_result *ret, struct cg_error *err);
void lab_backup(struct lab *lab, const char *name, const char *project, const char *volume,
                struct cg_backup_result *ret);

/* Opens a point (its whole name), or volumes/acme/NAME. */
struct cg_image *lab_open(struct lab *lab, const char *name);

/* Fails the test unless the two read the same, holes included. */
void lab_same(struct cg_image *a, struct cg_image *b);

/* The point and the volume's head are the same. */
void lab_same_point(struct lab *lab, const char *point, const char *volume);

/* verify: how much is damaged, and the paths of it, one a line, in text (may be NULL). */
uint64_t lab_verify(struct lab *lab, const char *prefix, char *text, size_t size);

/* Points of backups/PROJECT/VOLUME; 0 if there is no such volume. */
unsigned lab_points(struct lab *lab, const char *project, const char *volume);

/* Calls fn for each regular file of the repository below under, with its path from the top. */
void lab_files(struct lab *lab, const char *under, void (*fn)(void *opaque, const char *path),
               void *opaque);
unsigned lab_count(struct lab *lab, const char *under);

/* Turns over a bit of the file's byte at, from the end if negative. */
void lab_flip(struct lab *lab, const char *path, int64_t at);

#endif
