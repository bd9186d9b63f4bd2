/* The socket of a writer: who hangs is told from who works. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/volumes/control.h"
#include "tests/unit/cmocka-all.h"

static char path[64];

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/cowgate-control.%ld", (long)getpid());
    alarm(120); /* of what must not wait for ever */
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    alarm(0);
    unlink(path);
    return 0;
}

static struct sockaddr_un address(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    strcpy(a.sun_path, path);
    return a;
}

static int listener(int backlog)
{
    struct sockaddr_un a = address();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

/* It listens, and that is all: as a process that is stopped. */
static void test_silent(void **state)
{
    json_t *request = json_pack("{s:s}", "op", "seal"), *answer;
    struct cg_error err;
    int fd = listener(1);
    char pid[32];

    (void)state;
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_int_equal(cg_control_ask(path, request, 20, NULL, NULL, &answer, &err), -ETIMEDOUT);
    assert_non_null(strstr(err.message, pid));
    assert_non_null(strstr(err.message, path));
    /* Until no more fit into its queue. */
    for (int i = 0; i < 4; i++)
        assert_int_equal(cg_control_ask(path, request, 20, NULL, NULL, &answer, &err), -ETIMEDOUT);
    assert_true(cg_control_answers(path));
    close(fd);
    assert_false(cg_control_answers(path));
    assert_int_equal(cg_control_ask(path, request, 20, NULL, NULL, &answer, &err), -ECONNRESET);
    json_decref(request);
}

static sem_t go_on;

static int slow(void *opaque, struct cg_control_call *call, const json_t *request, json_t *answer,
                struct cg_error *err)
{
    (void)opaque;
    (void)call;
    (void)request;
    (void)answer;
    (void)err;
    while (sem_wait(&go_on) < 0)
        ;
    return 0;
}

static void read_line(int fd, char *ret, size_t size)
{
    size_t n = 0;

    do {
        assert_true(n + 1 < size);
        assert_int_equal(read(fd, ret + n, 1), 1);
    } while (ret[n++] != '\n');
    ret[n] = '\0';
}

/* A request takes its time: whoever waits hears that it is worked on. */
static void test_working(void **state)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct cg_control *control;
    struct cg_error err;
    char line[256];

    (void)state;
    sem_init(&go_on, 0, 0);
    assert_int_equal(cg_control_start(path, slow, NULL, &control, &err), 0);
    struct sockaddr_un a = address();
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(write(fd, "{}\n", 3), 3);
    for (int i = 0; i < 2; i++) {
        read_line(fd, line, sizeof line);
        assert_string_equal(line, "{\"working\":true}\n");
    }
    sem_post(&go_on);
    do
        read_line(fd, line, sizeof line);
    while (strcmp(line, "{\"working\":true}\n") == 0);
    assert_string_equal(line, "{\"ok\":true}\n");
    assert_int_equal(read(fd, line, 1), 0);
    close(fd);
    cg_control_stop(control);
    sem_destroy(&go_on);
}

static void *answer_main(void *arg)
{
    static const char answer[] = "{\"working\":true}\n{\"done\":1,\"total\":2}\n"
                                 "{\"working\":true}\n{\"ok\":true,\"x\":7}\n";
    int fd = accept4(*(int *)arg, NULL, NULL, SOCK_CLOEXEC);

    if (write(fd, answer, sizeof answer - 1) < 0)
        abort();
    return (void *)(intptr_t)fd;
}

static int count(void *opaque, uint64_t done, uint64_t total)
{
    assert_int_equal(done, 1);
    assert_int_equal(total, 2);
    ++*(int *)opaque;
    return 0;
}

/* Being worked for is neither progress nor an answer. */
static void test_asks_on(void **state)
{
    json_t *request = json_pack("{s:s}", "op", "flatten"), *answer;
    int fd = listener(1), calls = 0;
    struct cg_error err;
    pthread_t thread;
    void *connection;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, answer_main, &fd), 0);
    assert_int_equal(
        cg_control_ask(path, request, CG_CONTROL_SILENCE, count, &calls, &answer, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(answer, "x")), 7);
    assert_int_equal(calls, 1);
    json_decref(answer);
    json_decref(request);
    pthread_join(thread, &connection);
    close((int)(intptr_t)connection);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_working, setup, teardown),
        cmocka_unit_test_setup_teardown(test_asks_on, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
