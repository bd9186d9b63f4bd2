#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/name.h"

static const char *const space_names[] = { "", "volumes", "backups", "rbd" };

const char *cg_name_space_text(enum cg_name_space space)
{
    return space_names[space];
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

enum cg_arg cg_arg_kind(const char *text)
{
    if (text[0] == '/' || starts_with(text, "./") || starts_with(text, "../") ||
        strcmp(text, "-") == 0 || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
        return CG_ARG_PATH;
    if (starts_with(text, "nbd://") || starts_with(text, "nbds://") ||
        starts_with(text, "nbd+unix://") || starts_with(text, "nbds+unix://"))
        return CG_ARG_URI;
    return CG_ARG_NAME;
}

/* The N of a trailing ".pN" (N from 1, no leading zero, at most 9999), or 0; *ret_stem gets the
 * length without it. */
static unsigned partition_suffix(const char *text, size_t len, size_t *ret_stem)
{
    size_t i = len;

    while (i > 0 && text[i - 1] >= '0' && text[i - 1] <= '9')
        i--;
    *ret_stem = len;
    if (i == len || len - i > 4 || text[i] == '0' || i < 3 || text[i - 1] != 'p' ||
        text[i - 2] != '.')
        return 0;
    *ret_stem = i - 2;
    return (unsigned)strtoul(text + i, NULL, 10);
}

static bool ends_with(const char *text, size_t len, const char *suffix)
{
    size_t n = strlen(suffix);
    return len >= n && memcmp(text + len - n, suffix, n) == 0;
}

static bool alnum(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* What is wrong with a component, or NULL. */
static const char *part_fault(const char *text)
{
    size_t len = strlen(text), stem;

    if (len == 0)
        return "has an empty part";
    if (len > CG_PART_MAX)
        return "has a part of more than 128 characters";
    if (!alnum(text[0]))
        return "has a part that doesn't begin with a letter or digit";
    for (size_t i = 1; i < len; i++) {
        if (!alnum(text[i]) && !strchr("._-", text[i]))
            return "has a character other than letters, digits, '.', '_' and '-'";
    }
    if (partition_suffix(text, len, &stem))
        return "has a part that ends like a partition (.pN)";
    if (ends_with(text, len, ".qcow2"))
        return "has a part that ends in .qcow2";
    if (strcmp(text, "latest") == 0)
        return "calls something 'latest', which is only the newest point of a backup";
    return NULL;
}

bool cg_name_part_valid(const char *text)
{
    return part_fault(text) == NULL;
}

bool cg_name_own_snapshot(const char *snapshot)
{
    static const char hex[] = "0123456789abcdef-";
    size_t len = strlen(snapshot);

    if (strncmp(snapshot, "cowgate-clone-", 14) == 0)
        return len == 14 + 36 && strspn(snapshot + 14, hex) == 36;
    return strncmp(snapshot, "cowgate-", 8) == 0 && len == 8 + 25 &&
           strspn(snapshot + 8, hex) == 25;
}

bool cg_name_point_valid(const char *text)
{
    static const char form[] = "ddddddddTddddddZ";

    if (strcmp(text, "latest") == 0)
        return true;
    for (size_t i = 0; form[i]; i++) {
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
            return false;
    }
    text += sizeof form - 1;
    if (*text == '\0')
        return true;
    if (text[0] != '-' || text[1] < '1' || text[1] > '9')
        return false;
    size_t digits = strspn(text + 1, "0123456789");
    return digits <= 6 && text[1 + digits] == '\0' && strcmp(text, "-1") != 0;
}

static int fault(struct cg_error *err, const char *text, const char *why)
{
    bool maybe_path = strchr(text, '/') == NULL && text[0] != '\0';

    if (cg_arg_kind(text) != CG_ARG_NAME)
        return cg_error_say(err, EINVAL,
                            "'%.200s' is not a name: it is a %s, and only a name can stand here",
                            text, cg_arg_kind(text) == CG_ARG_PATH ? "path" : "URI");
    if (maybe_path)
        return cg_error_say(err, EINVAL, "'%.200s' is not a name: it %s; for a file write ./%.200s",
                            text, why, text);
    return cg_error_say(err, EINVAL, "'%.200s' is not a name: it %s", text, why);
}

/* Splits off the next component, up to '/' or the end.  False if it's too long for ret. */
static bool next_part(const char **p, char *ret, size_t size)
{
    size_t n = strcspn(*p, "/");

    if (n >= size)
        return false;
    memcpy(ret, *p, n);
    ret[n] = '\0';
    *p += n;
    if (**p == '/')
        (*p)++;
    return true;
}

/* The components an image's name has in each space. */
static unsigned min_parts(enum cg_name_space space)
{
    return space == CG_NAME_BACKUPS ? 3 : 2;
}

static unsigned max_parts(enum cg_name_space space)
{
    return space == CG_NAME_VOLUMES ? 2 : 3;
}

/* Takes .pN, .qcow2 and @SNAPSHOT off the last component. */
static const char *parse_last(struct cg_name *n, char *last)
{
    size_t stem;

    n->partition = partition_suffix(last, strlen(last), &stem);
    last[stem] = '\0';
    char *at = strchr(last, '@');
    bool constant = n->space == CG_NAME_BACKUPS ? n->parts == 2 : at != NULL;
    if (constant && ends_with(last, strlen(last), ".qcow2")) {
        n->qcow2 = true;
        last[strlen(last) - strlen(".qcow2")] = '\0';
    }
    if (at && n->space == CG_NAME_BACKUPS)
        return "has an '@', but backups have points, not snapshots";
    if (at) {
        *at = '\0';
        const char *why = strlen(at + 1) > CG_PART_MAX ? "has a part of more than 128 characters"
                                                       : part_fault(at + 1);
        if (why)
            return why;
        strcpy(n->snapshot, at + 1);
    }
    if (strlen(last) > CG_PART_MAX)
        return "has a part of more than 128 characters";
    return NULL;
}

static const char *parse_part(struct cg_name *n, char *part, bool last)
{
    if (n->parts == max_parts(n->space))
        return "has too many parts";
    const char *why = last ? parse_last(n, part) : NULL;
    if (why)
        return why;
    bool point = n->space == CG_NAME_BACKUPS && n->parts == 2;
    if (point) {
        if (!cg_name_point_valid(part))
            return "doesn't end in a point (YYYYMMDDTHHMMSSZ) or 'latest'";
    } else if ((why = part_fault(part))) {
        return why;
    }
    strcpy(n->part[n->parts++], part);
    return NULL;
}

static int parse(const char *text, bool prefix, struct cg_name *ret, struct cg_error *err)
{
    struct cg_name n = { .space = CG_NAME_ROOT };
    char part[2 * CG_PART_MAX + 16];
    const char *p = text;

    if (text[0] == '\0' && !prefix)
        return cg_error_say(err, EINVAL, "an empty name");
    if (text[0] != '\0') {
        if (!next_part(&p, part, sizeof part))
            return fault(err, text, "begins with no space (volumes/, backups/, rbd/)");
        for (unsigned i = CG_NAME_VOLUMES; i <= CG_NAME_RBD; i++) {
            if (strcmp(part, space_names[i]) == 0)
                n.space = (enum cg_name_space)i;
        }
        if (n.space == CG_NAME_ROOT)
            return fault(err, text, "begins with no space (volumes/, backups/, rbd/)");
    }
    bool trailing = p > text && p[-1] == '/';
    while (*p || (trailing && !prefix)) {
        if (!next_part(&p, part, sizeof part))
            return fault(err, text, "has a part of more than 128 characters");
        trailing = p[-1] == '/';
        const char *why = parse_part(&n, part, *p == '\0' && !trailing);
        if (why)
            return fault(err, text, why);
    }
    if (!prefix && n.parts < min_parts(n.space))
        return fault(err, text, "names no image: parts are missing");
    if (n.partition && n.parts < min_parts(n.space))
        return fault(err, text, "names a partition of no image");
    *ret = n;
    return 0;
}

int cg_name_parse(const char *text, struct cg_name *ret_name, struct cg_error *err)
{
    return parse(text, false, ret_name, err);
}

int cg_name_parse_prefix(const char *text, struct cg_name *ret_name, struct cg_error *err)
{
    return parse(text, true, ret_name, err);
}

char *cg_name_text(const struct cg_name *name, bool whole, char ret[static CG_NAME_MAX])
{
    size_t n = (size_t)snprintf(ret, CG_NAME_MAX, "%s", space_names[name->space]);

    for (unsigned i = 0; i < name->parts; i++)
        n += (size_t)snprintf(ret + n, CG_NAME_MAX - n, "/%s", name->part[i]);
    if (name->snapshot[0])
        n += (size_t)snprintf(ret + n, CG_NAME_MAX - n, "@%s", name->snapshot);
    if (name->qcow2)
        n += (size_t)snprintf(ret + n, CG_NAME_MAX - n, ".qcow2");
    if (name->partition && !whole)
        snprintf(ret + n, CG_NAME_MAX - n, ".p%u", name->partition);
    return ret;
}
