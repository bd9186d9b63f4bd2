/* Thread model: one thread accepts, each connection has a thread of its own, which frees nothing:
 * the accepting thread and cg_control_stop join them.  A call's fields but `done` belong to its
 * thread.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/volumes/control.h"

#define LINE_MAX_BYTES ((size_t)16 << 20)

struct cg_control_call {
    struct cg_control *control;
    struct cg_control_call *next;
    pthread_t thread;
    int fd;
    atomic_bool done; /* the thread ends: it can be joined */
};

struct cg_control {
    struct sockaddr_un address;
    bool hidden; /* the path isn't ours any more */
    int fd, wake;
    cg_control_fn *fn;
    void *opaque;
    pthread_t thread;
    struct cg_control_call *calls; /* only the accepting thread's, then cg_control_stop's */
};

static void json_cleanup(json_t **json)
{
    json_decref(*json);
}

static int address_of(const char *path, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof ret->sun_path)
        return -ENAMETOOLONG;
    strcpy(ret->sun_path, path);
    return 0;
}

static int send_line(int fd, const json_t *json)
{
    CG_CLEANUP(cg_free) char *text = json_dumps(json, JSON_COMPACT);

    if (!text)
        return -ENOMEM;
    size_t len = strlen(text), sent = 0;
    text[len++] = '\n'; /* in place of the NUL */
    while (sent < len) {
        ssize_t n = send(fd, text + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        sent += (size_t)n;
    }
    return 0;
}

/* The next line; what follows it stays in the socket.  -ECONNRESET at the end. */
static int receive_line(int fd, json_t **ret)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len = 0, max = 0;

    for (;;) {
        if (len == max) {
            max = max ? 2 * max : 4096;
            char *grown = max > LINE_MAX_BYTES ? NULL : realloc(text, max);
            if (!grown)
                return -ENOMEM;
            text = grown;
        }
        ssize_t n = recv(fd, text + len, max - len, MSG_PEEK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -ECONNRESET;
        char *newline = memchr(text + len, '\n', (size_t)n);
        size_t take = newline ? (size_t)(newline - (text + len)) + 1 : (size_t)n;
        n = recv(fd, text + len, take, 0);
        if (n <= 0)
            return -ECONNRESET;
        len += (size_t)n;
        if (newline)
            break;
    }
    *ret = json_loadb(text, len, 0, NULL);
    return *ret ? 0 : -EPROTO;
}

static void answer_call(struct cg_control_call *call)
{
    struct cg_error error = { .message = "" };
    CG_CLEANUP(json_cleanup) json_t *request = NULL;
    CG_CLEANUP(json_cleanup) json_t *answer = json_object();
    int r = receive_line(call->fd, &request);

    if (r == -ECONNRESET) /* somebody looked whether anybody is there */
        return;
    if (r < 0 || !json_is_object(request))
        r = cg_error_say(&error, EPROTO, "the request is not a line of JSON");
    else
        r = call->control->fn(call->control->opaque, call, request, answer, &error);
    if (r < 0) {
        json_object_clear(answer);
        json_object_set_new(answer, "errno", json_integer(-r));
        json_object_set_new(answer, "message", json_string(error.message));
    } else {
        json_object_set_new(answer, "ok", json_true());
    }
    send_line(call->fd, answer);
}

static void *call_main(void *arg)
{
    struct cg_control_call *call = arg;

    answer_call(call);
    shutdown(call->fd, SHUT_RDWR);
    atomic_store(&call->done, true);
    return NULL;
}

static void join_call(struct cg_control_call *call)
{
    pthread_join(call->thread, NULL);
    close(call->fd);
    free(call);
}

static void join_done(struct cg_control *control)
{
    for (struct cg_control_call **at = &control->calls; *at;) {
        struct cg_control_call *call = *at;
        if (!atomic_load(&call->done)) {
            at = &call->next;
            continue;
        }
        *at = call->next;
        join_call(call);
    }
}

static void begin_call(struct cg_control *control, int fd)
{
    struct cg_control_call *call = calloc(1, sizeof *call);

    if (call) {
        call->control = control;
        call->fd = fd;
        if (pthread_create(&call->thread, NULL, call_main, call) == 0) {
            call->next = control->calls;
            control->calls = call;
            return;
        }
    }
    free(call);
    close(fd); /* the other end starts again */
}

static void *accept_main(void *arg)
{
    struct cg_control *control = arg;
    struct pollfd fds[] = { { .fd = control->fd, .events = POLLIN },
                            { .fd = control->wake, .events = POLLIN } };

    for (;;) {
        /* A call that has ended is joined at the next one, or at the end. */
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents)
            return NULL;
        int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);
        join_done(control);
        if (fd >= 0)
            begin_call(control, fd);
        else if (errno != EINTR && errno != ECONNABORTED)
            poll(&fds[1], 1, 50); /* too many open files: not at full speed */
    }
}

static void free_control(struct cg_control *control)
{
    if (control->fd >= 0)
        close(control->fd);
    if (control->wake >= 0)
        close(control->wake);
    free(control);
}

int cg_control_start(const char *socket_path, cg_control_fn *fn, void *opaque,
                     struct cg_control **ret_control, struct cg_error *err)
{
    struct cg_control *control = calloc(1, sizeof *control);
    int r;

    if (!control)
        return cg_error_set(err, ENOMEM, "listen at %s", socket_path);
    control->fn = fn;
    control->opaque = opaque;
    control->fd = control->wake = -1;
    r = address_of(socket_path, &control->address);
    if (r < 0)
        goto fail;
    control->wake = eventfd(0, EFD_CLOEXEC);
    control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control->wake < 0 || control->fd < 0 || (unlink(socket_path) < 0 && errno != ENOENT) ||
        bind(control->fd, (struct sockaddr *)&control->address, sizeof control->address) < 0 ||
        listen(control->fd, 64) < 0) {
        r = -errno;
        goto fail;
    }
    r = -pthread_create(&control->thread, NULL, accept_main, control);
    if (r < 0) {
        unlink(socket_path);
        goto fail;
    }
    *ret_control = control;
    return 0;

fail:
    free_control(control);
    return cg_error_set(err, -r, "listen at %s", socket_path);
}

void cg_control_hide(struct cg_control *control)
{
    if (!control || control->hidden)
        return;
    unlink(control->address.sun_path);
    control->hidden = true;
}

void cg_control_stop(struct cg_control *control)
{
    uint64_t one = 1;

    if (!control)
        return;
    cg_control_hide(control);
    if (write(control->wake, &one, sizeof one) < 0)
        abort(); /* an eventfd at 0 takes 1 */
    pthread_join(control->thread, NULL);
    for (struct cg_control_call *call = control->calls; call; call = call->next)
        shutdown(call->fd, SHUT_RDWR);
    while (control->calls) {
        struct cg_control_call *call = control->calls;
        control->calls = call->next;
        join_call(call);
    }
    free_control(control);
}

int cg_control_progress(struct cg_control_call *call, uint64_t done, uint64_t total)
{
    CG_CLEANUP(json_cleanup)
    json_t *line = json_pack("{s:I, s:I}", "done", (json_int_t)done, "total", (json_int_t)total);

    return !line || send_line(call->fd, line) < 0;
}

static int open_socket(const char *path)
{
    struct sockaddr_un address;
    int fd, r = address_of(path, &address);

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int take_error(const json_t *answer, struct cg_error *err)
{
    json_int_t errnum = json_integer_value(json_object_get(answer, "errno"));
    const char *message = json_string_value(json_object_get(answer, "message"));

    if (errnum <= 0 || errnum > 4095 || errnum == ECONNRESET)
        errnum = EIO;
    return cg_error_say(err, (int)errnum, "%s", message ? message : "the writer gave no reason");
}

int cg_control_ask(const char *path, const json_t *request,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   json_t **ret_answer, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = open_socket(path);

    if (fd < 0 || send_line(fd, request) < 0)
        return cg_error_say(err, ECONNRESET, "nobody answers at %s", path);
    for (;;) {
        CG_CLEANUP(json_cleanup) json_t *answer = NULL;
        int r = receive_line(fd, &answer);
        if (r < 0)
            return cg_error_say(err, ECONNRESET, "the process at %s ended", path);
        if (json_object_get(answer, "ok")) {
            *ret_answer = json_incref(answer);
            return 0;
        }
        if (json_object_get(answer, "errno"))
            return take_error(answer, err);
        uint64_t done = (uint64_t)json_integer_value(json_object_get(answer, "done"));
        uint64_t total = (uint64_t)json_integer_value(json_object_get(answer, "total"));
        if (progress && progress(opaque, done, total))
            return cg_error_set(err, ECANCELED, "wait for the process at %s", path);
    }
}

bool cg_control_answers(const char *path)
{
    CG_CLEANUP(cg_close) int fd = open_socket(path);

    return fd >= 0;
}
