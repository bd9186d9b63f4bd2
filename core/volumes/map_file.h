/* The map file of a layer: a header, then the state of each 4 KiB block (docs/format-volumes.md).
 * Here is its form; what the states are used for is in map.h. */
#ifndef CG_VOLUMES_MAP_FILE_H
#define CG_VOLUMES_MAP_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/bytes.h"
#include "core/base/error.h"

#define CG_BLOCK 4096u             /* bytes that have one state */
#define CG_MAP_HEADER 4096u        /* bytes before the states */
#define CG_MAP_SECTOR 512u         /* bytes of states that are written at once */
#define CG_MAP_WINDOW 4096u        /* bytes of states that are loaded at once */
#define CG_MAP_WINDOW_BLOCKS 16384 /* blocks of a window: 64 MiB of the volume */
#define CG_MAP_WINDOW_SECTORS 8

enum cg_state {
    CG_STATE_ABSENT = 0,  /* look in the layer below */
    CG_STATE_DATA = 1,    /* in the layer's data file */
    CG_STATE_ZERO = 2,    /* zeros */
    CG_STATE_DAMAGED = 3, /* never written */
};

struct cg_map_header {
    char uuid[CG_UUID_LEN + 1]; /* of the layer */
    uint64_t size;              /* of the layer, bytes; a multiple of 512 */
};

/* The windows that size bytes of volume need. */
uint64_t cg_map_file_windows(uint64_t size);

void cg_map_file_encode(uint8_t ret[static CG_MAP_HEADER], const struct cg_map_header *header);

/* Checks everything that the header says.  0; -ENOTSUP: of a newer format; -EIO: damaged. */
int cg_map_file_decode(const uint8_t *buf, size_t len, struct cg_map_header *ret_header,
                       struct cg_error *err);

/* Makes the file name in dirfd with all blocks absent, durably but for the directory.  -EEXIST. */
int cg_map_file_create(int dirfd, const char *name, const struct cg_map_header *header,
                       struct cg_error *err);

/* Opens name for reading and, if that is allowed, writing, and checks its header against uuid and
 * its length.  Errors name the file. */
int cg_map_file_open(int dirfd, const char *name, const char *uuid, int *ret_fd, uint64_t *ret_size,
                     struct cg_error *err);

/* Words of states as the file has them: 32 blocks a word, the lowest bits the first block. */
void cg_map_file_put_words(uint8_t *ret, const uint64_t *words, size_t count);
void cg_map_file_get_words(uint64_t *ret, const uint8_t *buf, size_t count);

#endif
