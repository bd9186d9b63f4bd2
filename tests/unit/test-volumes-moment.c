/* Snapshots of several volumes at one moment: all or none, whoever dies in the middle, and nobody's
 * writes wait for somebody who is gone or hangs. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/volumes/change_request.h"
#include "core/volumes/control.h"
#include "core/volumes/writer.h"
#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

/* V is written by nobody; these by processes of their own. */
static const char *const written[] = { "volumes/p/a", "volumes/p/b" };
#define WRITERS 2
static const char *const all[] = { "volumes/p/a@s", "volumes/p/b@s", "volumes/p/v@s" };
#define ALL 3

/* Does what it's told by single letters, and answers with the letter. */
struct writer {
    pid_t pid;
    int tell, hear;
};

static struct writer writers[WRITERS];
static unsigned *kill_at; /* shared with them */

static void write_as_told(const char *name, int in, int out)
{
    struct cg_image *image = pool_open(pool_second(&pool), name, CG_OPEN_WRITE);
    char order;

    put(image, 'A', 4096, 0);
    while (read(in, &order, 1) == 1) {
        if (order == 'k')
            hook.kill_at_step = *kill_at;
        else
            put(image, order, 512, 0);
        if (write(out, &order, 1) != 1)
            break;
    }
    raise(SIGKILL);
}

static void order(struct writer *w, char what)
{
    char back = 0;

    assert_int_equal(write(w->tell, &what, 1), 1);
    assert_int_equal(read(w->hear, &back, 1), 1);
    assert_int_equal(back, what);
}

static void start(unsigned i)
{
    int down[2], up[2];

    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    writers[i].pid = fork();
    if (writers[i].pid == 0) {
        for (unsigned j = 0; j < WRITERS; j++) { /* else it would outlive the test */
            if (j != i && writers[j].pid) {
                close(writers[j].tell);
                close(writers[j].hear);
            }
        }
        close(down[1]);
        close(up[0]);
        write_as_told(written[i], down[0], up[1]);
    }
    close(down[0]);
    close(up[1]);
    writers[i].tell = down[1];
    writers[i].hear = up[0];
    order(&writers[i], 'A');
}

static void end(unsigned i)
{
    struct writer *w = &writers[i];

    if (!w->pid)
        return;
    kill(w->pid, SIGKILL);
    assert_int_equal(waitpid(w->pid, NULL, 0), w->pid);
    close(w->tell);
    close(w->hear);
    w->pid = 0;
}

static int setup(void **state)
{
    faults_setup(state);
    alarm(300); /* of what must not wait for ever */
    kill_at =
        mmap(NULL, sizeof *kill_at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(kill_at, MAP_FAILED);
    for (unsigned i = 0; i < WRITERS; i++) {
        pool_create(pool.space, written[i], SIZE);
        start(i);
    }
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < WRITERS; i++)
        end(i);
    munmap(kill_at, sizeof *kill_at);
    alarm(0);
    return faults_teardown(state);
}

static int snapshot_all(struct cg_space *space, struct cg_error *err)
{
    struct cg_name names[ALL];

    for (unsigned i = 0; i < ALL; i++)
        names[ALL - 1 - i] = pool_name(all[i]);
    return cg_space_snapshot(space, names, ALL, err);
}

static void must_snapshot_all(struct cg_space *space)
{
    struct cg_error err;

    if (snapshot_all(space, &err) < 0)
        fail_msg("snapshot: %s", err.message);
}

static bool is_there(const char *name)
{
    struct cg_name n = pool_name(name);
    struct cg_identity id;
    struct cg_error err;

    return cg_space_identify(pool.space, &n, &id, &err) == 0;
}

static unsigned count_there(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < ALL; i++)
        n += is_there(all[i]);
    return n;
}

static void remove_all(void)
{
    for (unsigned i = 0; i < ALL; i++)
        pool_remove(pool.space, all[i]);
}

static void expect_in(const char *name, char value)
{
    struct cg_image *image = pool_open(pool.space, name, CG_OPEN_READ);

    expect(image, value, 512, 0);
    cg_image_unref(image);
}

static void expect_all(char value)
{
    expect_in(all[0], value);
    expect_in(all[1], value);
    expect_in(all[2], 0);
}

static void write_on(char value)
{
    for (unsigned i = 0; i < WRITERS; i++)
        order(&writers[i], value);
}

static void test_all(void **state)
{
    struct cg_name twice[] = { pool_name(V "@x"), pool_name("volumes/p/a@x"), pool_name(V "@y") };
    struct cg_error err;

    (void)state;
    write_on('B');
    must_snapshot_all(pool.space);
    write_on('C');
    expect_all('B');
    /* One that is there: none of the others. */
    pool_remove(pool.space, all[0]);
    pool_remove(pool.space, all[1]);
    assert_int_equal(snapshot_all(pool.space, &err), -EEXIST);
    assert_non_null(strstr(err.message, V));
    assert_int_equal(count_there(), 1);
    pool_remove(pool.space, all[2]);
    pool_snapshot(pool.space, all[0]);
    assert_int_equal(snapshot_all(pool.space, &err), -EEXIST);
    assert_int_equal(count_there(), 1);
    expect_in(all[0], 'C');
    assert_int_equal(cg_space_snapshot(pool.space, twice, 3, &err), -EINVAL);
    assert_false(is_there("volumes/p/a@x"));
    struct cg_name missing[] = { pool_name(V "@x"), pool_name("volumes/p/none@x") };
    assert_int_equal(cg_space_snapshot(pool.space, missing, 2, &err), -ENOENT);
    assert_false(is_there(V "@x"));
    write_on('D');
}

/* This process writes one of them itself. */
static void test_own(void **state)
{
    struct cg_image *image = pool_open(pool.space, V, CG_OPEN_WRITE);

    (void)state;
    put(image, 'x', 512, 0);
    must_snapshot_all(pool.space);
    put(image, 'y', 512, 0);
    expect_in(all[2], 'x');
    expect(image, 'y', 512, 0);
    remove_all();
    /* Nothing new since: another snapshot takes no other layers. */
    must_snapshot_all(pool.space);
    expect_in(all[2], 'y');
    struct cg_name v = pool_name(V);
    struct cg_error err;
    CG_CLEANUP(cg_json_cleanup) json_t *before = NULL;
    CG_CLEANUP(cg_json_cleanup) json_t *after = NULL;
    assert_int_equal(cg_space_info(pool.space, &v, &before, &err), 0);
    remove_all();
    must_snapshot_all(pool.space);
    assert_int_equal(cg_space_info(pool.space, &v, &after, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(before, "layers")),
                     json_integer_value(json_object_get(after, "layers")));
    cg_image_unref(image);
}

/* Who asks is killed at each of its steps: what it left is whole or nothing when the next command
 * has come, and nobody waits for it. */
static void test_asker_killed(void **state)
{
    bool killed = true;
    unsigned whole = 0, none = 0, some = 0;

    (void)state;
    for (unsigned at = 1; killed; at++) {
        killed = in_killed_process_at(at, must_snapshot_all);
        write_on('B'); /* without waiting for anything */
        unsigned left = count_there();
        some += left > 0 && left < ALL;
        pool_snapshot(pool.space, V "@other");
        pool_remove(pool.space, V "@other");
        unsigned n = count_there();
        if (n != 0 && n != ALL)
            fail_msg("killed at step %u: %u of %u snapshots", at, n, ALL);
        assert_true(killed || n == ALL);
        whole += n == ALL;
        none += n == 0;
        if (n == ALL)
            remove_all();
    }
    /* It was killed before and between the snapshots, and after them. */
    assert_true(none > 10 && some > 0 && whole > 1);
}

/* So is a writer: there is another attempt, without it. */
static void test_writer_killed(void **state)
{
    unsigned deaths = 1;

    (void)state;
    for (unsigned at = 1, last = 0; deaths > last; at++) {
        last = deaths;
        order(&writers[0], 'B');
        *kill_at = at;
        order(&writers[0], 'k');
        must_snapshot_all(pool.space);
        assert_int_equal(count_there(), ALL);
        expect_in(all[0], 'B');
        remove_all();
        if (kill(writers[0].pid, 0) == 0 && waitpid(writers[0].pid, NULL, WNOHANG) == 0)
            break; /* it had fewer steps */
        deaths++;
        close(writers[0].tell);
        close(writers[0].hear);
        writers[0].pid = 0;
        start(0);
    }
    assert_true(deaths > 5);
}

/* Its own disk fails at each step. */
static void test_failing(void **state)
{
    struct cg_error err;
    int r = -1;

    (void)state;
    for (unsigned at = 1; r < 0; at++) {
        hook.fail_fsync = at;
        r = snapshot_all(pool.space, &err);
        bool failed = hook.fail_fsync == 0;
        hook.fail_fsync = 0;
        assert_true(failed || r == 0);
        write_on('B');
        pool_snapshot(pool.space, "volumes/p/a@other");
        pool_remove(pool.space, "volumes/p/a@other");
        assert_int_equal(count_there(), r < 0 ? 0 : ALL);
    }
}

static int await_steps(const char *volume, unsigned steps, char ret_socket[static 108],
                       struct cg_change *change)
{
    static const char *const step[] = { "prepared", "held" };
    struct cg_writer w;
    struct cg_error err;
    char path[128];
    int fd = -1;

    snprintf(path, sizeof path, "%s/p/%s", pool.dir, volume);
    CG_CLEANUP(cg_close) int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(cg_writer_read(dirfd, &w, &err), 0);
    strcpy(ret_socket, w.socket);
    cg_uuid(change->id);
    CG_CLEANUP(cg_json_cleanup) json_t *request = cg_change_request_encode(change);
    assert_int_equal(cg_control_begin(w.socket, request, 60000, &fd, &err), 0);
    for (unsigned i = 0; i < steps; i++) {
        if (i > 0)
            assert_int_equal(cg_control_go(fd), 0);
        assert_int_equal(cg_control_await(w.socket, fd, 60000, step[i], NULL, NULL, &err), 0);
    }
    return fd;
}

/* Who asks goes after a step, or hangs. */
static void test_silent(void **state)
{
    struct cg_change change = { .op = CG_CHANGE_MOMENT, .snapshot = "s" };
    struct cg_error err;
    char socket[108];
    int fd;

    (void)state;
    for (unsigned steps = 0; steps <= 2; steps++) {
        fd = await_steps("a", steps, socket, &change);
        close(fd);
        order(&writers[0], 'B');
        pool_snapshot(pool.space, all[0]); /* nothing is in the way */
        pool_remove(pool.space, all[0]);
    }
    fd = await_steps("a", 1, socket, &change); /* a write waits for nothing yet */
    order(&writers[0], 'C');
    close(fd);
    fd = await_steps("a", 2, socket, &change);
    order(&writers[0], 'D'); /* waits, but not for ever */
    cg_control_go(fd);       /* too late */
    assert_int_equal(cg_control_end(socket, fd, 60000, NULL, NULL, NULL, &err), -EAGAIN);
    close(fd);
    assert_false(is_there(all[0]));
    /* In time, if this process gets that. */
    int r;
    do {
        fd = await_steps("a", 2, socket, &change);
        cg_control_go(fd);
        r = cg_control_end(socket, fd, 60000, NULL, NULL, NULL, &err);
        close(fd);
    } while (r == -EAGAIN || r == -ECONNRESET);
    assert_int_equal(r, 0);
    expect_in(all[0], 'D');
}

/* In another process, as another change waits until a step is given up. */
static pid_t start_snapshot_a(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct cg_space *space = pool_second(&pool);
        pool_snapshot(space, all[0]);
        cg_space_free(space);
        _exit(0);
    }
    return pid;
}

/* Who asks hangs when one is prepared: it's given up, and other changes go on; unless he says that
 * he is there. */
static void test_kept(void **state)
{
    const struct timespec second = { .tv_sec = 1 };
    struct cg_change silent = { .op = CG_CHANGE_MOMENT, .snapshot = "s" }, kept = silent;
    char silent_socket[108], kept_socket[108];
    struct cg_error err;
    int r, status;

    (void)state;
    do {
        int kept_fd = await_steps("b", 1, kept_socket, &kept);
        int silent_fd = await_steps("a", 1, silent_socket, &silent);
        pid_t pid = start_snapshot_a();
        while (waitpid(pid, &status, WNOHANG) == 0) {
            cg_control_keep(kept_fd);
            nanosleep(&second, NULL);
        }
        assert_int_equal(status, 0);
        cg_control_go(silent_fd); /* too late */
        assert_int_equal(
            cg_control_await(silent_socket, silent_fd, 60000, "held", NULL, NULL, &err), -EAGAIN);
        assert_int_equal(cg_control_go(kept_fd), 0);
        r = cg_control_await(kept_socket, kept_fd, 60000, "held", NULL, NULL, &err);
        close(kept_fd);
        close(silent_fd);
        pool_remove(pool.space, all[0]);
    } while (r == -EAGAIN); /* this process was held up itself */
    assert_int_equal(r, 0);
    order(&writers[0], 'E');
    order(&writers[1], 'E');
}

static const char *const apart[] = { "volumes/p/0@s", "volumes/p/a@s" };

static void await_recv(pid_t pid)
{
    char path[64], line[64] = "", want[16];
    const struct timespec pause = { .tv_nsec = 10000000 };

    snprintf(path, sizeof path, "/proc/%ld/syscall", (long)pid);
    snprintf(want, sizeof want, "%d ", (int)SYS_recvfrom);
    for (unsigned i = 0; i < 1000 && strncmp(line, want, strlen(want)) != 0; i++) {
        FILE *f = fopen(path, "r");
        if (!f || !fgets(line, sizeof line, f)) /* can't be told here */
            i = 900;
        if (f)
            fclose(f);
        nanosleep(&pause, NULL);
    }
}

/* Somebody begins to write a volume of which there is to be a snapshot while another's writer takes
 * its time: he doesn't wait for that. */
static void test_slow(void **state)
{
    int status;

    (void)state;
    pool_create(pool.space, "volumes/p/0", SIZE);
    kill(writers[0].pid, SIGSTOP);
    pid_t pid = fork();
    if (pid == 0) {
        struct cg_space *space = pool_second(&pool);
        struct cg_name names[] = { pool_name(apart[0]), pool_name(apart[1]) };
        struct cg_error err;
        int r = cg_space_snapshot(space, names, 2, &err);
        if (r < 0)
            fprintf(stderr, "%s\n", err.message);
        cg_space_free(space);
        _exit(r < 0);
    }
    await_recv(pid);
    struct cg_image *image = pool_open(pool.space, "volumes/p/0", CG_OPEN_WRITE);
    put(image, 'x', 512, 0);
    /* It is still waited for, and in time. */
    kill(writers[0].pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    cg_image_unref(image);
    expect_in(apart[0], 'x');
    assert_true(is_there(apart[1]));
    pool_remove(pool.space, apart[0]);
    pool_remove(pool.space, "volumes/p/0");
}

/* How many layers it has, with those that are only prepared. */
static size_t count_maps(const char *volume)
{
    char pattern[128];
    glob_t found = { .gl_pathc = 0 };

    snprintf(pattern, sizeof pattern, "%s/p/%s/*.map", pool.dir, volume);
    glob(pattern, 0, NULL, &found);
    size_t count = found.gl_pathc;
    globfree(&found);
    return count;
}

static struct {
    struct cg_space *writer, *other;
    struct cg_image *image;
    pthread_t thread;
    size_t a; /* layers when nothing is prepared */
} meanwhile;

static void *snapshot_too(void *arg)
{
    struct cg_name names[] = { pool_name("volumes/p/0@too"), pool_name("volumes/p/a@too") };
    struct cg_error err;

    (void)arg;
    return cg_space_snapshot(meanwhile.other, names, 2, &err) < 0 ? strdup(err.message) : NULL;
}

/* When a is prepared, somebody begins to write the one that nobody wrote, and another who takes
 * snapshots of both has prepared that one. */
static void begin_to_write(void)
{
    const struct timespec pause = { .tv_nsec = 1000000 };

    if (count_maps("a") == meanwhile.a) {
        hook.act_at_flock = 1;
        return;
    }
    meanwhile.image = pool_open(meanwhile.writer, "volumes/p/0", CG_OPEN_WRITE);
    put(meanwhile.image, 'x', 512, 0);
    size_t maps = count_maps("0");
    assert_int_equal(pthread_create(&meanwhile.thread, NULL, snapshot_too, NULL), 0);
    while (count_maps("0") == maps)
        nanosleep(&pause, NULL);
}

/* Two who would wait for each other, each for the volume that the other has prepared. */
static void test_turned(void **state)
{
    struct cg_name names[] = { pool_name("volumes/p/0@s"), pool_name("volumes/p/a@s") };
    struct cg_error err;
    void *failed;

    (void)state;
    pool_create(pool.space, "volumes/p/0", SIZE);
    meanwhile.writer = pool_second(&pool);
    meanwhile.other = pool_second(&pool);
    meanwhile.a = count_maps("a");
    hook.act = begin_to_write;
    hook.act_at_flock = 1;
    if (cg_space_snapshot(pool.space, names, 2, &err) < 0)
        fail_msg("%s", err.message);
    assert_non_null(meanwhile.image);
    pthread_join(meanwhile.thread, &failed);
    if (failed)
        fail_msg("%s", (char *)failed);
    assert_true(is_there("volumes/p/0@s") && is_there("volumes/p/a@s"));
    assert_true(is_there("volumes/p/0@too") && is_there("volumes/p/a@too"));
    cg_image_unref(meanwhile.image);
    cg_space_free(meanwhile.writer);
    cg_space_free(meanwhile.other);
}

/* Several at once wait for each other. */
static void test_many(void **state)
{
    pid_t pids[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct cg_space *space = pool_second(&pool);
            for (unsigned n = 0; n < 5; n++) {
                struct cg_name names[ALL];
                struct cg_error err;
                char text[64];
                for (unsigned j = 0; j < ALL; j++) {
                    snprintf(text, sizeof text, "%s-%u-%u", all[(i + j) % ALL], i, n);
                    names[j] = pool_name(text);
                }
                if (cg_space_snapshot(space, names, ALL, &err) < 0) {
                    fprintf(stderr, "%s\n", err.message);
                    _exit(1);
                }
            }
            _exit(0);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_true(is_there("volumes/p/a@s-3-4") && is_there(V "@s-0-4"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_all),     TEST(test_own),    TEST(test_asker_killed), TEST(test_writer_killed),
        TEST(test_failing), TEST(test_silent), TEST(test_kept),         TEST(test_slow),
        TEST(test_turned),  TEST(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
