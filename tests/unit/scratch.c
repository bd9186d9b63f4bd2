#include "config.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/files.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/scratch.h"

char scratch[] = "/tmp/cowgate-test.XXXXXX";

int scratch_setup(void **state)
{
    (void)state;
    return mkdtemp(scratch) ? 0 : -1;
}

int scratch_teardown(void **state)
{
    (void)state;
    return cg_tree_remove(AT_FDCWD, scratch, NULL);
}

void scratch_put(const char *path, const void *bytes, size_t len, uint64_t off)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(cg_pwrite_full(fd, bytes, len, off), 0);
    close(fd);
}
