/* Times calls of the core within one process, in ms, one a line:
 *   inside clone VOLUME NEW COUNT      clones NEW-0, NEW-1, ...
 *   inside snapshot VOLUME COUNT       snapshots 0, 1, ... of a volume that it writes
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/gateway.h"

static struct cg_gateway *gateway;
static struct cg_error err;

static void check(int r)
{
    if (r >= 0)
        return;
    fprintf(stderr, "inside: %s\n", err.message);
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static struct cg_space *parse(const char *text, struct cg_name *ret)
{
    struct cg_space *space;

    check(cg_name_parse(text, ret, &err));
    check(cg_gateway_space(gateway, ret, &space, &err));
    return space;
}

static void clones(const char *volume, const char *new, int count)
{
    char text[CG_NAME_MAX];
    struct cg_name name;

    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%s-%d", new, i);
        double start = now_ms();
        check(cg_space_clone(parse(text, &name), volume, &name, &err));
        printf("%.3f\n", now_ms() - start);
    }
}

/* Each has something to flush, and to seal. */
static void snapshots(const char *volume, int count)
{
    static const char block[4096] = "written";
    char text[CG_NAME_MAX];
    struct cg_image *image;
    struct cg_name name;

    parse(volume, &name);
    check(cg_gateway_open(gateway, &name, CG_OPEN_WRITE, &image, &err));
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%s@%d", volume, i);
        check(cg_image_pwrite(image, block, sizeof block, (uint64_t)i * sizeof block, 0, &err));
        double start = now_ms();
        struct cg_space *space = parse(text, &name);
        check(cg_space_snapshot(space, &name, 1, &err));
        printf("%.3f\n", now_ms() - start);
    }
    cg_image_unref(image);
}

int main(int argc, char **argv)
{
    const struct cg_gateway_options options = { .root = NULL };

    if (argc < 4)
        return 2;
    check(cg_gateway_new(&options, &gateway, &err));
    if (argc == 5 && strcmp(argv[1], "clone") == 0)
        clones(argv[2], argv[3], atoi(argv[4]));
    else if (argc == 4 && strcmp(argv[1], "snapshot") == 0)
        snapshots(argv[2], atoi(argv[3]));
    else
        return 2;
    cg_gateway_free(gateway);
    return 0;
}
