/* Thread model: one thread accepts, each connection has a thread of its own, which frees nothing:
 * the accepting thread and cg_control_stop join them.  The accepting thread also tells those who
 * wait for an answer that they are worked for.  A call's fields but `done` and those that `sending`
 * guards belong to its thread.
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
#include <sys/time.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/volumes/control.h"
#include "core/volumes/control_text.h"

#define TICK 1000 /* milliseconds */

struct cg_control_call {
    struct cg_control *control;
    struct cg_control_call *next;
    pthread_t thread;
    int fd;
    atomic_bool done;        /* the thread ends: it can be joined */
    pthread_mutex_t sending; /* guards what is sent, and the next */
    bool working;            /* there is a request, and no answer yet */
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
    size_t len, sent = 0;
    CG_CLEANUP(cg_free) char *text = json ? cg_control_text_encode(json, &len) : NULL;

    if (!text)
        return -ENOMEM;
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

/* The next line; what follows it stays in the socket.  -ECONNRESET at the end, -ETIMEDOUT if the
 * socket has a time for that. */
static int receive_line(int fd, json_t **ret)
{
    CG_CLEANUP(cg_free) char *text = NULL;
    size_t len = 0, max = 0;

    for (;;) {
        if (len == max) {
            max = max ? 2 * max : 4096;
            char *grown = max > CG_CONTROL_LINE_MAX ? NULL : realloc(text, max);
            if (!grown)
                return -ENOMEM;
            text = grown;
        }
        ssize_t n = recv(fd, text + len, max - len, MSG_PEEK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return -ETIMEDOUT;
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
    return cg_control_text_decode(text, len, ret);
}

static void set_working(struct cg_control_call *call, bool working)
{
    CG_LOCK(&call->sending);
    call->working = working;
}

/* Waits for nobody: who doesn't read what there is needn't be told more. */
static void tick(struct cg_control_call *call)
{
    static const char line[] = "{\"working\":true}\n";

    if (pthread_mutex_trylock(&call->sending) != 0)
        return;
    if (call->working &&
        send(call->fd, line, sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof line - 1)
        call->working = false;
    pthread_mutex_unlock(&call->sending);
}

static void answer_call(struct cg_control_call *call)
{
    struct cg_error error = { .message = "" };
    CG_CLEANUP(cg_json_cleanup) json_t *request = NULL;
    CG_CLEANUP(cg_json_cleanup) json_t *answer = json_object();
    int r = receive_line(call->fd, &request);

    if (r == -ECONNRESET) /* somebody looked whether anybody is there */
        return;
    set_working(call, true);
    if (r < 0)
        r = cg_error_say(&error, EPROTO, "the request is not a line of JSON");
    else
        r = call->control->fn(call->control->opaque, call, request, answer, &error);
    if (r < 0) {
        json_decref(answer);
        answer = cg_control_text_failure(-r, error.message);
    } else {
        json_object_set_new(answer, "ok", json_true());
    }
    set_working(call, false);
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
    pthread_mutex_destroy(&call->sending);
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
        pthread_mutex_init(&call->sending, NULL);
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
        int n = poll(fds, 2, control->calls ? TICK : -1);
        if (n < 0)
            continue;
        if (n > 0 && fds[1].revents)
            return NULL;
        join_done(control);
        if (n == 0) {
            for (struct cg_control_call *call = control->calls; call; call = call->next)
                tick(call);
            continue;
        }
        int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC);
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
    CG_CLEANUP(cg_json_cleanup)
    json_t *line = json_pack("{s:I, s:I}", "done", (json_int_t)done, "total", (json_int_t)total);

    CG_LOCK(&call->sending);
    return !line || send_line(call->fd, line) < 0;
}

/* The socket's limits for a send and for a receive. */
static int set_silence(int fd, unsigned ms)
{
    struct timeval time = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) < 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) < 0
               ? -errno
               : 0;
}

static bool reached(const json_t *line, const char *step)
{
    const char *text = json_string_value(json_object_get(line, "reached"));

    return text && strcmp(text, step) == 0;
}

static int send_reached(struct cg_control_call *call, const char *step)
{
    CG_CLEANUP(cg_json_cleanup) json_t *line = json_pack("{s:s}", "reached", step);
    CG_LOCK(&call->sending);

    return send_line(call->fd, line);
}

int cg_control_reach(struct cg_control_call *call, const char *step, unsigned silence)
{
    int r = set_silence(call->fd, silence);

    if (r == 0)
        r = send_reached(call, step);
    while (r == 0) {
        CG_CLEANUP(cg_json_cleanup) json_t *line = NULL;
        r = receive_line(call->fd, &line);
        if (r == 0 && json_is_true(json_object_get(line, "go")))
            return 0;
        if (r == 0 && !json_is_true(json_object_get(line, "wait")))
            return -ECONNRESET;
    }
    return r == -ETIMEDOUT || r == -EAGAIN ? -ETIMEDOUT : -ECONNRESET;
}

/* silence: the milliseconds after which to give up waiting for the other end (-EAGAIN); 0: at once.
 */
static int open_socket(const char *path, unsigned silence)
{
    struct sockaddr_un address;
    int fd, r = address_of(path, &address);

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (silence ? 0 : SOCK_NONBLOCK), 0);
    if (fd < 0)
        return -errno;
    r = set_silence(fd, silence);
    if (r == 0 && connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd;
}

/* Full of others that wait, or connected to somebody (fd) who says nothing. */
static int silent(const char *path, int fd, unsigned silence, struct cg_error *err)
{
    struct ucred peer = { .pid = 0 };
    socklen_t len = sizeof peer;
    char who[32] = "the process";

    if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && peer.pid)
        snprintf(who, sizeof who, "process %ld", (long)peer.pid);
    return cg_error_say(err, ETIMEDOUT,
                        "%s at %s has said nothing for %u seconds: it is stopped or hangs; let it "
                        "go on, or end it",
                        who, path, (silence + 999) / 1000);
}

int cg_control_begin(const char *path, const json_t *request, unsigned silence, int *ret_fd,
                     struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = open_socket(path, silence);
    int sent = fd < 0 ? fd : send_line(fd, request);

    if (sent == -EAGAIN)
        return silent(path, fd, silence, err);
    if (sent < 0)
        return cg_error_say(err, ECONNRESET, "nobody answers at %s", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int cg_control_go(int fd)
{
    static const char line[] = "{\"go\":true}\n";

    return send(fd, line, sizeof line - 1, MSG_NOSIGNAL) == sizeof line - 1 ? 0 : -ECONNRESET;
}

void cg_control_keep(int fd)
{
    static const char line[] = "{\"wait\":true}\n";

    /* Who is gone is seen by what comes next. */
    (void)!send(fd, line, sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The next line that says more than that it is worked on.  1: the last. */
static int next_line(const char *path, int fd, unsigned silence, uint64_t *ret_done,
                     uint64_t *ret_total, json_t **ret_line, struct cg_error *err)
{
    int r = receive_line(fd, ret_line);

    if (r == -ETIMEDOUT)
        return silent(path, fd, silence, err);
    if (r < 0)
        return cg_error_say(err, ECONNRESET, "the process at %s ended", path);
    return cg_control_text_answer(*ret_line, ret_done, ret_total, err);
}

int cg_control_end(const char *path, int fd, unsigned silence,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   json_t **ret_answer, struct cg_error *err)
{
    for (;;) {
        CG_CLEANUP(cg_json_cleanup) json_t *line = NULL;
        uint64_t done, total;
        int r = next_line(path, fd, silence, &done, &total, &line, err);
        if (r > 0 && ret_answer)
            *ret_answer = json_incref(line);
        if (r != 0)
            return r < 0 ? r : 0;
        if (progress && total && progress(opaque, done, total))
            return cg_error_set(err, ECANCELED, "wait for the process at %s", path);
    }
}

int cg_control_await(const char *path, int fd, unsigned silence, const char *step,
                     void (*waiting)(void *opaque), void *opaque, struct cg_error *err)
{
    for (;;) {
        CG_CLEANUP(cg_json_cleanup) json_t *line = NULL;
        uint64_t done, total;
        int r = next_line(path, fd, silence, &done, &total, &line, err);
        if (r < 0)
            return r;
        if (reached(line, step))
            return 0;
        if (r > 0)
            return cg_error_say(err, EPROTO, "the process at %s left out a step", path);
        if (waiting)
            waiting(opaque);
    }
}

int cg_control_ask(const char *path, const json_t *request, unsigned silence,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   json_t **ret_answer, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = -1;
    int r = cg_control_begin(path, request, silence, &fd, err);

    return r < 0 ? r : cg_control_end(path, fd, silence, progress, opaque, ret_answer, err);
}

bool cg_control_answers(const char *path)
{
    CG_CLEANUP(cg_close) int fd = open_socket(path, 0);

    return fd >= 0 || fd == -EAGAIN;
}
