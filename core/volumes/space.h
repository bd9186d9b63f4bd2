/* The space itself, shared by the files of this folder. */
#ifndef CG_VOLUMES_SPACE_H
#define CG_VOLUMES_SPACE_H

#include <pthread.h>

#include "core/space.h"

struct cg_volume;

struct cg_volumes {
    int fd; /* the pool's directory */
    struct cg_parents parents;
    pthread_mutex_t lock;   /* guards what follows, and what its members say */
    pthread_cond_t settled; /* one of them has begun or ended */
    struct cg_volume *open;
};

#endif
