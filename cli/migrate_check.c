#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cli/migrate_check.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/image/file.h"
#include "core/image/nbd.h"
#include "core/jobs/migrate_spec.h"

#define OBJECT (4 << 20) /* bytes, as new images have them */
#define SAMPLES 32
#define SAMPLE 4096 /* bytes */

static int open_own(struct cli *cli, const char *text, struct cg_image **ret_image)
{
    struct cg_name name;
    int r = cg_name_parse(text, &name, &cli->err);

    return r < 0 ? r : cg_gateway_open(cli->gateway, &name, CG_OPEN_READ, ret_image, &cli->err);
}

int cli_migrate_check_sources(struct cli *cli, const struct cg_migration_record *record)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < record->count; i++) {
        CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
        r = open_own(cli, record->image[i].name, &image);
    }
    return r;
}

int cli_migrate_size(struct cli *cli, const struct cg_migration_record *record, uint64_t *ret)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
    struct cg_name name;

    int r = cg_name_parse(record->image[record->count - 1].name, &name, &cli->err);
    name.qcow2 = false; /* what is in it; of a history, the last point's */
    if (r == 0)
        r = cg_gateway_open(cli->gateway, &name, CG_OPEN_READ, &image, &cli->err);
    if (r == 0)
        *ret = cg_image_size(image);
    return r;
}

int cli_migrate_check_sizes(struct cli *cli, const struct cg_migration_record *record)
{
    int r = 0;

    if (strcmp(record->stream, "file") || record->count < 2)
        return 0;
    for (size_t i = 0; r == 0 && i < record->count; i++) {
        const struct cg_migration_image *v = &record->image[i];
        CG_CLEANUP(cg_image_cleanup) struct cg_image *image = NULL;
        r = open_own(cli, v->name, &image);
        if (r == 0 && cg_image_size(image) % OBJECT)
            r = cg_error_say(
                &cli->err, EINVAL,
                "%s%s%s has %" PRIu64
                " bytes, and this librbd can't take snapshots along whose size isn't a multiple of "
                "4 MiB: leave --snapshots out, or back it up and migrate the history",
                record->source, v->snapshot[0] ? "@" : "", v->snapshot, cg_image_size(image));
    }
    return r;
}

static uint64_t random_below(uint64_t n)
{
    uint64_t v;

    cg_random(&v, sizeof v);
    return v % n;
}

/* Walks over the image's data: *ret_len is how much there is.  Of what lies at places[i] when the
 * data is taken together, offs[i] is where that is in the image; count of them. */
static int walk_data(struct cg_image *image, uint64_t *ret_len, const uint64_t *places,
                     uint64_t *offs, size_t count, struct cg_error *err)
{
    uint64_t size = cg_image_size(image), len = 0, next = 0;
    int r = 0;

    while (r == 0 && next < size) {
        CG_CLEANUP(cg_extents_clear) struct cg_extents e;
        cg_extents_init(&e, next, size, 1024);
        r = cg_image_extents(image, &e, err);
        for (size_t i = 0; r == 0 && i < e.count; i++) {
            if (e.v[i].type != CG_DATA)
                continue;
            for (size_t k = 0; k < count; k++) {
                if (places[k] >= len && places[k] - len < e.v[i].len)
                    offs[k] = e.v[i].off + (places[k] - len);
            }
            len += e.v[i].len;
        }
        next = e.next;
    }
    *ret_len = len;
    return r;
}

/* Where to compare: at the start, where a partition table is, and a history's header; else where
 * there is data. */
static int choose(struct cg_image *image, uint64_t ret[static SAMPLES], struct cg_error *err)
{
    uint64_t places[SAMPLES - 1] = { 0 }, len;

    memset(ret, 0, SAMPLES * sizeof *ret);
    int r = walk_data(image, &len, NULL, NULL, 0, err);
    if (r < 0 || len == 0)
        return r;
    for (size_t i = 0; i < SAMPLES - 1; i++)
        places[i] = random_below(len);
    return walk_data(image, &len, places, ret + 1, SAMPLES - 1, err);
}

static int compare(struct cg_image *own, struct cg_image *other, const char *location,
                   struct cg_error *err)
{
    unsigned char a[SAMPLE], b[SAMPLE];
    uint64_t size = cg_image_size(own);
    uint64_t at[SAMPLES];

    if (cg_image_size(other) != size)
        return cg_error_say(err, EINVAL,
                            "%s has %" PRIu64 " bytes, not %" PRIu64 ": it belongs to another root",
                            location, cg_image_size(other), size);
    int r = choose(own, at, err);
    for (unsigned i = 0; r == 0 && i < SAMPLES; i++) {
        uint64_t off = cg_round_down(at[i], SAMPLE);
        size_t len = (size_t)cg_min(SAMPLE, size - off);
        r = cg_image_pread(own, a, len, off, err);
        if (r == 0)
            r = cg_image_pread(other, b, len, off, err);
        if (r == 0 && memcmp(a, b, len))
            r = cg_error_say(err, EINVAL, "%s isn't the same image: it belongs to another root",
                             location);
    }
    return r;
}

static int check(struct cli *cli, const struct cg_migration_record *record, const char *name)
{
    CG_CLEANUP(cg_image_cleanup) struct cg_image *own = NULL;
    CG_CLEANUP(cg_image_cleanup) struct cg_image *other = NULL;
    char location[CG_NAME_MAX * 2];

    int r = cg_migrate_location(record->address, name, location, &cli->err);
    if (r == 0)
        r = open_own(cli, name, &own);
    if (r < 0)
        return r;
    r = strcmp(record->stream, "nbd") == 0 ? cg_nbd_open(location, false, &other, &cli->err)
                                           : cg_file_open(location, false, &other, &cli->err);
    if (r < 0)
        return cg_error_prefix(&cli->err, r,
                               "nobody serves this at %s (see --serve and --advertise)",
                               record->address);
    return compare(own, other, location, &cli->err);
}

int cli_migrate_check(struct cli *cli, const struct cg_migration_record *record)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < record->count; i++)
        r = check(cli, record, record->image[i].name);
    return r;
}
