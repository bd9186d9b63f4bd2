/* What the recorder hands to the replay: the log of what was done. */
#ifndef CG_TESTS_RECORDER_LOG_H
#define CG_TESTS_RECORDER_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum what { WRITE, TRUNCATE, PUNCH, SYNC, LOST, CREATE, MKDIR, LINK, RENAME, UNLINK, MARK };

struct op {
    enum what what;
    unsigned file;        /* the file or directory that it is about */
    unsigned dir, to_dir; /* where names change */
    char name[100], to_name[100];
    uint64_t off, len;
    uint8_t *bytes;
    bool replaces;
};

struct recorder_log {
    const struct op *ops;
    size_t count;
    unsigned nodes; /* files and directories */
};

/* The recorder's own, valid until it goes on. */
struct recorder_log recorder_log(void);

static inline void must(bool ok)
{
    if (!ok)
        abort();
}

#endif
