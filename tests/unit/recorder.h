/* Records what a program does to the files below a directory, replays it up to any point as if the
 * host had crashed there, and makes single system calls fail.
 *
 * The program is linked with --wrap for the calls of recorder_calls.  What a crash leaves: what was
 * synced before it; of the rest of a file's changes any, torn at 512 bytes or, with an even seed,
 * at 4096; of the changes of names a beginning at least as long as the synced directories say.  A
 * sync that fails drops what it should have written: no later one writes it, as the kernel does it.
 */
#ifndef CG_TESTS_RECORDER_H
#define CG_TESTS_RECORDER_H

#include <stdbool.h>
#include <stddef.h>

/* Starts recording below root, which must be empty. */
void recorder_start(const char *root);

/* Notes that everything up to here is number; returns how many operations that are. */
size_t recorder_mark(unsigned number);

/* Ends recording; returns how many operations there are. */
size_t recorder_stop(void);

enum recorder_loss {
    LOSE_NOTHING, /* the process died, the host didn't */
    LOSE_ALL,     /* all that wasn't synced */
    LOSE_SOME,    /* any of it, by seed */
};

/* Makes dir, which must not be there, what the crash after the first `cut` operations leaves.
 * Returns the number of the last mark before it. */
unsigned recorder_replay(const char *dir, size_t cut, enum recorder_loss loss, unsigned seed);

void recorder_free(void);

/* Makes the n-th wrapped call from now on (from 1) fail with errnum, once; 0 for none. */
void recorder_fail(unsigned n, int errnum);

/* fn is called in each sync from now on, when it has begun: what is done meanwhile it doesn't
 * cover. NULL: nothing. */
void recorder_in_syncs(void (*fn)(void));

/* How many wrapped calls there were since. */
unsigned recorder_calls(void);

/* How many fdatasyncs have failed. */
unsigned recorder_failed_syncs(void);

/* The kinds of calls that failed so far, and all there are, as bits; their names. */
unsigned recorder_failed(void);
unsigned recorder_kinds(void);
const char *recorder_kind(unsigned bit);

#endif
