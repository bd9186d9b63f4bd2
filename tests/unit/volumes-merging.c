#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "tests/unit/volumes-merging.h"
#include "tests/unit/cmocka-all.h"

struct cg_space *second;

int merging_setup(void **state)
{
    faults_setup(state);
    second = pool_second(&pool);
    return 0;
}

int merging_teardown(void **state)
{
    cg_space_free(second);
    return faults_teardown(state);
}

int reclaim_by(struct cg_space *space)
{
    struct cg_name v = pool_name(V);
    struct cg_error err;
    int r = cg_space_reclaim(space, &v, NULL, NULL, &err);

    if (r < 0)
        fail_msg("reclaim: %d, %s", r, err.message);
    return r;
}

int reclaim(void)
{
    return reclaim_by(pool.space);
}

struct cg_volume_json json_of(const char *volume)
{
    struct cg_volume_json json;
    struct cg_error err;
    char path[128];

    snprintf(path, sizeof path, "%s/p/%s", pool.dir, volume);
    CG_CLEANUP(cg_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cg_volume_json_read(fd, &json, NULL, &err) < 0)
        fail_msg("%s", err.message);
    return json;
}

size_t layers(void)
{
    struct cg_volume_json json = json_of("v");
    size_t count = json.head.count;

    cg_volume_json_clear(&json);
    return count;
}

size_t mixed(void)
{
    struct cg_volume_json json = json_of("v");
    size_t count = json.mixed.count;

    cg_volume_json_clear(&json);
    return count;
}

void write_v(struct cg_space *space, char value, size_t len, uint64_t off)
{
    struct cg_image *image = pool_open(space, V, CG_OPEN_WRITE);

    put(image, value, len, off);
    cg_image_unref(image);
}

void expect_in(const char *name, char value, size_t len, uint64_t off)
{
    struct cg_space *space = pool_second(&pool);
    struct cg_image *image = pool_open(space, name, CG_OPEN_READ);

    expect(image, value, len, off);
    cg_image_unref(image);
    cg_space_free(space);
}

void expect_v(char value, size_t len, uint64_t off)
{
    expect_in(V, value, len, off);
}
