/* Threads: the list of handles is under one mutex, which is never held while an image is opened,
 * flushed or closed: an opening handle is in the list already (without an image), so that of two
 * that exclude each other only one gets through. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/image/image.h"
#include "fuse/opens.h"

struct handle {
    struct cg_open open; /* first; image is NULL while it's being opened */
    char path[CG_NAME_MAX];
    char base[CG_NAME_MAX]; /* without the partition */
    unsigned partition;
    struct handle *prev, *next;
};

struct cg_opens {
    pthread_mutex_t lock; /* guards the list and the handles' image */
    struct handle *all;
};

struct cg_opens *cg_opens_new(void)
{
    struct cg_opens *opens = calloc(1, sizeof *opens);

    if (opens)
        pthread_mutex_init(&opens->lock, NULL);
    return opens;
}

void cg_opens_free(struct cg_opens *opens)
{
    if (!opens)
        return;
    pthread_mutex_destroy(&opens->lock);
    free(opens);
}

static bool excludes(const struct handle *a, const struct handle *b)
{
    return (a->open.write || b->open.write) && a->partition != b->partition &&
           (a->partition == 0 || b->partition == 0) && strcmp(a->base, b->base) == 0;
}

static int add(struct cg_opens *opens, struct handle *handle, struct cg_error *err)
{
    CG_LOCK(&opens->lock);
    for (struct handle *h = opens->all; h; h = h->next) {
        if (excludes(h, handle))
            return cg_error_say(err, EBUSY,
                                "%s is open%s: a volume and its partitions can't be open at the "
                                "same time while one of them is written",
                                h->path, h->open.write ? " for writing" : "");
        if (strcmp(h->path, handle->path) == 0)
            handle->open.direct = h->open.direct;
    }
    handle->next = opens->all;
    if (handle->next)
        handle->next->prev = handle;
    opens->all = handle;
    return 0;
}

static void take_out(struct cg_opens *opens, struct handle *handle)
{
    CG_LOCK(&opens->lock);
    if (handle->prev)
        handle->prev->next = handle->next;
    else
        opens->all = handle->next;
    if (handle->next)
        handle->next->prev = handle->prev;
}

static int open_image(struct cg_gateway *gateway, const struct cg_name *name, bool write,
                      struct cg_image **ret_image, struct cg_error *err)
{
    unsigned flags = write ? CG_OPEN_WRITE | CG_OPEN_EXCLUSIVE : CG_OPEN_READ;
    struct cg_image *image = NULL;
    int r = cg_gateway_open(gateway, name, flags, &image, err);

    if (r < 0)
        return r;
    if (write && cg_image_read_only(image)) {
        cg_image_unref(image);
        return cg_error_say(err, EROFS, "it can only be read");
    }
    *ret_image = image;
    return 0;
}

int cg_opens_open(struct cg_opens *opens, struct cg_gateway *gateway, const struct cg_name *name,
                  bool write, bool direct, struct cg_open **ret_open, struct cg_error *err)
{
    struct handle *handle = calloc(1, sizeof *handle);
    struct cg_image *image = NULL;

    if (!handle)
        return cg_error_set(err, ENOMEM, "open");
    cg_name_text(name, false, handle->path);
    cg_name_text(name, true, handle->base);
    handle->open.path = handle->path;
    handle->open.write = write;
    handle->open.direct = direct;
    handle->partition = name->partition;
    int r = add(opens, handle, err);
    if (r < 0)
        goto fail;
    r = open_image(gateway, name, write, &image, err);
    if (r < 0) {
        take_out(opens, handle);
        goto fail;
    }
    pthread_mutex_lock(&opens->lock);
    handle->open.image = image;
    pthread_mutex_unlock(&opens->lock);
    *ret_open = &handle->open;
    return 0;
fail:
    free(handle);
    return r;
}

void cg_opens_written(struct cg_open *open)
{
    atomic_store_explicit(&open->written, time(NULL), memory_order_relaxed);
    atomic_store(&open->dirty, true);
}

int cg_opens_sync(struct cg_open *open, struct cg_error *err)
{
    /* Cleared before: a write that ends meanwhile may not be covered. */
    atomic_store(&open->dirty, false);
    int r = cg_image_flush(open->image, err);
    if (r < 0)
        atomic_store(&open->dirty, true);
    return r;
}

int cg_opens_flush(struct cg_open *open, struct cg_error *err)
{
    return atomic_load(&open->dirty) ? cg_opens_sync(open, err) : 0;
}

int cg_opens_close(struct cg_opens *opens, struct cg_open *open, struct cg_error *err)
{
    struct handle *handle = (struct handle *)open;
    int r = cg_opens_flush(open, err);

    /* Closed before it leaves the list: whom it excludes finds its image given back. */
    pthread_mutex_lock(&opens->lock);
    struct cg_image *image = open->image;
    open->image = NULL;
    pthread_mutex_unlock(&opens->lock);
    cg_image_unref(image);
    take_out(opens, handle);
    free(handle);
    return r;
}

int cg_opens_close_any(struct cg_opens *opens, struct cg_error *err)
{
    pthread_mutex_lock(&opens->lock);
    struct handle *handle = opens->all;
    pthread_mutex_unlock(&opens->lock);
    if (!handle)
        return cg_error_say(err, ENOENT, "nothing is open");
    int r = cg_opens_close(opens, &handle->open, err);
    /* -ENOENT is the answer for "none". */
    return r == -ENOENT ? -EIO : r;
}

bool cg_opens_find(struct cg_opens *opens, const char *path, uint64_t *ret_size,
                   time_t *ret_written)
{
    bool found = false;
    time_t written = 0;

    CG_LOCK(&opens->lock);
    for (struct handle *h = opens->all; h; h = h->next) {
        if (!h->open.image || strcmp(h->path, path) != 0)
            continue;
        time_t t = atomic_load(&h->open.written);
        if (t > written)
            written = t;
        if (!found)
            *ret_size = cg_image_size(h->open.image);
        found = true;
    }
    if (found)
        *ret_written = written;
    return found;
}
