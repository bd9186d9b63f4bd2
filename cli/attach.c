#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/nbd.h>

#include "cli/attach_server.h"
#include "cli/attach_watch.h"
#include "cli/cli.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"

/* attach makes a process that starts a server, shakes hands with it, gives the connections to the
 * kernel, and stays to make them again; the command itself ends when the device can be used. */

enum { DEVICE_SECONDS = 30 };

struct attach {
    struct cli *cli;
    struct cli_attach_watch w;
    int index; /* that was asked for, or -1 */
    bool resume;
    bool writable; /* the image, by its kind */
    long writer;   /* the process that writes it; 0: none */
    bool foreground, list;
    uint64_t size;
    uint64_t flags;
    unsigned connections;
    struct cg_name name; /* of the image, unless it's at a URI */
};

enum { READ_ONLY = 256, CONNECTIONS, TIMEOUT, REQUEST_TIMEOUT, FOREGROUND, LIST };

static const struct option attach_options[] = {
    { "read-only", no_argument, NULL, READ_ONLY },
    { "connections", required_argument, NULL, CONNECTIONS },
    { "timeout", required_argument, NULL, TIMEOUT },
    { "request-timeout", required_argument, NULL, REQUEST_TIMEOUT },
    { "foreground", no_argument, NULL, FOREGROUND },
    { "list", no_argument, NULL, LIST },
    { 0 },
};

static int number(const char *option, const char *value, unsigned min, unsigned max, unsigned *ret)
{
    unsigned long n = strtoul(value, NULL, 10);

    if (strspn(value, "0123456789") != strlen(value) || strlen(value) > 6 || n < min || n > max)
        return cli_misused("attach", "--%s %s: write a number from %u to %u", option, value, min,
                           max);
    *ret = (unsigned)n;
    return 0;
}

static int set_attach(void *opaque, int option, const char *value)
{
    struct attach *s = opaque;
    struct cli_attachment *a = &s->w.a;

    switch (option) {
    case READ_ONLY:
        a->read_only = true;
        break;
    case CONNECTIONS:
        return number("connections", value, 1, CLI_NBD_CONNECTIONS_MAX, &a->connections);
    case TIMEOUT:
        return number("timeout", value, 1, 999999, &a->timeout);
    case REQUEST_TIMEOUT:
        return number("request-timeout", value, 1, 999999, &a->request_timeout);
    case FOREGROUND:
        s->foreground = true;
        break;
    default:
        s->list = true;
    }
    return 0;
}

/* The process that writes a volume, 0 if none does. */
static int find_writer(struct cg_space *space, const struct cg_name *name, long *ret,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_json_cleanup) json_t *info = NULL;
    int r = cg_space_info(space, name, &info, err);

    if (r == 0)
        *ret = (long)json_integer_value(json_object_get(info, "writer"));
    return r;
}

/* What can be wrong before anything is started.  Nothing of it stays open. */
static int check_image(struct attach *s)
{
    struct cli_attachment *a = &s->w.a;
    struct cli *cli = s->cli;
    struct cg_image *image = NULL;
    struct cg_space *space;
    struct cg_name name;

    if (cg_arg_kind(a->image) == CG_ARG_URI)
        return strncmp(a->image, "nbds", 4) == 0
                   ? cg_error_say(&cli->err, EINVAL,
                                  "%s: the kernel's NBD client can't encrypt; clone it into a "
                                  "volume and attach that",
                                  a->image)
                   : 0;
    if (cg_arg_kind(a->image) == CG_ARG_PATH)
        return cg_error_say(&cli->err, EINVAL,
                            "%s is a path; clone or import it into a volume and attach that",
                            a->image);
    int r = cli_name(cli, a->image, &name, &space);
    if (r == 0) /* the device must never become another point */
        r = cg_space_resolve(space, &name, &cli->err);
    if (r == 0)
        r = cg_gateway_open(cli->gateway, &name, CG_OPEN_READ, &image, &cli->err);
    if (r == 0 && name.space == CG_NAME_VOLUMES && !name.snapshot[0])
        r = find_writer(space, &name, &s->writer, &cli->err);
    if (r == 0) {
        s->writable = name.space != CG_NAME_BACKUPS && !name.snapshot[0];
        cg_name_text(&name, false, a->image);
        s->name = name;
        if (!realpath(cg_gateway_root(cli->gateway), a->root))
            r = cg_error_set(&cli->err, errno, "find %s", cg_gateway_root(cli->gateway));
    }
    cg_image_unref(image);
    cg_gateway_free(cli->gateway);
    cli->gateway = NULL;
    return r;
}

/* Two processes can't write one volume, and the second would say so only in the midst of it. */
static int refuse_written(struct attach *s)
{
    if (!s->writer)
        return 0;
    return cg_error_say(&s->cli->err, EBUSY,
                        "%s is being written by process %ld: attach an export of that process "
                        "(nbd+unix://...), or see --read-only",
                        s->w.a.image, s->writer);
}

/* Nor can the servers of two devices. */
static int check_second(struct attach *s)
{
    const struct cli_attachment *a = &s->w.a;
    char whole[CG_NAME_MAX];
    int other = -1;

    if (!a->root[0] || a->read_only || !s->writable)
        return 0;
    int r = cli_attachment_find(a->root, &s->name, a->index, &other, &s->cli->err);
    if (r == 0 && other >= 0)
        r = cg_error_say(&s->cli->err, EBUSY, "%s is /dev/nbd%d already (see --read-only)",
                         cg_name_text(&s->name, true, whole), other);
    return r;
}

/* A device that was attached by an attach which was killed is watched on. */
static int check_device(struct attach *s)
{
    CG_CLEANUP(cg_close) int fd = -1;
    struct cli_attachment old;
    struct cli_attachment *a = &s->w.a;
    bool watched;

    a->index = s->index;
    if (s->index < 0 || cli_attachment_read(s->index, &old, &fd, &watched, NULL) < 0 ||
        !cli_nbd_connected_by(s->index, old.id))
        return 0;
    if (watched || strcmp(old.image, a->image) || strcmp(old.root, a->root) ||
        old.read_only != a->read_only)
        return cg_error_say(&s->cli->err, EBUSY, "/dev/nbd%d is %s already", s->index, old.image);
    *a = old;
    s->resume = true;
    return 0;
}

/* Waits until it can be opened with its size, and its partitions are there. */
static int wait_for_device(struct attach *s)
{
    const struct timespec pause = { .tv_nsec = 10000000 };
    struct cg_error *err = &s->cli->err;
    char path[32];

    snprintf(path, sizeof path, "/dev/nbd%d", s->w.a.index);
    for (unsigned i = 0; i < DEVICE_SECONDS * 100; i++) {
        uint64_t size = 0;
        CG_CLEANUP(cg_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT && errno != ENXIO)
            return cg_error_set(err, errno, "open %s", path);
        if (fd >= 0 && ioctl(fd, BLKGETSIZE64, &size) == 0 && size == s->size) {
            ioctl(fd, BLKRRPART, 0); /* fails where udev's look at it has mounted some already */
            return 0;
        }
        nanosleep(&pause, NULL);
    }
    return cg_error_say(err, ETIMEDOUT, "%s doesn't come up", path);
}

static void learn(struct attach *s, const struct cli_nbd_link *said)
{
    s->size = said->size;
    s->flags = said->flags;
    s->connections = said->count;
}

static int connect_device(struct attach *s, int *ret_lock)
{
    struct cli_attachment *a = &s->w.a;
    struct cg_error *err = &s->cli->err;
    struct cli_nbd_link link;
    int r = cli_attach_connect(a, &link, err);

    if (r < 0)
        return r;
    learn(s, &link);
    memcpy(a->shows, link.shows, sizeof a->shows);
    r = cli_nbd_kernel_connect(&link, s->index, &a->index, err);
    cli_nbd_link_close(&link);
    if (r < 0)
        return r;
    r = cli_attachment_write(a, ret_lock, err);
    if (r == 0) /* who attached it meanwhile, or sees this one */
        r = check_second(s);
    if (r == 0)
        r = wait_for_device(s);
    if (r < 0)
        cli_nbd_kernel_disconnect(a->index, NULL);
    return r;
}

/* Takes over from a watcher that was killed. */
static int resume_device(struct attach *s, int *ret_lock)
{
    struct cg_error *err = &s->cli->err;
    struct cli_nbd_link link;
    int r = cli_attachment_write(&s->w.a, ret_lock, err);

    if (r == 0)
        r = cli_attach_reconnect(&s->w.a, &link, err);
    if (r == 0)
        learn(s, &link);
    return r;
}

static int report(struct attach *s)
{
    const struct cli_attachment *a = &s->w.a;
    char device[32];

    snprintf(device, sizeof device, "/dev/nbd%d", a->index);
    int r = CLI_OK;
    if (s->cli->json)
        r = cli_print_json(s->cli, json_pack("{s:s s:s s:I s:i s:b}", "device", device, "image",
                                             a->image, "size", (json_int_t)s->size, "connections",
                                             (int)s->connections, "read_only",
                                             (s->flags & NBD_FLAG_READ_ONLY) != 0));
    else
        puts(device);
    return fflush(stdout) == 0 ? r : CLI_FAILED;
}

/* From here on nobody reads what this process says, but in the log. */
static int leave(struct attach *s)
{
    char path[PATH_MAX];
    int r = cli_attachment_path(s->w.a.id, ".log", path, sizeof path, &s->cli->err);

    if (r < 0)
        return r;
    CG_CLEANUP(cg_close) int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CG_CLEANUP(cg_close) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (log < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0 ||
        chdir("/") < 0)
        return cg_error_set(&s->cli->err, errno, "open %s", path);
    return 0;
}

/* The watcher's life.  done: the end of a pipe to the command, which ends when it can read there;
 * or -1. */
static int stay(struct attach *s, int done)
{
    struct cg_error *err = &s->cli->err;
    CG_CLEANUP(cg_close) int lock = -1;

    s->w.a.watcher = getpid();
    s->w.signals = cli_attach_block_signals(err);
    if (s->w.signals < 0)
        return cli_failed(s->cli);
    int r = cli_nbd_watch_new(&s->w.news, err);
    if (r == 0)
        r = s->resume ? resume_device(s, &lock) : connect_device(s, &lock);
    if (r < 0 && !s->resume) {
        if (s->w.a.root[0])
            cli_attach_server_stop(s->w.a.socket, NULL);
        cli_attachment_remove(&s->w.a);
    }
    if (r < 0)
        return cli_failed(s->cli);
    r = report(s);
    if (r == CLI_OK && done >= 0) {
        r = leave(s) < 0 ? cli_failed(s->cli) : CLI_OK;
        if (r == CLI_OK && write(done, "", 1) != 1)
            r = CLI_FAILED;
    }
    if (r != CLI_OK) /* nobody knows of the device */
        cli_nbd_kernel_disconnect(s->w.a.index, NULL);
    if (done >= 0)
        close(done);
    if (cli_attach_watch(&s->w, err) < 0)
        r = cli_failed(s->cli);
    else
        cli_attachment_remove(&s->w.a);
    cli_nbd_watch_free(s->w.news);
    close(s->w.signals);
    return r;
}

/* What the caller had open, a lock say, isn't for who stays. */
static void close_others(int fd)
{
    if (fd > 3)
        close_range(3, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, UINT_MAX, 0);
}

/* Makes the watcher and waits until it has the device. */
static int stay_behind(struct attach *s)
{
    int done[2], status;
    char byte;

    if (pipe2(done, O_CLOEXEC) < 0) {
        cg_error_set(&s->cli->err, errno, "attach %s", s->w.a.image);
        return cli_failed(s->cli);
    }
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        cg_error_set(&s->cli->err, errno, "attach %s", s->w.a.image);
        return cli_failed(s->cli);
    }
    if (child == 0) {
        setsid();
        close_others(done[1]);
        exit(stay(s, done[1]));
    }
    close(done[1]);
    ssize_t n = read(done[0], &byte, 1);
    close(done[0]);
    if (n == 1)
        return CLI_OK;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : CLI_FAILED;
}

static int attach(struct attach *s, const char *image, const char *device)
{
    struct cli_attachment *a = &s->w.a;
    struct cli *cli = s->cli;

    s->index = device ? cli_attachment_index(device) : -1;
    if (device && s->index < 0)
        return cli_misused("attach", "%s is no device /dev/nbdN", device);
    if ((size_t)snprintf(a->image, sizeof a->image, "%s", image) >= sizeof a->image)
        return cli_misused("attach", "the name is too long");
    int r = check_image(s);
    if (r == 0)
        r = cli_nbd_kernel_load(&cli->err);
    if (r == 0)
        r = check_device(s);
    if (r == 0)
        r = check_second(s);
    if (r == 0 && a->root[0] && !a->read_only && !s->resume)
        r = refuse_written(s);
    if (r == 0 && !s->resume)
        r = cli_attachment_name(a, &cli->err);
    if (r < 0)
        return cli_failed(cli);
    if (!a->root[0])
        a->socket[0] = '\0';
    return s->foreground ? stay(s, -1) : stay_behind(s);
}

struct listing {
    struct cli *cli;
    json_t *array; /* NULL: as text */
};

static int list_one(void *opaque, int index)
{
    struct listing *l = opaque;
    CG_CLEANUP(cg_close) int fd = -1;
    struct cli_attachment a;
    bool watched;

    if (cli_attachment_read(index, &a, &fd, &watched, &l->cli->err) < 0)
        return 0; /* it is just going */
    if (!cli_nbd_connected_by(index, a.id))
        return 0;
    if (!l->array) {
        printf("/dev/nbd%-6d %s%s%s\n", index, a.image, a.read_only ? ", read-only" : "",
               watched ? "" : ", not watched: attach it there again");
        return 0;
    }
    char device[32];
    snprintf(device, sizeof device, "/dev/nbd%d", index);
    return json_array_append_new(l->array,
                                 json_pack("{s:s s:s s:b s:b s:i}", "device", device, "image",
                                           a.image, "read_only", a.read_only, "watched", watched,
                                           "process", (int)a.watcher)) < 0
               ? cg_error_set(&l->cli->err, ENOMEM, "list devices")
               : 0;
}

static int list(struct cli *cli)
{
    struct listing l = { .cli = cli, .array = cli->json ? json_array() : NULL };

    if (cli_attachment_each(list_one, &l, &cli->err) < 0) {
        json_decref(l.array);
        return cli_failed(cli);
    }
    return cli->json ? cli_print_json(cli, l.array) : CLI_OK;
}

int cli_attach(struct cli *cli, int argc, char **argv)
{
    struct attach s = { .cli = cli,
                        .w.a = { .connections = 4, .timeout = 300, .request_timeout = 30 } };

    CLI_ARGS(attach_options, set_attach, &s, 0, 2);
    if (s.list)
        return optind == argc ? list(cli) : cli_misused("attach", "--list takes no image");
    if (optind == argc)
        return cli_misused("attach", "attach: the image is missing");
    return attach(&s, argv[optind], optind + 1 < argc ? argv[optind + 1] : NULL);
}
