/* Partition tables: the input is a whole disk. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/image/window.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct disk {
    const uint8_t *data;
    size_t size;
};

static int disk_pread(void *self, void *buf, size_t len, uint64_t off, struct cg_error *err)
{
    struct disk *d = self;

    (void)err;
    memcpy(buf, d->data + off, len);
    return 0;
}

static uint64_t disk_size(void *self)
{
    struct disk *d = self;
    return d->size;
}

static void disk_close(void *self)
{
    (void)self;
}

static const struct cg_image_ops disk_ops = {
    .name = "disk",
    .pread = disk_pread,
    .size = disk_size,
    .close = disk_close,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct disk disk = { data, size / 512 * 512 };
    struct cg_image *image = cg_image_new(&disk_ops, &disk, true), *p;
    struct cg_error err;
    char buf[512];

    if (!image)
        abort();
    for (unsigned number = 1; number <= 8; number++) {
        if (cg_window_open_partition(image, number, &p, &err) < 0)
            continue;
        uint64_t len = cg_image_size(p);
        if (len < 512 || len > disk.size || cg_image_pread(p, buf, 512, 0, &err) < 0 ||
            cg_image_pread(p, buf, 512, len - 512, &err) < 0)
            abort();
        cg_image_unref(p);
    }
    cg_image_unref(image);
    return 0;
}
