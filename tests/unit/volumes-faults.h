/* Faults for tests of volumes: hooks that the linker puts before the calls of the core (--wrap, see
 * volumes.mk), and a pool with the volume V in which they happen. */
#ifndef CG_TESTS_VOLUMES_FAULTS_H
#define CG_TESTS_VOLUMES_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

#include "tests/unit/one-pool.h"

#define SIZE (256 * 1024 + 512u)
#define V "volumes/p/v"

/* What the hooks do; 0 or NULL: nothing.  The test's threads and the core's look at it. */
struct faults {
    _Atomic unsigned kill_at_step; /* the change of a file, or line to another process, from now on
                              at which the process is killed */
    _Atomic unsigned kill_at_sync; /* the fdatasync from now on at which the process is killed */
    _Atomic unsigned fail_sync, fail_fsync, fail_fallocate; /* the call from now on that fails */
    _Atomic unsigned map_syncs;                             /* fdatasyncs of a map, counted */
    _Atomic unsigned full_at;     /* the look for room from now on that finds none */
    _Atomic bool fail_data_write; /* any to a data file */
    _Atomic bool hold_data_read;  /* the next from a data file waits until it's let go */
    _Atomic bool data_read_held, data_read_let_go;
    _Atomic size_t data_written;   /* bytes of pwrites to data files, counted */
    _Atomic size_t map_written;    /* bytes of pwrites to maps, counted */
    _Atomic unsigned act_at;       /* the taking of a gate before which */
    _Atomic unsigned act_at_link;  /* the linkat before which it is */
    _Atomic unsigned act_at_flock; /* the flock before which it is */
    _Atomic unsigned act_at_sync;  /* the fdatasync before which it is */
    void (*act)(void);             /* this is done */
    _Atomic bool watch_sockets;    /* a socket may be removed only while the volume is locked */
    _Atomic unsigned bad_unlinks;  /* those that were not */
    _Atomic unsigned unlinks;
};
extern struct faults hook;

/* For cmocka: a pool in which V is, with nothing hooked. */
int faults_setup(void **state);
int faults_teardown(void **state);

/* True if somebody holds the lock of V. */
bool volume_is_locked(void);

/* Writes into V and closes it, so that the volume is at rest. */
void write_and_end(struct cg_space *space);

/* Another process does it, killed at a step (0: at the end).  False if it took fewer steps. */
bool in_killed_process_at(unsigned at, void (*fn)(struct cg_space *space));
void in_killed_process(void (*fn)(struct cg_space *space));

#endif
