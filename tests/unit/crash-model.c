#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/size.h"
#include "tests/unit/crash-model.h"
#include "tests/unit/cmocka-all.h"

const char *const crash_image[IMAGES] = { "volumes/p/v@s1", "volumes/p/v@s2", "volumes/p/c",
                                          "volumes/q/d" };

struct moment crash_history[STEPS_MAX + 1];
static unsigned step_count;
char crash_what[64];

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(((i + seed * 977) * 2654435761u) >> 13);
}

/* What the volume is a clone of. */
static uint8_t parent[SIZE];

/* What a volume holds that the volume may be a clone of: the parent with some of it written. */
#define BASE "volumes/p/base"
#define BASE_WRITTEN 20000
#define BASE_SEED 1000
static bool with_base;

static int create_base(struct cg_space *space, struct cg_error *err)
{
    static uint8_t buf[BASE_WRITTEN];
    struct cg_name base = pool_name(BASE);
    struct cg_image *image;
    int r = cg_space_clone(space, POOL_PARENT, &base, err);

    if (r == 0 || r == -EEXIST)
        r = cg_space_open(space, &base, CG_OPEN_WRITE, &image, err);
    if (r < 0)
        return r;
    fill(buf, sizeof buf, BASE_SEED);
    r = cg_image_pwrite(image, buf, sizeof buf, BASE_WRITTEN, 0, err);
    cg_image_unref(image);
    return r;
}

/* Whatever becomes of its clone. */
static void check_base(struct cg_space *space)
{
    struct cg_image *image = pool_open(space, BASE, CG_OPEN_READ);

    pool_same(image, crash_history[1].bytes, crash_history[1].size);
    cg_image_unref(image);
}

/* What a step makes of the model. */
static void apply(struct moment *m, const struct step *s, unsigned i)
{
    uint64_t first, end;

    switch (s->op) {
    case CREATE:
        memcpy(m->bytes, parent, SIZE);
        if (s->off)
            fill(m->bytes + BASE_WRITTEN, BASE_WRITTEN, BASE_SEED);
        m->size = SIZE;
        m->flushed = i + 1;
        break;
    case WRITE:
    case FUA:
        fill(m->bytes + s->off, s->len, i);
        break;
    case ZERO:
        memset(m->bytes + s->off, 0, s->len);
        break;
    case TRIM:
        first = cg_round_up(s->off, 4096);
        end = s->off + s->len == m->size ? m->size : cg_round_down(s->off + s->len, 4096);
        memset(m->bytes + first, 0, end - first);
        break;
    case SNAPSHOT:
        m->value[s->off] = i + 1;
        break;
    case CLONE:
        m->value[s->off] = s->len ? m->value[s->len - 1] : i + 1;
        break;
    case UNSNAPSHOT:
    case REMOVE:
    case DELETE:
        m->value[s->off] = 0;
        break;
    case ROLLBACK:
        memcpy(m->bytes, crash_history[m->value[s->off]].bytes, sizeof m->bytes);
        m->size = crash_history[m->value[s->off]].size;
        break;
    case RESIZE:
        m->size = s->off;
        break;
    case FLUSH:
    case CLOSE:
    case FLATTEN:
    case RECLAIM:
        break;
    }
    if (s->op == FLUSH || s->op == FUA || s->op == CLOSE || s->op == SNAPSHOT || s->op == RESIZE ||
        s->op == ROLLBACK || (s->op == CLONE && !s->len))
        m->flushed = i + 1;
}

void crash_plan(const struct step *steps, unsigned count)
{
    for (unsigned i = 0; i < SIZE; i++) /* every fourth block is zero */
        parent[i] = i / 4096 % 4 ? (uint8_t)(i * 31 + i / 4096) : 0;
    pool_set_parent(parent, SIZE);
    memset(crash_history, 0, sizeof crash_history);
    step_count = count;
    with_base = steps[0].off;
    for (unsigned i = 0; i < step_count; i++) {
        crash_history[i + 1] = crash_history[i];
        apply(&crash_history[i + 1], &steps[i], i);
    }
}

int crash_perform(struct cg_space *space, struct cg_image **image, const struct step *s, unsigned i,
                  struct cg_error *err)
{
    static uint8_t buf[GROWN];
    struct cg_name v = pool_name("volumes/p/v");
    struct cg_name other = v;
    int r;

    if (s->op == SNAPSHOT || s->op == UNSNAPSHOT || s->op == CLONE || s->op == REMOVE ||
        s->op == DELETE || s->op == ROLLBACK)
        other = pool_name(crash_image[s->off]);
    fill(buf, s->op == WRITE || s->op == FUA ? s->len : 0, i);
    switch (s->op) {
    case CREATE:
        r = s->off ? create_base(space, err) : 0;
        return r < 0 ? r : cg_space_clone(space, s->off ? BASE : POOL_PARENT, &v, err);
    case SNAPSHOT:
        return cg_space_snapshot(space, &other, 1, err);
    case CLONE:
        return cg_space_clone(space, s->len ? crash_image[s->len - 1] : "volumes/p/v", &other, err);
    case UNSNAPSHOT:
    case REMOVE:
        return cg_space_remove(space, &other, 0, err);
    case RESIZE:
        return cg_space_resize(space, &v, s->off, err);
    case FLATTEN:
        return cg_space_flatten(space, &v, 0, NULL, NULL, err);
    case DELETE:
        r = cg_space_remove(space, &other, 0, err);
        return r < 0 ? r : cg_space_reclaim(space, &v, NULL, NULL, err);
    case ROLLBACK: /* with nobody having it open */
        cg_image_unref(*image);
        *image = NULL;
        return cg_space_rollback(space, &other, err);
    case RECLAIM:
        return cg_space_reclaim(space, &v, NULL, NULL, err);
    case CLOSE:
        cg_image_unref(*image);
        *image = NULL;
        return 0;
    default:
        break;
    }
    if (!*image) {
        r = cg_space_open(space, &v, CG_OPEN_WRITE, image, err);
        if (r < 0)
            return r;
    }
    switch (s->op) {
    case WRITE:
    case FUA:
        return cg_image_pwrite(*image, buf, s->len, s->off, s->op == FUA ? CG_FUA : 0, err);
    case ZERO:
        return cg_image_zero(*image, s->len, s->off, 0, err);
    case TRIM:
        return cg_image_trim(*image, s->len, s->off, 0, err);
    default:
        return cg_image_flush(*image, err);
    }
}

/* The sectors of have are each as in one of the moments [from, to]. */
static void check_sectors(const uint8_t *have, uint64_t size, unsigned from, unsigned to,
                          const char *where)
{
    for (uint64_t at = 0; at < size; at += SECTOR) {
        size_t n = cg_min(SECTOR, size - at);
        unsigned k = from;
        while (k <= to && memcmp(have + at, crash_history[k].bytes + at, n) != 0)
            k++;
        if (k > to)
            fail_msg("%s: the sector at %llu is none of those of moments %u to %u", where,
                     (unsigned long long)at, from, to);
    }
}

static int open_any(struct cg_space *space, const char *text, struct cg_image **ret,
                    struct cg_error *err)
{
    struct cg_name name = pool_name(text);

    return cg_space_open(space, &name, CG_OPEN_WRITE, ret, err);
}

/* flushed: the last step that made all before it durable. */
static void check_head(struct cg_space *space, unsigned done, unsigned flushed, const char *where)
{
    static uint8_t have[GROWN];
    unsigned under_way = done < step_count ? done + 1 : done;
    struct cg_image *image;
    struct cg_error err;
    int r = open_any(space, "volumes/p/v", &image, &err);

    if (r == -ENOENT && crash_history[done].size == 0)
        return;
    if (r < 0)
        fail_msg("%s: %s", where, err.message);
    uint64_t size = cg_image_size(image);
    if (size != crash_history[done].size && size != crash_history[under_way].size)
        fail_msg("%s: it has %llu bytes", where, (unsigned long long)size);
    if (cg_image_pread(image, have, size, 0, &err) < 0)
        fail_msg("%s: %s", where, err.message);
    check_sectors(have, size, flushed, under_way, where);
    /* It takes writes. */
    if (cg_image_pwrite(image, "x", 1, 5, CG_FUA, &err) < 0)
        fail_msg("%s: %s", where, err.message);
    have[5] = 'x';
    pool_same(image, have, size);
    cg_image_unref(image);
}

void crash_check_image(struct cg_space *space, unsigned which, unsigned done, const char *where)
{
    unsigned under_way = done < step_count ? done + 1 : done;
    uint64_t was = crash_history[done].value[which], will = crash_history[under_way].value[which];
    uint64_t moment = was ? was : will;
    struct cg_image *image;
    struct cg_error err;
    int r = open_any(space, crash_image[which], &image, &err);

    if (r == -ENOENT && (!was || !will))
        return;
    if (r < 0)
        fail_msg("%s: %s: %s", where, crash_image[which], err.message);
    if (!moment)
        fail_msg("%s: there is a %s", where, crash_image[which]);
    pool_same(image, crash_history[moment].bytes, crash_history[moment].size);
    cg_image_unref(image);
}

void crash_replay(size_t cut, enum recorder_loss loss, unsigned seed, unsigned bad_close)
{
    struct pool pool;
    char where[200];

    pool_setup(&pool);
    cg_space_free(pool.space);
    pool_move_to_tmpfs(&pool);
    unsigned done = recorder_replay(pool.dir, cut, loss, seed);
    snprintf(where, sizeof where, "%s cut at %zu, loss %d, seed %u, after step %u", crash_what, cut,
             (int)loss, seed, done);
    pool_reboot(&pool);
    pool.space = pool_second(&pool);
    for (unsigned i = 0; i < IMAGES; i++)
        crash_check_image(pool.space, i, done, where);
    unsigned flushed = crash_history[done].flushed;
    if (bad_close && flushed == bad_close + 1)
        flushed = crash_history[bad_close].flushed;
    check_head(pool.space, done, flushed, where);
    if (with_base && done)
        check_base(pool.space);
    for (unsigned i = 0; i < IMAGES; i++)
        crash_check_image(pool.space, i, done, where);
    pool_teardown(&pool);
}
