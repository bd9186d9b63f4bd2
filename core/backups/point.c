#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/crypto.h>

#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/backups/point.h"
#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/base/size.h"

#define FORMAT 1
#define PAGES_KEY "\"pages\": "
/* No text in a point can hold these: its quotes would be escaped. */
#define CHECK_KEY "\"check\": \""
#define CHECK_LEN 8 /* digits of a CRC-32C */
#define NO_CHECK "00000000"

struct cg_point *cg_point_new(void)
{
    return calloc(1, sizeof(struct cg_point));
}

void cg_point_free(struct cg_point *point)
{
    if (!point)
        return;
    json_decref(point->pins);
    json_decref(point->superseded);
    free(point->pages);
    free(point);
}

void cg_point_cleanup(struct cg_point **point)
{
    cg_point_free(*point);
}

void cg_point_name(int64_t time, unsigned number, char ret[static CG_PART_MAX + 1])
{
    time_t t = (time_t)time;
    struct tm tm;

    gmtime_r(&t, &tm);
    size_t n = strftime(ret, CG_PART_MAX + 1, "%Y%m%dT%H%M%SZ", &tm);
    if (number > 1)
        snprintf(ret + n, CG_PART_MAX + 1 - n, "-%u", number);
}

bool cg_point_supersedes(const struct cg_point *p, const char *name)
{
    json_t *entry;
    size_t i;

    json_array_foreach (p->superseded, i, entry) {
        if (json_is_string(entry) && strcmp(json_string_value(entry), name) == 0)
            return true;
    }
    return false;
}

json_t *cg_point_text(const char *text)
{
    char ascii[CG_NAME_MAX];
    size_t i;

    json_t *s = json_string(text);
    if (s)
        return s;
    for (i = 0; text[i] && i + 1 < sizeof ascii; i++)
        ascii[i] = (text[i] & 0x80) ? '?' : text[i];
    ascii[i] = '\0';
    return json_string(ascii);
}

/* "ERA/ID" strings, and for all-zero pages the number of them in a row. */
static json_t *encode_pages(const struct cg_point *p)
{
    json_t *pages = json_array();
    char text[8 + 1 + 2 * CG_OBJECT_ID + 1];

    for (uint64_t i = 0; pages && i < p->page_count;) {
        uint64_t zeros = 0;
        while (i + zeros < p->page_count && cg_ref_is_zero(&p->pages[i + zeros]))
            zeros++;
        json_t *entry;
        if (zeros) {
            entry = json_integer((json_int_t)zeros);
            i += zeros;
        } else {
            snprintf(text, 10, "%08x/", p->pages[i].era);
            cg_hex(text + 9, p->pages[i].id, CG_OBJECT_ID);
            entry = json_string(text);
            i++;
        }
        if (json_array_append_new(pages, entry) < 0) {
            json_decref(pages);
            return NULL;
        }
    }
    return pages;
}

static json_t *encode_doc(const struct cg_point *p)
{
    json_t *pages = encode_pages(p);
    json_t *text = cg_point_text(p->source.text);
    json_t *superseded = p->superseded ? json_incref(p->superseded) : json_array();

    if (!pages || !text || !superseded) {
        json_decref(pages);
        json_decref(text);
        json_decref(superseded);
        return NULL;
    }
    /* The order is part of the format: what has no bound comes last, so that a head can be read
     * alone. */
    return json_pack(
        "{s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:{s:o, s:s, s:s, s:s, s:s*}, s:s, s:s, s:o,"
        " s:s, s:o, s:{s:s, s:I, s:O}}",
        "format", FORMAT, "project", p->project, "volume", p->volume, "name", p->name, "sequence",
        (json_int_t)p->sequence, "size", (json_int_t)p->size, "original_size",
        (json_int_t)p->original_size, "time", (json_int_t)p->time, "source", "text", text, "image",
        p->source.identity.image, "snapshot", p->source.identity.snapshot, "snapshot_name",
        p->source.snapshot, "parent",
        p->source.identity.parent[0] ? p->source.identity.parent : NULL, "parent", p->parent,
        "tool", p->tool, "superseded", superseded, "check", NO_CHECK, "pages", pages, "session",
        "id", p->session, "era", (json_int_t)p->era, "pins", p->pins);
}

static uint32_t head_check(const char *text, const char *check)
{
    return cg_crc32c(text, (size_t)(check - text));
}

/* Puts the CRC of what lies before it into the head, which must be short enough. */
static int put_check(char *line, struct cg_error *err)
{
    char *check = strstr(line, CHECK_KEY);
    char hex[CHECK_LEN + 1];

    if (strstr(line, PAGES_KEY) - line > CG_POINT_HEAD)
        return cg_error_say(err, E2BIG, "what a point says of its source is too long");
    snprintf(hex, sizeof hex, "%08" PRIx32, head_check(line, check));
    memcpy(check + strlen(CHECK_KEY), hex, CHECK_LEN);
    return 0;
}

int cg_point_encode(const struct cg_point *p, struct cg_keys *keys, char **ret_text,
                    size_t *ret_len, struct cg_error *err)
{
    uint8_t mac[CG_KEYS_MAC];
    CG_CLEANUP(cg_json_cleanup) json_t *doc = encode_doc(p);

    char *line = doc ? json_dumps(doc, 0) : NULL;
    if (!line)
        return cg_error_set(err, ENOMEM, "write point %s", p->name);
    int r = put_check(line, err);
    if (r < 0) {
        free(line);
        return r;
    }
    size_t len = strlen(line);
    char *text = realloc(line, len + 1 + 2 * CG_KEYS_MAC + 2);
    if (!text) {
        free(line);
        return cg_error_set(err, ENOMEM, "write point %s", p->name);
    }
    r = cg_keys_point_mac(keys, text, len, mac, err);
    if (r < 0) {
        free(text);
        return r;
    }
    text[len] = '\n';
    cg_hex(text + len + 1, mac, sizeof mac);
    strcpy(text + len + 1 + 2 * CG_KEYS_MAC, "\n");
    *ret_text = text;
    *ret_len = len + 1 + 2 * CG_KEYS_MAC + 1;
    return 0;
}

static int bad(struct cg_error *err, const char *why)
{
    return cg_error_say(err, EIO, "isn't a sound point: %s", why);
}

static bool copy(char *ret, size_t size, const char *text)
{
    return (size_t)snprintf(ret, size, "%s", text) < size;
}

static int check_place(const struct cg_point *p, const char *project, const char *volume,
                       const char *name, struct cg_error *err)
{
    if (strcmp(p->project, project) != 0 || strcmp(p->volume, volume) != 0 ||
        strcmp(p->name, name) != 0)
        return cg_error_say(err, EIO, "is the point backups/%s/%s/%s, in another's place",
                            p->project, p->volume, p->name);
    return 0;
}

/* What a head has. */
static int decode_doc(json_t *doc, struct cg_point *p, struct cg_error *err)
{
    const char *project, *volume, *name, *text, *image, *snapshot, *snapshot_name, *parent, *tool;
    const char *source_parent = "";
    json_int_t format = 0, sequence, size, original, time;

    if (json_unpack(doc, "{s:I}", "format", &format) < 0)
        return bad(err, "no format");
    if (format != FORMAT)
        return cg_error_say(err, ENOTSUP,
                            "has format %lld; this version of cowgate reads format %d",
                            (long long)format, FORMAT);
    if (json_unpack(doc,
                    "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:{s:s, s:s, s:s, s:s, s?s}, s:s, s:s}",
                    "project", &project, "volume", &volume, "name", &name, "sequence", &sequence,
                    "size", &size, "original_size", &original, "time", &time, "source", "text",
                    &text, "image", &image, "snapshot", &snapshot, "snapshot_name", &snapshot_name,
                    "parent", &source_parent, "parent", &parent, "tool", &tool) < 0)
        return bad(err, "something is missing");
    json_t *superseded = json_object_get(doc, "superseded");
    if (superseded && !json_is_array(superseded))
        return bad(err, "what it supersedes is no list");
    p->superseded = json_incref(superseded);
    if (sequence < 1 || size < 1 || original < 0)
        return bad(err, "a number out of range");
    p->page_count = cg_page_count((uint64_t)size);
    if (p->page_count > CG_POINT_PAGES_MAX)
        return bad(err, "a size out of range");
    p->sequence = (uint64_t)sequence;
    p->size = (uint64_t)size;
    p->original_size = (uint64_t)original;
    p->time = time;
    if (!copy(p->project, sizeof p->project, project) ||
        !copy(p->volume, sizeof p->volume, volume) || !copy(p->name, sizeof p->name, name) ||
        !copy(p->source.text, sizeof p->source.text, text) ||
        !copy(p->source.identity.image, sizeof p->source.identity.image, image) ||
        !copy(p->source.identity.snapshot, sizeof p->source.identity.snapshot, snapshot) ||
        !copy(p->source.identity.parent, sizeof p->source.identity.parent, source_parent) ||
        !copy(p->source.snapshot, sizeof p->source.snapshot, snapshot_name) ||
        !copy(p->parent, sizeof p->parent, parent) || !copy(p->tool, sizeof p->tool, tool))
        return bad(err, "a text is too long");
    return 0;
}

static int decode_session(json_t *doc, struct cg_point *p, struct cg_error *err)
{
    const char *id;
    json_int_t era;
    json_t *pins;

    if (json_unpack(doc, "{s:{s:s, s:I, s:o}}", "session", "id", &id, "era", &era, "pins", &pins) <
            0 ||
        era < 1 || era > UINT32_MAX || !json_is_array(pins) ||
        !copy(p->session, sizeof p->session, id))
        return bad(err, "the session is missing");
    p->era = (uint32_t)era;
    p->pins = json_incref(pins);
    return 0;
}

static bool decode_page(const char *text, struct cg_ref *ret)
{
    char era[9];

    if (strlen(text) != 9 + 2 * CG_OBJECT_ID || text[8] != '/')
        return false;
    memcpy(era, text, 8);
    era[8] = '\0';
    if (!cg_object_era(era, &ret->era) || !cg_unhex(ret->id, sizeof ret->id, text + 9))
        return false;
    ret->len = CG_PAGE_BYTES;
    return ret->era > 0;
}

static int decode_pages(json_t *doc, struct cg_point *p, struct cg_error *err)
{
    json_t *pages = json_object_get(doc, "pages"), *entry;
    size_t i;
    uint64_t n = 0;

    p->pages = calloc(p->page_count, sizeof *p->pages);
    if (!p->pages)
        return cg_error_set(err, ENOMEM, "read a point of %" PRIu64 " pages", p->page_count);
    json_array_foreach (pages, i, entry) {
        if (json_is_integer(entry)) {
            json_int_t zeros = json_integer_value(entry);
            if (zeros < 1 || (uint64_t)zeros > p->page_count - n)
                return bad(err, "more pages than the volume has");
            n += (uint64_t)zeros;
        } else if (n == p->page_count) {
            return bad(err, "more pages than the volume has");
        } else if (!json_is_string(entry) || !decode_page(json_string_value(entry), &p->pages[n])) {
            return bad(err, "a page that is no reference");
        } else {
            n++;
        }
    }
    return n == p->page_count ? 0 : bad(err, "fewer pages than the volume has");
}

static int check_mac(struct cg_keys *keys, const char *text, size_t len, size_t line,
                     struct cg_error *err)
{
    uint8_t mac[CG_KEYS_MAC], stored[CG_KEYS_MAC];
    char hex[2 * CG_KEYS_MAC + 1];

    if (len != line + 1 + 2 * CG_KEYS_MAC + 1 || text[len - 1] != '\n')
        return bad(err, "it doesn't have two lines");
    memcpy(hex, text + line + 1, 2 * CG_KEYS_MAC);
    hex[2 * CG_KEYS_MAC] = '\0';
    if (!cg_unhex(stored, sizeof stored, hex))
        return bad(err, "the second line isn't a MAC");
    int r = cg_keys_point_mac(keys, text, line, mac, err);
    if (r < 0)
        return r;
    if (CRYPTO_memcmp(mac, stored, sizeof mac) != 0)
        return bad(err, "its MAC is wrong");
    return 0;
}

int cg_point_decode(struct cg_keys *keys, const char *project, const char *volume, const char *name,
                    const char *text, size_t len, struct cg_point **ret_point, struct cg_error *err)
{
    json_error_t why;

    const char *end = memchr(text, '\n', len);
    if (!end)
        return bad(err, "it doesn't have two lines");
    size_t line = (size_t)(end - text);
    int r = check_mac(keys, text, len, line, err);
    if (r < 0)
        return r;
    CG_CLEANUP(cg_json_cleanup) json_t *doc = json_loadb(text, line, JSON_REJECT_DUPLICATES, &why);
    if (!doc)
        return bad(err, why.text);
    CG_CLEANUP(cg_point_cleanup) struct cg_point *p = cg_point_new();
    if (!p)
        return cg_error_set(err, ENOMEM, "read a point");
    r = decode_doc(doc, p, err);
    if (r == 0)
        r = check_place(p, project, volume, name, err);
    if (r == 0)
        r = decode_session(doc, p, err);
    if (r == 0)
        r = decode_pages(doc, p, err);
    if (r < 0)
        return r;
    *ret_point = p;
    p = NULL;
    return 0;
}

int cg_point_decode_head(const char *project, const char *volume, const char *name,
                         const char *text, size_t len, struct cg_point **ret_point,
                         struct cg_error *err)
{
    char head[CG_POINT_HEAD + 16];
    json_error_t why;

    const char *pages = memmem(text, len, PAGES_KEY, strlen(PAGES_KEY));
    if (!pages || pages - text > CG_POINT_HEAD)
        return bad(err, "its head doesn't end");
    const char *check = memmem(text, (size_t)(pages - text), CHECK_KEY, strlen(CHECK_KEY));
    if (!check || pages - check < (ptrdiff_t)(strlen(CHECK_KEY) + CHECK_LEN))
        return bad(err, "its head has no check");
    char hex[CHECK_LEN + 1];
    snprintf(hex, sizeof hex, "%08" PRIx32, head_check(text, check));
    if (memcmp(check + strlen(CHECK_KEY), hex, CHECK_LEN) != 0)
        return bad(err, "its head doesn't pass its check");
    int n = snprintf(head, sizeof head, "%.*s" PAGES_KEY "[]}", (int)(pages - text), text);
    CG_CLEANUP(cg_json_cleanup)
    json_t *doc = json_loadb(head, (size_t)n, JSON_REJECT_DUPLICATES, &why);
    if (!doc)
        return bad(err, why.text);
    CG_CLEANUP(cg_point_cleanup) struct cg_point *p = cg_point_new();
    if (!p)
        return cg_error_set(err, ENOMEM, "read a point");
    int r = decode_doc(doc, p, err);
    if (r == 0)
        r = check_place(p, project, volume, name, err);
    if (r < 0)
        return r;
    *ret_point = p;
    p = NULL;
    return 0;
}
