#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/migrate_inside.h"
#include "cli/migrate_server.h"
#include "core/base/cleanup.h"

#define FORGET_SECONDS 90

int cli_migrate_look_at(struct cg_space *space, const struct cg_name *target,
                        const struct cg_migration_record *record, struct cg_migration_status *ret,
                        struct cg_error *err)
{
    int r = cg_space_migrate_status(space, target, record->image_id, record->spec, ret, err);

    if (r == 0 && record->image_id[0] && strcmp(record->image_id, ret->image_id))
        return cg_error_say(err, ESTALE, "%s isn't this migration's: another image has its name",
                            record->target);
    return r;
}

int cli_migrate_look(const struct cli_migration *mi, struct cg_migration_status *ret)
{
    return cli_migrate_look_at(mi->space, &mi->target, &mi->m->record, ret, &mi->cli->err);
}

bool cli_migrate_is_gone(int r)
{
    return r == -ENOENT || r == -ESTALE;
}

/* What is left of a fill that didn't get to its end. */
static int not_filled(struct cli_migration *mi, int r)
{
    const struct cg_migration_record *record = &mi->m->record;
    struct cg_error why = mi->cli->err;

    return cg_error_say(&mi->cli->err, -r,
                        "%.500s; it can be used as it is%s: 'cowgate migrate execute %s' goes on, "
                        "'cowgate migrate abort %s' takes it back",
                        why.message,
                        !record->own                          ? ""
                        : cli_migrate_server_runs(mi->m->dir) ? ", its server runs on"
                                                              : " when its server runs again",
                        record->target, record->target);
}

/* librbd counts what the person knows as bytes. */
struct scale {
    const struct cg_progress *progress;
    uint64_t size;
    struct cli_migration *interruptible; /* or NULL: it goes to its end */
};

static int report(void *opaque, uint64_t done, uint64_t total)
{
    const struct scale *s = opaque;
    double share = total ? (double)done / (double)total : 1;
    uint64_t bytes = (uint64_t)(share * (double)s->size);

    if (s->progress->report(s->progress->opaque, bytes, s->size) == 0 || !s->interruptible)
        return 0;
    /* librbd can't be told to stop; but it can go on after any end of a process. */
    struct cli_migration *mi = s->interruptible;
    cli_progress_end();
    cg_error_say(&mi->cli->err, ECANCELED, "fill %s: interrupted", mi->m->record.target);
    not_filled(mi, -ECANCELED);
    _exit(cli_failed(mi->cli));
}

int cli_migrate_step(struct cli_migration *mi, enum cg_migration_step step)
{
    static const char *const names[] = { "migrate", "commit", "abort", "sparsify" };
    struct scale s = { .progress = cli_progress_begin(mi->cli, names[step]),
                       .size = mi->m->record.size,
                       .interruptible = step == CG_MIGRATION_EXECUTE ? mi : NULL };
    int r = cg_space_migrate_step(mi->space, &mi->target, step, report, &s, &mi->cli->err);

    cli_progress_end();
    return r < 0 && step == CG_MIGRATION_EXECUTE ? not_filled(mi, r) : r;
}

static int refuse_data(void *opaque, const struct cg_extent *extent, struct cg_error *err)
{
    return extent->type == CG_HOLE
               ? 0
               : cg_error_say(err, EEXIST, "%s exists already, and has data", (const char *)opaque);
}

static int remove_leftover(struct cli_migration *mi)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_migration_record *record = &mi->m->record;
    struct cg_error *err = &mi->cli->err;

    int r = cg_space_open(mi->space, &mi->target, CG_OPEN_READ, &image, err);
    if (r < 0)
        return r;
    if (cg_image_size(image) != record->size)
        return cg_error_say(err, EEXIST, "%s exists already", record->target);
    r = cg_image_walk(image, 0, record->size, refuse_data, record->target, err);
    cg_image_unref(image);
    image = NULL;
    return r < 0 ? r : cg_space_remove(mi->space, &mi->target, 0, err);
}

static int remove_image(struct cli_migration *mi)
{
    return cli_migrate_step(mi, CG_MIGRATION_ABORT);
}

/* Whoever died in the middle still counts as having the image open: in Ceph for half a minute. */
static int patiently(struct cli_migration *mi, int (*attempt)(struct cli_migration *mi))
{
    const struct cg_progress *interrupts;
    int r = attempt(mi);

    if (r == -EBUSY && !mi->cli->quiet)
        fprintf(stderr, "cowgate: %s: waiting for that\n", mi->cli->err.message);
    for (unsigned i = 0; r == -EBUSY && i < FORGET_SECONDS; i++) {
        interrupts = cli_progress_begin(mi->cli, NULL);
        if (interrupts->report(interrupts->opaque, 0, 0))
            return r;
        sleep(1);
        r = attempt(mi);
    }
    return r;
}

int cli_migrate_remove_leftover(struct cli_migration *mi)
{
    return patiently(mi, remove_leftover);
}

int cli_migrate_remove_image(struct cli_migration *mi)
{
    return patiently(mi, remove_image);
}
