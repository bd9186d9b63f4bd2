#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/attachment.h"
#include "core/base/cleanup.h"
#include "core/base/files.h"

#define RECORD_MAX (64 << 10)

static int directory_path(char *ret, size_t size, struct cg_error *err)
{
    char run[PATH_MAX];
    int r = cg_run_dir(run, sizeof run, err);

    if (r < 0)
        return r;
    return (size_t)snprintf(ret, size, "%s/attach", run) < size
               ? 0
               : cg_error_set(err, ENAMETOOLONG, "%s/attach", run);
}

static int directory(char *ret, size_t size, struct cg_error *err)
{
    int r = directory_path(ret, size, err);

    return r < 0 ? r : cg_dir_make(AT_FDCWD, ret, 0700, err);
}

/* The directory, locked for whoever changes what is in it. */
static int open_directory(int *ret_fd, struct cg_error *err)
{
    char path[PATH_MAX];
    int r = directory(path, sizeof path, err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_close) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", path);
    while (flock(fd, LOCK_EX) < 0) {
        if (errno != EINTR)
            return cg_error_set(err, errno, "lock %s", path);
    }
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int cli_attachment_path(const char *id, const char *suffix, char *ret, size_t size,
                        struct cg_error *err)
{
    char dir[PATH_MAX];
    int r = directory(dir, sizeof dir, err);

    if (r < 0)
        return r;
    if ((size_t)snprintf(ret, size, "%s/%s%s", dir, id, suffix) >= size)
        return cg_error_say(err, ENAMETOOLONG, "%s: the run directory has too long a name", dir);
    return 0;
}

int cli_attachment_name(struct cli_attachment *a, struct cg_error *err)
{
    uint64_t random;

    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return cg_error_set(err, errno, "choose a name");
    snprintf(a->id, sizeof a->id, CLI_ATTACHMENT_ID_PREFIX "%016llx", (unsigned long long)random);
    return cli_attachment_path(a->id, ".sock", a->socket, sizeof a->socket, err);
}

struct cli_nbd_address cli_attachment_address(const struct cli_attachment *a)
{
    return a->root[0] ? (struct cli_nbd_address){ .socket = a->socket }
                      : (struct cli_nbd_address){ .uri = a->image };
}

static void record_name(int index, char ret[static 32])
{
    snprintf(ret, 32, "nbd%d.json", index);
}

static json_t *pack(const struct cli_attachment *a)
{
    return json_pack("{s:i s:s s:s s:s s:s s:s s:b s:i s:i s:i s:i}", "index", a->index, "id",
                     a->id, "image", a->image, "root", a->root, "socket", a->socket, "shows",
                     a->shows, "read_only", a->read_only, "connections", (int)a->connections,
                     "timeout", (int)a->timeout, "request_timeout", (int)a->request_timeout,
                     "watcher", (int)a->watcher);
}

static int unpack(json_t *json, struct cli_attachment *ret)
{
    const char *id, *image, *root, *socket, *shows = "";
    int read_only, connections, timeout, request_timeout, watcher;

    if (!json ||
        json_unpack(json, "{s:i s:s s:s s:s s:s s?s s:b s:i s:i s:i s:i}", "index", &ret->index,
                    "id", &id, "image", &image, "root", &root, "socket", &socket, "shows", &shows,
                    "read_only", &read_only, "connections", &connections, "timeout", &timeout,
                    "request_timeout", &request_timeout, "watcher", &watcher) < 0)
        return -EINVAL;
    if ((size_t)snprintf(ret->id, sizeof ret->id, "%s", id) >= sizeof ret->id ||
        (size_t)snprintf(ret->image, sizeof ret->image, "%s", image) >= sizeof ret->image ||
        (size_t)snprintf(ret->root, sizeof ret->root, "%s", root) >= sizeof ret->root ||
        (size_t)snprintf(ret->socket, sizeof ret->socket, "%s", socket) >= sizeof ret->socket ||
        (size_t)snprintf(ret->shows, sizeof ret->shows, "%s", shows) >= sizeof ret->shows)
        return -EINVAL;
    ret->read_only = read_only;
    ret->connections = (unsigned)connections;
    ret->timeout = (unsigned)timeout;
    ret->request_timeout = (unsigned)request_timeout;
    ret->watcher = watcher;
    return 0;
}

static bool is_locked(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) < 0)
        return errno == EWOULDBLOCK;
    flock(fd, LOCK_UN);
    return false;
}

static int read_at(int dir, int index, struct cli_attachment *ret, int *ret_fd,
                   struct cg_error *err)
{
    char name[32], text[RECORD_MAX];

    record_name(index, name);
    CG_CLEANUP(cg_close) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open the record of /dev/nbd%d", index);
    ssize_t n = read(fd, text, sizeof text);
    json_t *json = n > 0 ? json_loadb(text, (size_t)n, 0, NULL) : NULL;
    int r = unpack(json, ret);
    json_decref(json);
    if (r < 0 || ret->index != index)
        return cg_error_say(err, EINVAL, "the record of /dev/nbd%d is damaged", index);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int cli_attachment_read(int index, struct cli_attachment *ret, int *ret_fd, bool *ret_watched,
                        struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dir = -1;
    int r = open_directory(&dir, err);

    if (r == 0)
        r = read_at(dir, index, ret, ret_fd, err);
    if (r == 0)
        *ret_watched = is_locked(*ret_fd);
    return r;
}

static int write_at(int dir, const struct cli_attachment *a, int *ret_lock, struct cg_error *err)
{
    char name[32], draft[40];
    json_t *json = pack(a);
    CG_CLEANUP(cg_free) char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL;

    json_decref(json);
    if (!text)
        return cg_error_set(err, ENOMEM, "write the record of /dev/nbd%d", a->index);
    record_name(a->index, name);
    snprintf(draft, sizeof draft, "%s.new", name);
    CG_CLEANUP(cg_close) int fd = openat(dir, draft, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ||
        cg_pwrite_full(fd, text, strlen(text), 0) < 0 || renameat(dir, draft, dir, name) < 0)
        return cg_error_set(err, errno, "write the record of /dev/nbd%d", a->index);
    *ret_lock = fd;
    fd = -1;
    return 0;
}

int cli_attachment_write(const struct cli_attachment *a, int *ret_lock, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dir = -1;
    CG_CLEANUP(cg_close) int old_fd = -1;
    struct cli_attachment old;
    int r = open_directory(&dir, err);

    if (r < 0)
        return r;
    if (read_at(dir, a->index, &old, &old_fd, NULL) == 0 && strcmp(old.id, a->id) == 0 &&
        is_locked(old_fd))
        return cg_error_say(err, EBUSY, "/dev/nbd%d is watched already, by process %ld", a->index,
                            (long)old.watcher);
    return write_at(dir, a, ret_lock, err);
}

void cli_attachment_remove(const struct cli_attachment *a)
{
    CG_CLEANUP(cg_close) int dir = -1;
    CG_CLEANUP(cg_close) int fd = -1;
    struct cli_attachment now;
    char name[CLI_NBD_BACKEND_SIZE + 8];

    if (open_directory(&dir, NULL) < 0)
        return;
    snprintf(name, sizeof name, "%s.log", a->id);
    unlinkat(dir, name, 0);
    if (a->index < 0 || read_at(dir, a->index, &now, &fd, NULL) < 0 || strcmp(now.id, a->id))
        return;
    record_name(a->index, name);
    unlinkat(dir, name, 0);
}

int cli_attachment_index(const char *device)
{
    static const char prefix[] = "/dev/nbd";
    const char *digits = device + strlen(prefix);

    if (strncmp(device, prefix, strlen(prefix)) || !*digits || strlen(digits) > 4 ||
        digits[strspn(digits, "0123456789")] || (digits[0] == '0' && digits[1]))
        return -1;
    return atoi(digits);
}

static int compare(const void *a, const void *b)
{
    const int *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

int cli_attachment_each(int (*fn)(void *opaque, int index), void *opaque, struct cg_error *err)
{
    char path[PATH_MAX];
    int index[1024];
    size_t count = 0;
    int r = directory_path(path, sizeof path, err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_closedir) DIR *dir = cg_dir_open(AT_FDCWD, path, 0);
    if (!dir && errno == ENOENT) /* nothing was ever attached */
        return 0;
    if (!dir)
        return cg_error_set(err, errno, "read %s", path);
    for (struct dirent *e = readdir(dir); e && count < 1024; e = readdir(dir)) {
        int n, end = 0;
        if (sscanf(e->d_name, "nbd%4d.json%n", &n, &end) == 1 && end && !e->d_name[end])
            index[count++] = n;
    }
    qsort(index, count, sizeof *index, compare);
    for (size_t i = 0; i < count && r == 0; i++)
        r = fn(opaque, index[i]);
    return r;
}

/* Reads what the device is, and whether it's one that can be written through. */
static bool is_writable(int index, struct cli_attachment *ret)
{
    CG_CLEANUP(cg_close) int fd = -1;
    bool watched;

    return cli_attachment_read(index, ret, &fd, &watched, NULL) == 0 &&
           cli_nbd_connected_by(index, ret->id) && !ret->read_only;
}

struct use {
    const char *root;
    char image[CG_NAME_MAX];
    int except;
    int found;
};

static int find_use(void *opaque, int index)
{
    struct use *u = opaque;
    struct cli_attachment a;
    char image[CG_NAME_MAX];
    struct cg_name name;

    if (index != u->except && is_writable(index, &a) && strcmp(a.root, u->root) == 0 &&
        cg_name_parse(a.image, &name, NULL) == 0 &&
        strcmp(cg_name_text(&name, true, image), u->image) == 0)
        u->found = index;
    return 0;
}

int cli_attachment_find(const char *root, const struct cg_name *image, int except, int *ret_index,
                        struct cg_error *err)
{
    struct use u = { .root = root, .except = except, .found = -1 };

    cg_name_text(image, true, u.image);
    int r = cli_attachment_each(find_use, &u, err);
    if (r == 0)
        *ret_index = u.found;
    return r;
}

struct change {
    struct cli *cli;
    struct cg_name head;
    char id[CG_NAME_MAX]; /* "": not asked for yet */
};

static int refuse_change(void *opaque, int index)
{
    struct change *c = opaque;
    struct cli_attachment a;
    char text[CG_NAME_MAX];

    if (!is_writable(index, &a) ||
        (!c->id[0] && cg_gateway_image_id(c->cli->gateway, &c->head, c->id, NULL) < 0))
        return 0;
    a.shows[strcspn(a.shows, ":")] = '\0'; /* of which it is a partition */
    if (strcmp(a.shows, c->id) != 0)
        return 0;
    return cg_error_say(&c->cli->err, EBUSY, "%s is /dev/nbd%d: detach that first",
                        cg_name_text(&c->head, true, text), index);
}

int cli_refuse_attached(struct cli *cli, const struct cg_name *image)
{
    struct change c = { .cli = cli, .head = *image };

    c.head.snapshot[0] = '\0';
    c.head.partition = 0;
    if (geteuid() != 0) /* whose devices these aren't */
        return 0;
    return cli_attachment_each(refuse_change, &c, &cli->err);
}
