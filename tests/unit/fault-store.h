/* A store in front of another, whose n-th call fails or kills the process. */
#ifndef CG_TESTS_FAULT_STORE_H
#define CG_TESTS_FAULT_STORE_H

#include "core/backups/store.h"
#include "tests/unit/fake-image.h"

struct fault_store_faults {
    struct fake_faults *faults; /* shared with the source */
    unsigned kill_at;           /* the call of the store that is the last, from 1; 0 for none */
    bool kill_after;            /* it is done before the process dies */
    _Atomic unsigned calls;     /* of the store */
    void (*before)(void *opaque, const char *what, const char *path); /* may be NULL */
    void *opaque;
};

/* Owns inner.  f must outlive it. */
struct cg_store *fault_store_new(struct cg_store *inner, struct fault_store_faults *f);

#endif
