/* Random operations on volumes and their clones by several processes (spaces over one pool are to
 * each other like processes), while others merge and flatten, or are killed at it; compared with
 * plain memory.
 *
 * Run with a seed and a number of rounds to look for more: test-volumes-together SEED ROUNDS. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/bytes.h"
#include "core/volumes/index.h"
#include "tests/unit/volumes-faults.h"
#include "tests/unit/cmocka-all.h"

/* A window of the map ends 128 KiB later. */
#define BASE (UINT64_C(64) * 1024 * 1024 - 128 * 1024)
#define LENGTH (256u * 1024 + 1536)
#define SPACES 3
#define VOLUMES 4
#define SNAPSHOTS 3

static unsigned seed = 1, rounds = 500, random_state;

struct volume {
    char name[64]; /* "" for none */
    uint8_t now[LENGTH];
    struct cg_image *writer;
    unsigned writer_space;
    struct cg_image *reader[SPACES]; /* of the head */
    uint8_t seen[SPACES][LENGTH];
    bool has[SNAPSHOTS];
    uint8_t snapshot[SNAPSHOTS][LENGTH];
    struct cg_image *kept[SNAPSHOTS]; /* an open snapshot, that may be deleted already */
    uint8_t kept_bytes[SNAPSHOTS][LENGTH];
};

/* What is done meanwhile. */
struct meanwhile {
    pthread_t thread;
    bool runs;
    struct cg_space *space;
    struct cg_name name;
    bool flatten;
};

static struct cg_space *spaces[SPACES + 1]; /* the last for what is done meanwhile */
static struct volume volumes[VOLUMES];
static struct meanwhile meanwhile[2];
static unsigned names;
static const char *op_name;
static unsigned op_count;

static unsigned next(unsigned below)
{
    random_state = random_state * 1103515245 + 12345;
    return (random_state >> 8) % below;
}

static void fine(int r, const struct cg_error *err)
{
    if (r < 0)
        fail_msg("%s: %d, %s (seed %u, op %u)", op_name, r, err->message, seed, op_count);
}

static void same(const char *what, const struct volume *v, struct cg_image *image,
                 const uint8_t *want)
{
    static uint8_t have[LENGTH];
    struct cg_error err;

    fine(cg_image_pread(image, have, LENGTH, BASE, &err), &err);
    for (size_t i = 0; i < LENGTH; i++)
        if (have[i] != want[i])
            fail_msg("%s of %s: byte %zu is %02x, not %02x (seed %u, op %u %s)", what, v->name, i,
                     have[i], want[i], seed, op_count, op_name);
}

static struct cg_image *open_in(unsigned space, const char *text, unsigned flags)
{
    struct cg_name name = pool_name(text);
    struct cg_image *image;
    struct cg_error err;

    fine(cg_space_open(spaces[space], &name, flags, &image, &err), &err);
    return image;
}

static const char *snapshot_name(const struct volume *v, unsigned i)
{
    static char name[80];

    snprintf(name, sizeof name, "%.60s@s%u", v->name, i);
    return name;
}

static void *meanwhile_main(void *arg)
{
    struct meanwhile *m = arg;
    struct cg_error err;
    int r = m->flatten ? cg_space_flatten(m->space, &m->name, 0, NULL, NULL, &err)
                       : cg_space_reclaim(m->space, &m->name, NULL, NULL, &err);

    if (r < 0 && r != -ENOENT)
        return strdup(err.message);
    return NULL;
}

static void end_meanwhile(struct meanwhile *m)
{
    void *result;

    if (!m->runs)
        return;
    pthread_join(m->thread, &result);
    m->runs = false;
    if (result)
        fail_msg("meanwhile: %s (seed %u)", (char *)result, seed);
}

static void begin_meanwhile(const struct volume *v, bool flatten)
{
    struct meanwhile *m = &meanwhile[flatten];

    end_meanwhile(m);
    m->space = spaces[SPACES];
    m->name = pool_name(v->name);
    m->flatten = flatten;
    m->runs = true;
    pthread_create(&m->thread, NULL, meanwhile_main, m);
}

static void op_reclaim(struct volume *v)
{
    begin_meanwhile(v, false);
    if (next(2))
        end_meanwhile(&meanwhile[0]);
}

static void op_flatten(struct volume *v)
{
    if (next(8) == 0)
        begin_meanwhile(v, true);
}

/* In a space where nobody reads an earlier moment. */
static void open_writer(struct volume *v)
{
    unsigned s = next(SPACES);

    while (v->reader[s]) {
        cg_image_unref(v->reader[s]);
        v->reader[s] = NULL;
    }
    v->writer = open_in(s, v->name, CG_OPEN_WRITE);
    v->writer_space = s;
}

static void close_writer(struct volume *v)
{
    cg_image_unref(v->writer);
    v->writer = NULL;
}

static void op_write(struct volume *v)
{
    static uint8_t buf[LENGTH];
    static const unsigned lengths[] = { 1, 512, 4096, 5000, 12288, 70000 };
    struct cg_error err;
    size_t off = next(LENGTH), len = lengths[next(6)];

    if (!v->writer)
        open_writer(v);
    for (unsigned n = next(4); n > 0; n--, off = next(LENGTH)) {
        if (next(2))
            off -= off % 4096;
        if (len > LENGTH - off)
            len = LENGTH - off;
        if (next(4) == 0) {
            memset(v->now + off, 0, len);
            fine(cg_image_zero(v->writer, len, BASE + off, CG_MAY_TRIM, &err), &err);
            continue;
        }
        for (size_t i = 0; i < len; i++)
            buf[i] = (uint8_t)next(256);
        memcpy(v->now + off, buf, len);
        fine(cg_image_pwrite(v->writer, buf, len, BASE + off, next(8) ? 0 : CG_FUA, &err), &err);
    }
    if (next(4) == 0)
        same("now", v, v->writer, v->now);
}

static void op_end(struct volume *v)
{
    if (v->writer)
        close_writer(v);
}

static void op_read(struct volume *v)
{
    unsigned s = next(SPACES);

    if (v->writer && v->writer_space == s) {
        same("the writer's", v, v->writer, v->now);
    } else if (v->reader[s]) {
        same("a reader's", v, v->reader[s], v->seen[s]);
        if (next(2)) {
            cg_image_unref(v->reader[s]);
            v->reader[s] = NULL;
        }
    } else {
        v->reader[s] = open_in(s, v->name, CG_OPEN_READ);
        memcpy(v->seen[s], v->now, LENGTH);
        same("a new reader's", v, v->reader[s], v->seen[s]);
    }
}

static void op_look(struct volume *v)
{
    unsigned i = next(SNAPSHOTS);

    if (v->kept[i]) {
        same("a snapshot", v, v->kept[i], v->kept_bytes[i]);
        cg_image_unref(v->kept[i]);
        v->kept[i] = NULL;
    } else if (v->has[i]) {
        v->kept[i] = open_in(next(SPACES), snapshot_name(v, i), CG_OPEN_READ);
        memcpy(v->kept_bytes[i], v->snapshot[i], LENGTH);
        same("a snapshot", v, v->kept[i], v->kept_bytes[i]);
    }
}

static void op_snapshot(struct volume *v)
{
    unsigned i = next(SNAPSHOTS);
    struct cg_name name = pool_name(snapshot_name(v, i));
    struct cg_error err;

    if (v->has[i]) {
        fine(cg_space_remove(spaces[next(SPACES)], &name, 0, &err), &err);
        if (next(2))
            begin_meanwhile(v, false);
    } else {
        fine(cg_space_snapshot(spaces[next(SPACES)], &name, 1, &err), &err);
        memcpy(v->snapshot[i], v->now, LENGTH);
    }
    v->has[i] = !v->has[i];
}

/* Of all that have none of this number. */
static void op_moment(struct volume *v)
{
    struct cg_name name[VOLUMES];
    struct cg_error err;
    unsigned i = next(SNAPSHOTS);
    size_t count = 0;

    (void)v;
    for (unsigned k = 0; k < VOLUMES; k++)
        if (*volumes[k].name && !volumes[k].has[i])
            name[count++] = pool_name(snapshot_name(&volumes[k], i));
    if (!count)
        return;
    fine(cg_space_snapshot(spaces[next(SPACES)], name, count, &err), &err);
    for (unsigned k = 0; k < VOLUMES; k++) {
        if (*volumes[k].name && !volumes[k].has[i]) {
            volumes[k].has[i] = true;
            memcpy(volumes[k].snapshot[i], volumes[k].now, LENGTH);
        }
    }
}

static void op_rollback(struct volume *v)
{
    unsigned i = next(SNAPSHOTS);
    struct cg_error err;

    if (!v->has[i])
        return;
    if (v->writer)
        close_writer(v);
    end_meanwhile(&meanwhile[0]);
    end_meanwhile(&meanwhile[1]);
    struct cg_name name = pool_name(snapshot_name(v, i));
    int r = cg_space_rollback(spaces[next(SPACES)], &name, &err);
    fine(r, &err);
    memcpy(v->now, v->snapshot[i], LENGTH);
}

static void op_clone(struct volume *v)
{
    struct volume *to = &volumes[next(VOLUMES)];
    unsigned i = next(2 * SNAPSHOTS);
    bool snapshot = i < SNAPSHOTS && v->has[i];
    struct cg_error err;
    char name[64];

    if (*to->name)
        return;
    snprintf(name, sizeof name, "volumes/p/v%u", ++names);
    struct cg_name n = pool_name(name);
    fine(cg_space_clone(spaces[next(SPACES)], snapshot ? snapshot_name(v, i) : v->name, &n, &err),
         &err);
    strcpy(to->name, name);
    memcpy(to->now, snapshot ? v->snapshot[i] : v->now, LENGTH);
}

static void forget(struct volume *v)
{
    if (v->writer)
        close_writer(v);
    for (unsigned i = 0; i < SPACES; i++) {
        cg_image_unref(v->reader[i]);
        v->reader[i] = NULL;
    }
    for (unsigned i = 0; i < SNAPSHOTS; i++) {
        cg_image_unref(v->kept[i]);
        v->kept[i] = NULL;
    }
}

static unsigned count_volumes(void)
{
    unsigned count = 0;

    for (unsigned k = 0; k < VOLUMES; k++)
        count += *volumes[k].name != 0;
    return count;
}

static void op_delete(struct volume *v)
{
    struct cg_error err;

    if (count_volumes() < 2 || next(3))
        return;
    end_meanwhile(&meanwhile[0]);
    end_meanwhile(&meanwhile[1]);
    forget(v);
    struct cg_name name = pool_name(v->name);
    fine(cg_space_remove(spaces[next(SPACES)], &name, CG_REMOVE_SNAPSHOTS, &err), &err);
    v->name[0] = '\0';
    memset(v->has, 0, sizeof v->has);
}

#define KILLED_WRITES 6

/* What a process that is killed is to do. */
static struct {
    const struct volume *v;
    unsigned snapshot;
    size_t off[KILLED_WRITES], len[KILLED_WRITES];
    uint8_t bytes[KILLED_WRITES][16384];
    _Atomic unsigned *acknowledged; /* shared with it */
} killed;

static void reclaim_killed(struct cg_space *space)
{
    struct cg_name name = pool_name(killed.v->name);

    cg_space_reclaim(space, &name, NULL, NULL, NULL);
}

static void flatten_killed(struct cg_space *space)
{
    struct cg_name name = pool_name(killed.v->name);

    cg_space_flatten(space, &name, 0, NULL, NULL, NULL);
}

static void snapshot_killed(struct cg_space *space)
{
    struct cg_name name = pool_name(snapshot_name(killed.v, killed.snapshot));

    if (killed.v->has[killed.snapshot])
        cg_space_remove(space, &name, 0, NULL);
    else
        cg_space_snapshot(space, &name, 1, NULL);
}

static void write_killed(struct cg_space *space)
{
    struct cg_name name = pool_name(killed.v->name);
    struct cg_image *image;

    if (cg_space_open(space, &name, CG_OPEN_WRITE, &image, NULL) < 0)
        return;
    for (unsigned i = 0; i < KILLED_WRITES; i++) {
        if (cg_image_pwrite(image, killed.bytes[i], killed.len[i], BASE + killed.off[i],
                            i % 3 ? 0 : CG_FUA, NULL) < 0)
            return;
        ++*killed.acknowledged;
    }
    cg_image_unref(image);
}

/* What was acknowledged is there; of what came next each byte may be. */
static void check_killed_writes(struct volume *v)
{
    static uint8_t have[LENGTH], maybe[LENGTH];
    unsigned n = *killed.acknowledged;
    struct cg_error err;

    for (unsigned i = 0; i < n; i++)
        memcpy(v->now + killed.off[i], killed.bytes[i], killed.len[i]);
    memcpy(maybe, v->now, LENGTH);
    if (n < KILLED_WRITES)
        memcpy(maybe + killed.off[n], killed.bytes[n], killed.len[n]);
    struct cg_image *image = open_in(SPACES, v->name, CG_OPEN_READ);
    fine(cg_image_pread(image, have, LENGTH, BASE, &err), &err);
    cg_image_unref(image);
    for (size_t i = 0; i < LENGTH; i++)
        if (have[i] != v->now[i] && have[i] != maybe[i])
            fail_msg("%s, written by who was killed: byte %zu is %02x, not %02x or %02x (seed %u)",
                     v->name, i, have[i], v->now[i], maybe[i], seed);
    memcpy(v->now, have, LENGTH);
}

static void op_killed(struct volume *v)
{
    unsigned what = next(5), at = 1 + next(next(2) ? 20 : 80);

#ifdef __SANITIZE_THREAD__
    return; /* it can't fork beside threads */
#endif
    end_meanwhile(&meanwhile[0]);
    end_meanwhile(&meanwhile[1]);
    killed.v = v;
    if (what == 0) {
        in_killed_process_at(at, flatten_killed);
    } else if (what == 1) {
        struct cg_identity id;
        unsigned i = killed.snapshot = next(SNAPSHOTS);
        struct cg_name name = pool_name(snapshot_name(v, i));
        in_killed_process_at(at, snapshot_killed);
        if (!v->has[i])
            memcpy(v->snapshot[i], v->now, LENGTH);
        v->has[i] = cg_space_identify(spaces[SPACES], &name, &id, NULL) == 0;
    } else if (what == 2) {
        if (v->writer)
            close_writer(v);
        *killed.acknowledged = 0;
        for (unsigned i = 0; i < KILLED_WRITES; i++) {
            killed.off[i] = next(LENGTH - 16384);
            killed.len[i] = 1 + next(16384);
            for (size_t k = 0; k < killed.len[i]; k++)
                killed.bytes[i][k] = (uint8_t)next(256);
        }
        in_killed_process_at(at, write_killed);
        check_killed_writes(v);
    } else {
        in_killed_process_at(at, reclaim_killed);
    }
}

static const struct {
    const char *name;
    void (*fn)(struct volume *v);
} ops[] = { { "write", op_write },       { "write", op_write },       { "write", op_write },
            { "write", op_write },       { "end", op_end },           { "read", op_read },
            { "read", op_read },         { "read", op_read },         { "look", op_look },
            { "look", op_look },         { "snapshot", op_snapshot }, { "snapshot", op_snapshot },
            { "snapshot", op_snapshot }, { "moment", op_moment },     { "rollback", op_rollback },
            { "clone", op_clone },       { "delete", op_delete },     { "reclaim", op_reclaim },
            { "reclaim", op_reclaim },   { "flatten", op_flatten },   { "killed", op_killed },
            { "killed", op_killed } };

static void check_all(void)
{
    for (unsigned k = 0; k < VOLUMES; k++) {
        struct volume *v = &volumes[k];
        if (!*v->name)
            continue;
        forget(v);
        struct cg_image *image = open_in(0, v->name, CG_OPEN_READ);
        same("at last", v, image, v->now);
        cg_image_unref(image);
        for (unsigned i = 0; i < SNAPSHOTS; i++) {
            if (!v->has[i])
                continue;
            image = open_in(0, snapshot_name(v, i), CG_OPEN_READ);
            same("at last a snapshot", v, image, v->snapshot[i]);
            cg_image_unref(image);
        }
    }
}

static void run(const uint8_t *parent)
{
    memset(volumes, 0, sizeof volumes);
    random_state = seed;
    memset(&hook, 0, sizeof hook);
    pool_before_holds(NULL);
    pool_setup(&pool);
    killed.acknowledged = mmap(NULL, sizeof *killed.acknowledged, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(killed.acknowledged, MAP_FAILED);
    spaces[0] = pool.space;
    for (unsigned i = 1; i <= SPACES; i++)
        spaces[i] = pool_second(&pool);
    strcpy(volumes[0].name, "volumes/p/v0");
    if (parent) {
        pool_set_parent(parent, BASE + LENGTH);
        pool_clone(pool.space, POOL_PARENT, volumes[0].name);
        memcpy(volumes[0].now, parent + BASE, LENGTH);
    } else {
        pool_create(pool.space, volumes[0].name, BASE + LENGTH);
    }
    for (op_count = 0; op_count < rounds; op_count++) {
        unsigned k = next(VOLUMES), o = next(sizeof ops / sizeof *ops);
        if (!*volumes[k].name)
            continue;
        op_name = ops[o].name;
        ops[o].fn(&volumes[k]);
    }
    end_meanwhile(&meanwhile[0]);
    end_meanwhile(&meanwhile[1]);
    op_name = "the end";
    check_all();
    for (unsigned i = 1; i <= SPACES; i++)
        cg_space_free(spaces[i]);
    pool_teardown(&pool);
    munmap((void *)killed.acknowledged, sizeof *killed.acknowledged);
}

static void test_together(void **state)
{
    (void)state;
    run(NULL);
}

static void test_together_clone(void **state)
{
    uint8_t *parent = calloc(1, BASE + LENGTH);

    (void)state;
    for (size_t i = 0; i < LENGTH; i++) /* some blocks zero */
        parent[BASE + i] = i / 8192 % 3 ? (uint8_t)(i * 7 + i / 4096) : 0;
    run(parent);
    free(parent);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_together_clone),
    };

    if (getenv("RUN_VALGRIND") && *getenv("RUN_VALGRIND"))
        rounds /= 5;
    if (argc > 2) {
        seed = (unsigned)atoi(argv[1]);
        rounds = (unsigned)atoi(argv[2]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
