/* A limit to how many bytes a second several threads move together. */
#ifndef CG_BASE_PACE_H
#define CG_BASE_PACE_H

#include <pthread.h>
#include <stdint.h>

struct cg_pace {
    pthread_mutex_t lock;
    uint64_t rate; /* bytes a second; 0: no limit */
    uint64_t next; /* guarded by lock: when the next bytes may move, in ns of the monotonic clock */
};

void cg_pace_init(struct cg_pace *pace, uint64_t rate);
void cg_pace_clear(struct cg_pace *pace);

/* Waits until len bytes may be moved.  Any thread. */
void cg_pace_wait(struct cg_pace *pace, uint64_t len);

#endif
