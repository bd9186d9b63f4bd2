/* The replay: files and directories in memory, then on disk. */
#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/recorder-log.h"
#include "tests/unit/recorder.h"

#define SECTOR 512u

int __real_ftruncate(int fd, off_t len);
ssize_t __real_pwrite(int fd, const void *buf, size_t len, off_t off);

struct entry {
    char name[100];
    unsigned node;
};

struct bytes {
    uint8_t *at;
    uint64_t len;
};

/* A file as programs see it, and as the disk has it: any sector may get there at any time, as it is
 * then, as long as it is dirty (a byte a sector, with the length that the cache has). */
struct replayed {
    bool directory;
    struct bytes cache, disk, dirty;
    struct entry *entry;
    size_t entries;
};

static unsigned draw(unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    return *seed >> 16;
}

static void set_length(struct bytes *b, uint64_t len)
{
    if (len > b->len) {
        b->at = realloc(b->at, len);
        must(b->at);
        memset(b->at + b->len, 0, len - b->len);
    }
    b->len = len;
}

static void write_back(struct replayed *file, uint64_t off, uint64_t end)
{
    end = end < file->cache.len ? end : file->cache.len;
    if (off >= end)
        return;
    if (end > file->disk.len)
        set_length(&file->disk, end);
    memcpy(file->disk.at + off, file->cache.at + off, end - off);
}

static void forget_dirty(struct replayed *file)
{
    if (file->dirty.len)
        memset(file->dirty.at, 0, file->dirty.len);
}

static void sync_file(struct replayed *file)
{
    set_length(&file->disk, file->cache.len);
    for (uint64_t i = 0; i < file->dirty.len; i++)
        if (file->dirty.at[i])
            write_back(file, i * SECTOR, (i + 1) * SECTOR);
    forget_dirty(file);
}

static void apply_data(struct replayed *file, const struct op *op)
{
    if (op->what == TRUNCATE) {
        set_length(&file->cache, op->len);
        return;
    }
    uint64_t end = op->off + op->len, sectors = (end + SECTOR - 1) / SECTOR;
    if (sectors > file->dirty.len)
        set_length(&file->dirty, sectors);
    for (uint64_t i = op->off / SECTOR; i < sectors; i++)
        file->dirty.at[i] = 1;
    if (op->what == WRITE) {
        if (end > file->cache.len)
            set_length(&file->cache, end);
        memcpy(file->cache.at + op->off, op->bytes, op->len);
    } else if (op->off < file->cache.len) {
        end = end < file->cache.len ? end : file->cache.len;
        memset(file->cache.at + op->off, 0, end - op->off);
    }
}

/* Some of the sectors that an operation changed get to the disk. */
static void write_back_some(struct replayed *file, const struct op *op, uint64_t grain,
                            unsigned *seed)
{
    unsigned mode = draw(seed) % 3; /* none, all, some */

    if (op->what == TRUNCATE) {
        if (mode)
            set_length(&file->disk, op->len);
        return;
    }
    for (uint64_t at = op->off / grain * grain; mode && at < op->off + op->len; at += grain)
        if (mode == 1 || draw(seed) % 2)
            write_back(file, at, at + grain);
}

static struct entry *find_entry(struct replayed *dir, const char *name)
{
    for (size_t i = 0; i < dir->entries; i++)
        if (strcmp(dir->entry[i].name, name) == 0)
            return &dir->entry[i];
    return NULL;
}

static void set_entry(struct replayed *dir, const char *name, unsigned node)
{
    struct entry *e = find_entry(dir, name);

    if (!e) {
        dir->entry = realloc(dir->entry, (dir->entries + 1) * sizeof *dir->entry);
        e = &dir->entry[dir->entries++];
        strcpy(e->name, name);
    }
    e->node = node;
}

static unsigned drop_entry(struct replayed *dir, const char *name)
{
    struct entry *e = find_entry(dir, name);

    must(e);
    unsigned node = e->node;
    *e = dir->entry[--dir->entries];
    return node;
}

static void apply_name(struct replayed *all, const struct op *op)
{
    switch (op->what) {
    case MKDIR:
        all[op->file].directory = true;
        set_entry(&all[op->dir], op->name, op->file);
        break;
    case CREATE:
    case LINK:
        set_entry(&all[op->dir], op->name, op->file);
        break;
    case RENAME:
        set_entry(&all[op->to_dir], op->to_name, drop_entry(&all[op->dir], op->name));
        break;
    default:
        drop_entry(&all[op->dir], op->name);
    }
}

static bool is_data(const struct op *op)
{
    return op->what == WRITE || op->what == TRUNCATE || op->what == PUNCH;
}

static bool is_name(const struct op *op)
{
    return op->what >= CREATE && op->what <= UNLINK;
}

static bool synced_later(const struct op *ops, size_t i, size_t cut, unsigned node)
{
    for (size_t k = i + 1; k < cut; k++)
        if (ops[k].what == SYNC && ops[k].file == node)
            return true;
    return false;
}

/* How many operations' changes of names are there: at least up to the last that a sync of its
 * directory covers. */
static size_t names_until(const struct op *ops, size_t cut, enum recorder_loss loss, unsigned *seed)
{
    size_t least = 0;

    if (loss == LOSE_NOTHING)
        return cut;
    for (size_t i = 0; i < cut; i++) {
        unsigned dir = ops[i].what == RENAME ? ops[i].to_dir : ops[i].dir;
        if (is_name(&ops[i]) && synced_later(ops, i, cut, dir))
            least = i + 1;
    }
    return loss == LOSE_ALL ? least : least + draw(seed) % (cut - least + 1);
}

static void build(const struct recorder_log *log, struct replayed *all, size_t cut,
                  enum recorder_loss loss, unsigned seed)
{
    const uint64_t grain = seed % 2 ? SECTOR : 4096;
    size_t names = names_until(log->ops, cut, loss, &seed);

    all[0].directory = true;
    for (size_t i = 0; i < cut; i++) {
        const struct op *op = &log->ops[i];
        if (is_name(op) && i < names)
            apply_name(all, op);
        if (op->what == SYNC)
            sync_file(&all[op->file]);
        if (op->what == LOST)
            forget_dirty(&all[op->file]);
        if (!is_data(op))
            continue;
        apply_data(&all[op->file], op);
        if (loss == LOSE_SOME)
            write_back_some(&all[op->file], op, grain, &seed);
    }
    for (unsigned i = 0; loss == LOSE_NOTHING && i < log->nodes; i++) {
        set_length(&all[i].disk, all[i].cache.len);
        write_back(&all[i], 0, all[i].cache.len);
    }
}

static void write_out(struct replayed *all, unsigned node, const char *path,
                      char (*first)[PATH_MAX])
{
    struct replayed *r = &all[node];

    if (r->directory) {
        must(mkdir(path, 0700) == 0);
        for (size_t i = 0; i < r->entries; i++) {
            char sub[PATH_MAX];
            snprintf(sub, sizeof sub, "%s/%s", path, r->entry[i].name);
            write_out(all, r->entry[i].node, sub, first);
        }
        return;
    }
    if (*first[node]) {
        must(link(first[node], path) == 0);
        return;
    }
    snprintf(first[node], PATH_MAX, "%s", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    must(fd >= 0 && __real_ftruncate(fd, (off_t)r->disk.len) == 0);
    for (uint64_t at = 0; at < r->disk.len; at += 4096) {
        size_t n = r->disk.len - at < 4096 ? r->disk.len - at : 4096;
        static const uint8_t zeros[4096];
        if (memcmp(r->disk.at + at, zeros, n) != 0)
            must(__real_pwrite(fd, r->disk.at + at, n, (off_t)at) == (ssize_t)n);
    }
    close(fd);
}

unsigned recorder_replay(const char *dir, size_t cut, enum recorder_loss loss, unsigned seed)
{
    const struct recorder_log log = recorder_log();
    struct replayed *all = calloc(log.nodes, sizeof *all);
    char(*first)[PATH_MAX] = calloc(log.nodes, sizeof *first);
    unsigned mark = 0;

    must(all && first && cut <= log.count);
    for (size_t i = 0; i < cut; i++)
        if (log.ops[i].what == MARK)
            mark = (unsigned)log.ops[i].off;
    build(&log, all, cut, loss, seed);
    write_out(all, 0, dir, first);
    for (unsigned i = 0; i < log.nodes; i++) {
        free(all[i].cache.at);
        free(all[i].disk.at);
        free(all[i].dirty.at);
        free(all[i].entry);
    }
    free(all);
    free(first);
    return mark;
}
