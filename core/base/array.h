/* Arrays that grow by one item at a time. */
#ifndef CG_BASE_ARRAY_H
#define CG_BASE_ARRAY_H

#include <stddef.h>
#include <stdlib.h>

/* The array v of *allocated items, count of them used, with room for one more: v itself or where it
 * has moved to.  NULL if memory is short; v is as before then. */
static inline void *cg_array_room(void *v, size_t count, size_t *allocated, size_t item)
{
    if (count < *allocated)
        return v;
    size_t n = *allocated ? 2 * *allocated : 16;
    void *grown = reallocarray(v, n, item);
    if (grown)
        *allocated = n;
    return grown;
}

#endif
