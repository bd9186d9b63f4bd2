#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/one-pool.h"

struct pool pool;

int one_pool_setup(void **state)
{
    (void)state;
    pool_setup(&pool);
    return 0;
}

int one_pool_teardown(void **state)
{
    (void)state;
    pool_teardown(&pool);
    return 0;
}

void put(struct cg_image *image, char value, size_t len, uint64_t off)
{
    CG_CLEANUP(cg_free) uint8_t *buf = malloc(len);

    assert_non_null(buf);
    memset(buf, value, len);
    pool_write(image, buf, len, off);
}

void expect(struct cg_image *image, char value, size_t len, uint64_t off)
{
    CG_CLEANUP(cg_free) uint8_t *buf = malloc(len);

    assert_non_null(buf);
    pool_read(image, buf, len, off);
    for (size_t i = 0; i < len; i++)
        if (buf[i] != (uint8_t)value)
            fail_msg("byte %llu is %02x, not %02x", (unsigned long long)(off + i), buf[i],
                     (uint8_t)value);
}
