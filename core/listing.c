#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/array.h"
#include "core/base/cleanup.h"
#include "core/gateway.h"

/* Lets only one project, and only what the gateway has, through. */
struct only {
    struct cg_gateway *gateway;
    struct cg_space *space;
    const struct cg_name *prefix;
    const char *project;
    cg_entry_fn *fn;
    void *opaque;
};

/* The whole name of an entry below the text of a prefix. */
static void whole_name(const char *prefix, const struct cg_entry *entry,
                       char ret[static 2 * CG_NAME_MAX])
{
    const char *slash = strrchr(prefix, '/');
    int parent = slash ? (int)(slash - prefix) : 0;

    snprintf(ret, 2 * CG_NAME_MAX, "%.*s%s%s", entry->self ? parent : (int)strlen(prefix), prefix,
             prefix[0] ? "/" : "", entry->name);
}

static int only_some(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct only *o = opaque;
    struct cg_name name = *o->prefix;
    char prefix[CG_NAME_MAX], text[2 * CG_NAME_MAX];

    if (name.parts < CG_PARTS && !entry->self)
        snprintf(name.part[name.parts++], sizeof name.part[0], "%.*s",
                 (int)strcspn(entry->name, "@"), entry->name);
    if (o->project && !cg_space_in_project(o->space, &name, entry->directory, o->project))
        return 0;
    whole_name(cg_name_text(o->prefix, true, prefix), entry, text);
    return cg_gateway_excludes(o->gateway, text, entry->directory) ? 0
                                                                   : o->fn(o->opaque, entry, err);
}

int cg_gateway_list(struct cg_gateway *g, const struct cg_name *prefix, cg_entry_fn *fn,
                    void *opaque, struct cg_error *err)
{
    struct cg_space *space;

    if (prefix->space == CG_NAME_ROOT) {
        for (unsigned i = CG_NAME_VOLUMES; i <= CG_NAME_RBD; i++) {
            struct cg_entry e = { .name = cg_name_space_text((enum cg_name_space)i),
                                  .directory = true };
            bool there =
                cg_gateway_has(g, (enum cg_name_space)i) && !cg_gateway_excludes(g, e.name, true);
            int r = there ? fn(opaque, &e, err) : 0;
            if (r != 0)
                return r;
        }
        return 0;
    }
    int r = cg_gateway_space_below(g, prefix, &space, err);
    if (r < 0)
        return r;
    struct only only = { g, space, prefix, cg_gateway_project(g), fn, opaque };
    return cg_space_list(space, prefix, only_some, &only, err);
}

/* The entries of one level, kept so that nothing is locked while we go deeper. */
struct level {
    struct cg_entry *v; /* names and descriptions are owned */
    size_t count, allocated;
};

static void clear_level(struct level *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free((char *)l->v[i].name);
        free((char *)l->v[i].description);
    }
    free(l->v);
}

static int keep_entry(void *opaque, const struct cg_entry *entry, struct cg_error *err)
{
    struct level *l = opaque;

    struct cg_entry *v = cg_array_room(l->v, l->count, &l->allocated, sizeof *v);
    if (!v)
        return cg_error_set(err, ENOMEM, "list");
    l->v = v;
    struct cg_entry *e = &l->v[l->count];
    *e = *entry;
    e->name = strdup(entry->name);
    e->description = entry->description ? strdup(entry->description) : NULL;
    l->count++;
    if (!e->name || (entry->description && !e->description))
        return cg_error_set(err, ENOMEM, "list");
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct cg_entry *)a)->name, ((const struct cg_entry *)b)->name);
}

/* Lists what is below the text of a prefix, depth first. */
static int list_below(struct cg_gateway *g, const char *text, bool drafts, cg_entry_fn *fn,
                      void *opaque, struct cg_error *err)
{
    CG_CLEANUP(clear_level) struct level l = { 0 };
    struct cg_name prefix;

    int r = cg_name_parse_prefix(text, &prefix, err);
    prefix.draft = drafts;
    if (r == 0)
        r = cg_gateway_list(g, &prefix, keep_entry, &l, err);
    if (r != 0)
        return r;
    if (l.count > 0)
        qsort(l.v, l.count, sizeof *l.v, by_name);
    for (size_t i = 0; r == 0 && i < l.count; i++) {
        struct cg_entry e = l.v[i];
        char name[2 * CG_NAME_MAX];
        whole_name(text, &l.v[i], name);
        e.name = name;
        r = e.directory ? list_below(g, name, drafts, fn, opaque, err) : fn(opaque, &e, err);
    }
    return r;
}

/* Everything: a space that can't be reached doesn't hide the others; the first failure is what is
 * returned in the end. */
static int list_spaces(struct cg_gateway *g, bool drafts, cg_entry_fn *fn, void *opaque,
                       struct cg_error *err)
{
    static const enum cg_name_space sorted[] = { CG_NAME_BACKUPS, CG_NAME_RBD, CG_NAME_VOLUMES };
    int result = 0;

    for (size_t i = 0; i < sizeof sorted / sizeof *sorted; i++) {
        const char *space = cg_name_space_text(sorted[i]);
        struct cg_error why;
        if (!cg_gateway_has(g, sorted[i]) || cg_gateway_excludes(g, space, true))
            continue;
        int r = list_below(g, space, drafts, fn, opaque, &why);
        if (r > 0)
            return r;
        if (r < 0 && result == 0)
            result = cg_error_say(err, -r, "%s", why.message);
    }
    return result;
}

int cg_gateway_list_all(struct cg_gateway *g, const struct cg_name *prefix, cg_entry_fn *fn,
                        void *opaque, struct cg_error *err)
{
    char text[CG_NAME_MAX];

    if (prefix->space == CG_NAME_ROOT)
        return list_spaces(g, prefix->draft, fn, opaque, err);
    return list_below(g, cg_name_text(prefix, true, text), prefix->draft, fn, opaque, err);
}
