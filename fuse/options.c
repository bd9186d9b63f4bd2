#include "config.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/array.h"
#include "fuse/options.h"

enum {
    KEY_ONLY,
    KEY_READ_ONLY,
    KEY_MAX_READ,
    KEY_FOREGROUND,
    KEY_DEBUG,
    KEY_HELP,
    KEY_VERSION,
};

/* mount(8) hands on all of fstab's options: those that are meant for it, or say what holds
 * anyway, are dropped.  What isn't here is for libfuse, which refuses what it doesn't know. */
static const struct fuse_opt specification[] = {
    { "project=%s", offsetof(struct cg_options, project), 0 },
    FUSE_OPT_KEY("only=", KEY_ONLY),
    FUSE_OPT_KEY("ro", KEY_READ_ONLY),
    FUSE_OPT_KEY("max_read=", KEY_MAX_READ),
    FUSE_OPT_KEY("-f", KEY_FOREGROUND),
    FUSE_OPT_KEY("-d", KEY_DEBUG),
    FUSE_OPT_KEY("debug", KEY_DEBUG),
    FUSE_OPT_KEY("-h", KEY_HELP),
    FUSE_OPT_KEY("--help", KEY_HELP),
    FUSE_OPT_KEY("-V", KEY_VERSION),
    FUSE_OPT_KEY("--version", KEY_VERSION),
    FUSE_OPT_KEY("defaults", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("auto", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("noauto", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("user", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("user=", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("nouser", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("users", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("owner", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("group", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("nofail", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("_netdev", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("comment=", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("relatime", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("atime", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_KEY("diratime", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_END,
};

#define MAX_READ_MIN 4096 /* the kernel takes less for that */

struct parsing {
    struct cg_options options; /* first: the specification's offsets are into it */
    struct cg_error *err;
    int failure;
};

/* "max_read=N" */
static int take_max_read(struct parsing *p, const char *arg)
{
    char *end;
    const char *text = strchr(arg, '=') + 1;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end || n < MAX_READ_MIN || n > UINT_MAX)
        p->failure =
            cg_error_say(p->err, EINVAL, "max_read is a number of bytes from %d on, not '%s'",
                         MAX_READ_MIN, text);
    p->options.max_read = (unsigned)n;
    return p->failure < 0 ? -1 : 1;
}

static int add_only(struct parsing *p, const char *name)
{
    struct cg_options *o = &p->options;
    char **v = cg_array_room(o->only, o->only_count + 1, &o->only_allocated, sizeof *v);

    if (v) {
        o->only = v;
        v[o->only_count] = strdup(name);
    }
    if (!v || !v[o->only_count]) {
        p->failure = cg_error_set(p->err, ENOMEM, "only=%s", name);
        return -1;
    }
    v[++o->only_count] = NULL;
    return 0;
}

static int take(void *data, const char *arg, int key, struct fuse_args *rest)
{
    struct parsing *p = data;
    struct cg_options *o = &p->options;

    (void)rest;
    switch (key) {
    case KEY_ONLY:
        return add_only(p, arg + strlen("only="));
    case KEY_READ_ONLY:
        o->read_only = true;
        return 1;
    case KEY_MAX_READ:
        return take_max_read(p, arg);
    case KEY_DEBUG:
        o->foreground = true;
        return 1;
    case KEY_FOREGROUND:
        o->foreground = true;
        return 0;
    case KEY_HELP:
        o->help = true;
        return 0;
    case KEY_VERSION:
        o->version = true;
        return 0;
    case FUSE_OPT_KEY_NONOPT:
        if (!o->root)
            o->root = arg;
        else if (!o->dir)
            o->dir = arg;
        else
            p->failure = cg_error_say(p->err, EINVAL, "one argument too many: '%s'", arg);
        return p->failure < 0 ? -1 : 0;
    default:
        /* systemd's and others' own, by convention of fstab(5). */
        return strncmp(arg, "x-", 2) == 0 || strncmp(arg, "X-", 2) == 0 ? 0 : 1;
    }
}

int cg_options_parse(int argc, char **argv, struct cg_options *ret, struct cg_error *err)
{
    struct parsing p = { .err = err };
    struct fuse_args rest = FUSE_ARGS_INIT(argc, argv);

    int r = fuse_opt_parse(&rest, &p, specification, take);
    p.options.rest = rest;
    *ret = p.options;
    if (p.failure < 0)
        return p.failure;
    if (r < 0)
        return cg_error_say(err, EINVAL, "wrong options");
    if (!ret->help && !ret->version && !ret->dir)
        return cg_error_say(err, EINVAL, "ROOT and DIR are needed");
    return 0;
}

void cg_options_clear(struct cg_options *options)
{
    free(options->project);
    for (size_t i = 0; i < options->only_count; i++)
        free(options->only[i]);
    free(options->only);
    fuse_opt_free_args(&options->rest);
}
