#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/bytes.h"
#include "core/base/files.h"
#include "tests/unit/backup-lab.h"
#include "tests/unit/cmocka-all.h"

void lab_begin(struct lab *lab)
{
    struct cg_error err;

    memset(lab, 0, sizeof *lab);
    strcpy(lab->dir, "/tmp/cowgate-lab-XXXXXX");
    assert_non_null(mkdtemp(lab->dir));
    lab->fake = fake_space_new(&lab->faults);
    lab->space = fake_space_open(lab->fake);
    assert_int_equal(cg_repository_create(lab->dir, &err), 0);
    lab_reopen(lab);
}

int lab_setup_empty(void **state)
{
    struct lab *lab = malloc(sizeof *lab);

    lab_begin(lab);
    *state = lab;
    return 0;
}

int lab_setup(void **state)
{
    lab_setup_empty(state);
    struct lab *lab = *state;
    fake_space_add(lab->fake, "web", 3 * GIB);
    fake_space_add(lab->fake, "db", 3 * GIB);
    lab_write(lab, "web", 64 << 10, 8 * MIB, 1);
    lab_write(lab, "web", 64 << 10, 2100 * MIB, 2);
    lab_write(lab, "db", 64 << 10, 8 * MIB, 1);
    return 0;
}

int lab_teardown(void **state)
{
    lab_end(*state);
    free(*state);
    return 0;
}

void lab_sh(struct lab *lab, const char *command)
{
    char text[1024];

    snprintf(text, sizeof text, "cd %s/acme && %s", lab->dir, command);
    assert_int_equal(system(text), 0);
}

void lab_reopen(struct lab *lab)
{
    struct cg_error err;

    cg_repository_close(lab->repo);
    if (cg_repository_open(lab->dir, 0, &lab->repo, &err) < 0)
        fail_msg("%s", err.message);
}

void lab_end(struct lab *lab)
{
    struct cg_error err;

    cg_repository_close(lab->repo);
    cg_space_free(lab->space);
    fake_space_free(lab->fake);
    assert_int_equal(cg_tree_remove(AT_FDCWD, lab->dir, &err), 0);
}

void lab_write(struct lab *lab, const char *name, uint64_t size, uint64_t off, uint32_t seed)
{
    uint32_t *buf = malloc(size);
    uint32_t x = seed * 2654435761u + 1;

    assert_non_null(buf);
    for (uint64_t i = 0; i < size / 4; i++) {
        x ^= x << 13; /* xorshift32, Marsaglia */
        x ^= x >> 17;
        x ^= x << 5;
        buf[i] = x;
    }
    fake_space_write(lab->fake, name, buf, size, off);
    free(buf);
}

int lab_try_backup(struct lab *lab, const char *name, const char *project, const char *volume,
                   struct cg_backup_result *ret, struct cg_error *err)
{
    struct cg_backup_options o = {
        .space = lab->space,
        .source = { .space = CG_NAME_VOLUMES, .parts = 2, .part = { "acme" } },
        .source_text = name,
        .project = project,
        .volume = volume,
        .audit = lab->audit,
    };
    snprintf(o.source.part[1], sizeof o.source.part[1], "%s", name);
    return cg_backup(lab->repo, &o, ret, err);
}

void lab_backup(struct lab *lab, const char *name, const char *project, const char *volume,
                struct cg_backup_result *ret)
{
    struct cg_error err;

    if (lab_try_backup(lab, name, project, volume, ret, &err) < 0)
        fail_msg("%s", err.message);
    assert_string_equal(ret->warning, "");
}

struct cg_image *lab_open(struct lab *lab, const char *name)
{
    struct cg_name n;
    struct cg_error err;
    struct cg_image *image;
    struct cg_space *backups;

    assert_int_equal(cg_name_parse(name, &n, &err), 0);
    assert_int_equal(cg_backups_space(lab->repo, &backups, &err), 0);
    struct cg_space *space = n.space == CG_NAME_VOLUMES ? lab->space : backups;
    if (cg_space_open(space, &n, CG_OPEN_READ, &image, &err) < 0)
        fail_msg("%s: %s", name, err.message);
    cg_space_free(backups);
    return image;
}

struct comparison {
    struct cg_image *other;
    uint8_t *a, *b;
    struct cg_image *self;
};

static int compare(void *opaque, const struct cg_extent *e, struct cg_error *err)
{
    struct comparison *c = opaque;

    for (uint64_t off = e->off; off < e->off + e->len; off += 4 * MIB) {
        size_t n = (size_t)cg_min(4 * MIB, e->off + e->len - off);
        if (e->type == CG_DATA && cg_image_pread(c->self, c->a, n, off, err) < 0)
            fail_msg("%s", err->message);
        if (e->type != CG_DATA)
            memset(c->a, 0, n);
        if (cg_image_pread(c->other, c->b, n, off, err) < 0)
            fail_msg("%s", err->message);
        assert_memory_equal(c->a, c->b, n);
        if (e->type != CG_DATA)
            break; /* the other's data is compared the other way round */
    }
    return 0;
}

void lab_same(struct cg_image *a, struct cg_image *b)
{
    struct comparison c = { .a = malloc(4 * MIB), .b = malloc(4 * MIB) };
    struct cg_error err;

    assert_true(cg_image_size(a) == cg_image_size(b));
    for (int i = 0; i < 2; i++) {
        c.self = i ? b : a;
        c.other = i ? a : b;
        if (cg_image_walk(c.self, 0, cg_image_size(a), compare, &c, &err) != 0)
            fail_msg("%s", err.message);
    }
    free(c.a);
    free(c.b);
}

void lab_same_point(struct lab *lab, const char *point, const char *volume)
{
    char name[CG_NAME_MAX];

    snprintf(name, sizeof name, "volumes/acme/%s", volume);
    struct cg_image *a = lab_open(lab, point), *b = lab_open(lab, name);
    lab_same(a, b);
    cg_image_unref(a);
    cg_image_unref(b);
}

struct text {
    char *text;
    size_t size;
};

static void note(void *opaque, const char *object, const char *why)
{
    struct text *t = opaque;

    assert_true(why[0] != '\0');
    if (t->text)
        snprintf(t->text + strlen(t->text), t->size - strlen(t->text), "%s\n", object);
}

uint64_t lab_verify(struct lab *lab, const char *prefix, char *text, size_t size)
{
    struct cg_name n;
    struct cg_error err;
    struct cg_verify_result res;
    struct text t = { text, size };

    if (text)
        text[0] = '\0';
    assert_int_equal(cg_name_parse_prefix(prefix, &n, &err), 0);
    if (cg_verify(lab->repo, &n, NULL, note, &t, &res, &err) < 0)
        fail_msg("%s", err.message);
    return res.damaged;
}

static int count_point(void *opaque, const char *name, struct cg_error *err)
{
    (void)name;
    (void)err;
    ++*(unsigned *)opaque;
    return 0;
}

unsigned lab_points(struct lab *lab, const char *project, const char *volume)
{
    struct cg_project *p;
    struct cg_error err;
    unsigned n = 0;

    int r = cg_repository_project(lab->repo, project, false, &p, &err);
    if (r == 0)
        r = cg_project_points(p, volume, count_point, &n, &err);
    if (r < 0 && r != -ENOENT)
        fail_msg("%s", err.message);
    return n;
}

static struct {
    char path[4096][256];
    unsigned count;
    size_t top;
} walk;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_F) {
        assert_true(walk.count < 4096);
        snprintf(walk.path[walk.count++], sizeof walk.path[0], "%s", path + walk.top);
    }
    return 0;
}

void lab_files(struct lab *lab, const char *under, void (*fn)(void *opaque, const char *path),
               void *opaque)
{
    char path[512];

    walk.count = 0;
    walk.top = strlen(lab->dir) + 1;
    snprintf(path, sizeof path, "%s/%s", lab->dir, under);
    nftw(path, visit, 16, FTW_PHYS);
    /* fn may walk too. */
    unsigned count = walk.count;
    char(*paths)[256] = malloc(sizeof walk.path[0] * (count + 1));
    memcpy(paths, walk.path, sizeof walk.path[0] * count);
    for (unsigned i = 0; i < count; i++)
        fn(opaque, paths[i]);
    free(paths);
}

static void count_file(void *opaque, const char *path)
{
    (void)path;
    ++*(unsigned *)opaque;
}

unsigned lab_count(struct lab *lab, const char *under)
{
    unsigned n = 0;

    lab_files(lab, under, count_file, &n);
    return n;
}

void lab_flip(struct lab *lab, const char *path, int64_t at)
{
    char name[512];
    struct stat st;
    uint8_t byte;

    snprintf(name, sizeof name, "%s/%s", lab->dir, path);
    int fd = open(name, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    if (at < 0)
        at += st.st_size;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}
