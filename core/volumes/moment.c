/* Who writes a volume holds it up: this process, if it writes it or nobody does (then it has the
 * lock meanwhile), else the one that does, which is asked for each step by its socket and lets
 * writes go on when it hears nothing more.  So the death of any of them ends an attempt: what was
 * taken is taken back, and there is another.
 *
 * Steps are prepared in the order of the volumes' names, those that are written first, so that
 * several who do this wait for each other and nobody for ever.  Nothing is held up by that yet. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/volumes/change.h"
#include "core/volumes/moment.h"
#include "core/volumes/moment_record.h"
#include "core/volumes/seal.h"

/* Milliseconds without a word from who asked.  What is prepared is in the way of other changes of
 * the volume, which wait for the same lock: others may take their time to prepare theirs, but for
 * as long as they do who asked says so, about once a second.  What is held up is in the way of
 * guests: there is no asking for more time. */
#define PREPARED_MAX 10000
#define HELD_MAX 5000

#define MOMENTS 8 /* attempts */

struct member {
    const struct cg_name *name;
    char text[CG_NAME_MAX];
    struct cg_change change;
    struct cg_volume *v; /* held up here */
    struct cg_seal seal;
    bool prepared;
    int fd; /* held up by who listens at the socket; -1: not */
    char socket[108];
};

struct moment {
    struct cg_volumes *space;
    struct member *members;
    size_t count;
};

static int lapsed(struct cg_volume *v, const char *what, struct cg_error *err)
{
    return cg_error_say(err, EAGAIN, "%s: who wanted a snapshot of several volumes %s", v->label,
                        what);
}

/* Tells who asks that a step is done, and waits for the next. */
static int reach(struct cg_volume *v, struct cg_control_call *call, const char *step, unsigned max,
                 struct cg_error *err)
{
    int r = cg_control_reach(call, step, max);

    if (r == -ETIMEDOUT)
        return lapsed(v, "took too long", err);
    return r < 0 ? lapsed(v, "is gone", err) : 0;
}

static int answer_steps(struct cg_seal *s, struct cg_control_call *call,
                        const struct cg_change *change, struct cg_error *err)
{
    int r = reach(s->v, call, "prepared", PREPARED_MAX, err);

    if (r == 0)
        r = cg_seal_hold(s, err);
    if (r == 0)
        r = reach(s->v, call, "held", HELD_MAX, err);
    return r < 0 ? r : cg_change_take_snapshot_locked(s, change, err);
}

int cg_moment_answer(struct cg_volume *v, struct cg_control_call *call,
                     const struct cg_change *change, struct cg_error *err)
{
    struct cg_seal s;
    CG_LOCK(&v->change);
    int r = cg_change_prepare_snapshot_locked(v, change, &s, err);

    if (r < 0)
        return r;
    r = answer_steps(&s, call, change, err);
    cg_seal_end(&s);
    return r;
}

/* Writes go on; who was asked sees it. */
static void let_go(struct member *m)
{
    if (m->prepared) {
        cg_seal_end(&m->seal);
        pthread_mutex_unlock(&m->v->change);
    }
    cg_close(&m->fd);
    m->prepared = false;
    m->fd = -1;
}

/* Is no more than begun with.  May take the volume's locks again and flush: not to be called with
 * those of volumes that come later. */
static void leave(struct member *m)
{
    let_go(m);
    cg_volume_unref(m->v);
    m->v = NULL;
}

static int prepare_here(struct member *m, struct cg_error *err)
{
    pthread_mutex_lock(&m->v->change);
    int r = cg_change_prepare_snapshot_locked(m->v, &m->change, &m->seal, err);

    m->prepared = r == 0;
    if (r < 0)
        pthread_mutex_unlock(&m->v->change);
    return r;
}

/* Tells those who are asked that this process is still there. */
static void keep(void *opaque)
{
    const struct moment *mo = opaque;

    for (size_t i = 0; i < mo->count; i++)
        if (mo->members[i].fd >= 0)
            cg_control_keep(mo->members[i].fd);
}

static int prepare_there(struct moment *mo, struct member *m, int dirfd, struct cg_error *err)
{
    struct cg_writer writer;

    if (cg_writer_read(dirfd, &writer, NULL) < 0 || !*writer.socket)
        return cg_error_say(err, ECONNRESET, "the writer has no socket");
    CG_CLEANUP(cg_json_cleanup) json_t *request = cg_change_request_encode(&m->change);
    if (!request)
        return cg_error_set(err, ENOMEM, "ask the writer");
    snprintf(m->socket, sizeof m->socket, "%s", writer.socket);
    int r = cg_control_begin(m->socket, request, CG_CONTROL_SILENCE, &m->fd, err);
    return r < 0
               ? r
               : cg_control_await(m->socket, m->fd, CG_CONTROL_SILENCE, "prepared", keep, mo, err);
}

/* ask: who writes it, if somebody does; else that is -EBUSY. */
static int prepare_once(struct moment *mo, struct member *m, bool ask, struct cg_error *err)
{
    CG_CLEANUP(cg_close) int dirfd = -1;
    int r = cg_volume_open_dir(mo->space, m->name, &dirfd, err);

    if (r < 0)
        return r;
    m->v = cg_volume_find(mo->space, dirfd, true);
    r = m->v ? 0 : cg_volume_open_brief(mo->space, m->name, &m->v, err);
    if (r == 0)
        return prepare_here(m, err);
    return r == -EBUSY && ask ? prepare_there(mo, m, dirfd, err) : r;
}

static int prepare(struct moment *mo, struct member *m, struct cg_error *err)
{
    for (unsigned i = 0;; i++) {
        keep(mo);
        int r = prepare_once(mo, m, true, err);
        if (r == 0)
            return 0;
        leave(m);
        if (r != -ECONNRESET && r != -EAGAIN)
            return r;
        if (!cg_writer_wait(i))
            return cg_error_say(err, EBUSY, "%s: the writer does not answer", m->text);
    }
}

/* One that nobody wrote.  Who has begun to can't be asked any more: others may wait for him, in the
 * order of the names, and for those that are prepared here.  So that ends the attempt. */
static int prepare_idle(struct moment *mo, struct member *m, struct cg_error *err)
{
    keep(mo);
    int r = prepare_once(mo, m, false, err);
    if (r < 0)
        leave(m);
    return r == -EBUSY ? cg_error_say(err, EAGAIN, "%s: somebody has begun to write it", m->text)
                       : r;
}

/* Those here last: they wait for nobody any more. */
static int hold_all(struct moment *mo, struct cg_error *err)
{
    struct member *members = mo->members;
    int r = 0;

    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (members[i].fd >= 0 && cg_control_go(members[i].fd) < 0)
            r = cg_error_say(err, ECONNRESET, "%s: its writer ended", members[i].text);
    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (members[i].fd >= 0)
            r = cg_control_await(members[i].socket, members[i].fd, CG_CONTROL_SILENCE, "held", NULL,
                                 NULL, err);
    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (members[i].prepared)
            r = cg_seal_hold(&members[i].seal, err);
    return r;
}

static int take_here(struct member *m, struct cg_error *err)
{
    int r = cg_change_take_snapshot_locked(&m->seal, &m->change, err);

    let_go(m);
    return r;
}

/* The moment is before the first `go`. */
static int take_all(struct moment *mo, struct cg_error *err)
{
    struct member *members = mo->members;
    int r = 0;

    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (members[i].fd >= 0 && cg_control_go(members[i].fd) < 0)
            r = cg_error_say(err, ECONNRESET, "%s: its writer ended", members[i].text);
    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (members[i].prepared)
            r = take_here(&members[i], err);
    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (members[i].fd >= 0)
            r = cg_control_end(members[i].socket, members[i].fd, CG_CONTROL_SILENCE, NULL, NULL,
                               NULL, err);
    return r;
}

/* By this process or another. */
static bool is_written(struct cg_volumes *space, const struct member *m)
{
    CG_CLEANUP(cg_close) int dirfd = -1;

    if (cg_volume_open_dir(space, m->name, &dirfd, NULL) < 0)
        return false;
    struct cg_volume *v = cg_volume_find(space, dirfd, true);
    cg_volume_unref(v);
    return v || cg_writer_alive(dirfd);
}

/* Those that nobody writes come last: who begins to, then waits until the locks that this process
 * has on them are free, and not for what takes its time elsewhere. */
static int prepare_all(struct moment *mo, struct cg_error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (is_written(mo->space, &mo->members[i]))
            r = prepare(mo, &mo->members[i], err);
    for (size_t i = 0; r == 0 && i < mo->count; i++)
        if (!mo->members[i].v && mo->members[i].fd < 0)
            r = prepare_idle(mo, &mo->members[i], err);
    return r;
}

/* Takes back the snapshots of a record, as far as they were taken.  Also one that is just being
 * taken: whoever does that is waited for. */
static int take_back(struct cg_volumes *space, const json_t *snapshots)
{
    struct cg_change change = { .op = CG_CHANGE_REMOVE_SNAPSHOT };
    int ret = 0;
    size_t i;
    json_t *item;

    json_array_foreach (snapshots, i, item) {
        const char *text = json_string_value(json_object_get(item, "name"));
        struct cg_error err;
        struct cg_name name;
        if (!text || cg_name_parse(text, &name, &err) < 0 ||
            !cg_json_text(item, "uuid", change.uuid, sizeof change.uuid) ||
            !cg_uuid_valid(change.uuid))
            continue;
        snprintf(change.snapshot, sizeof change.snapshot, "%s", name.snapshot);
        int r = cg_change(space, &name, &change, NULL, &err);
        if (r < 0 && r != -ENOENT)
            ret = r;
    }
    return ret;
}

static json_t *record_of(const struct member *members, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < count; i++) {
        json_t *item =
            json_pack("{s:s, s:s}", "name", members[i].text, "uuid", members[i].change.id);
        if (!item || json_array_append_new(array, item) < 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* Takes them, on record.  When that is gone they are there. */
static int take_on_record(struct moment *mo, struct cg_moment_record *record, struct cg_error *err)
{
    int r = prepare_all(mo, err);

    if (r == 0)
        r = hold_all(mo, err);
    if (r == 0)
        r = take_all(mo, err);
    for (size_t i = 0; i < mo->count; i++)
        let_go(&mo->members[i]);
    for (size_t i = 0; i < mo->count; i++)
        leave(&mo->members[i]);
    return r < 0 ? r : cg_moment_record_remove(mo->space, record, err);
}

static int attempt(struct moment *mo, struct cg_error *err)
{
    struct cg_moment_record record = { .fd = -1 };

    for (size_t i = 0; i < mo->count; i++)
        cg_uuid(mo->members[i].change.id);
    CG_CLEANUP(cg_json_cleanup) json_t *snapshots = record_of(mo->members, mo->count);
    if (!snapshots)
        return cg_error_set(err, ENOMEM, "snapshot");
    int r = cg_moment_record_create(mo->space, snapshots, &record, err);
    if (r < 0)
        return r;
    r = take_on_record(mo, &record, err);
    if (r < 0 && take_back(mo->space, snapshots) == 0)
        cg_moment_record_remove(mo->space, &record, NULL);
    cg_moment_record_close(&record);
    return r;
}

static int by_text(const void *a, const void *b)
{
    const struct member *x = a, *y = b;

    return strcmp(x->text, y->text);
}

static bool same_volume(const struct cg_name *a, const struct cg_name *b)
{
    return strcmp(a->part[0], b->part[0]) == 0 && strcmp(a->part[1], b->part[1]) == 0;
}

static int line_up(struct member *members, const struct cg_name *names, size_t count,
                   struct cg_error *err)
{
    for (size_t i = 0; i < count; i++) {
        struct member *m = &members[i];
        *m = (struct member){ .name = &names[i], .fd = -1, .change.op = CG_CHANGE_MOMENT };
        cg_name_text(&names[i], true, m->text);
        snprintf(m->change.snapshot, sizeof m->change.snapshot, "%s", names[i].snapshot);
    }
    qsort(members, count, sizeof *members, by_text);
    for (size_t i = 1; i < count; i++)
        if (same_volume(members[i - 1].name, members[i].name))
            return cg_error_say(err, EINVAL,
                                "%s and %s: of one volume there is one snapshot at a moment",
                                members[i - 1].text, members[i].text);
    return 0;
}

int cg_moment_snapshot(struct cg_volumes *space, const struct cg_name *names, size_t count,
                       struct cg_error *err)
{
    CG_CLEANUP(cg_free) struct member *members = calloc(count, sizeof *members);
    int r = members ? line_up(members, names, count, err) : cg_error_set(err, ENOMEM, "snapshot");

    if (r < 0)
        return r;
    struct moment mo = { .space = space, .members = members, .count = count };
    for (unsigned i = 0;; i++) {
        r = attempt(&mo, err);
        if (r != -ECONNRESET && r != -EAGAIN)
            return r;
        if (i + 1 == MOMENTS || !cg_writer_wait(i))
            return cg_error_prefix(err, -EBUSY, "no moment at which all could be held up");
    }
}

void cg_moment_clean(struct cg_volumes *space)
{
    cg_moment_record_each_left(space, take_back);
}
