#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zstd.h>

#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/backups/point.h"
#include "core/base/bytes.h"
#include "core/base/files.h"
#include "tests/unit/cmocka-all.h"

/* The formats: what was written comes back, and whatever is changed in it is an error, never other
 * bytes. */

struct made {
    struct cg_keys *keys;
    struct cg_codec *codec;
    struct cg_ref ref;
    uint8_t *plain, *object, *back;
    size_t object_len;
};

static struct cg_keys *new_keys(const char *project)
{
    struct cg_error err;
    struct cg_keys *keys;
    char *text;

    assert_int_equal(cg_keys_generate(project, &text, &err), 0);
    if (cg_keys_parse(project, text, strlen(text), &keys, &err) < 0)
        fail_msg("%s", err.message);
    cg_keys_text_free(text);
    return keys;
}

/* An object of len bytes: noise, or the same few bytes again and again. */
static void make(struct made *m, uint32_t len, bool noise)
{
    struct cg_error err;
    struct cg_encoded e;

    m->keys = new_keys("acme");
    m->codec = cg_codec_new();
    m->plain = malloc(len);
    m->back = malloc(len);
    m->object = malloc(CG_OBJECT_HEADER + (size_t)len + 1);
    if (noise)
        cg_random(m->plain, len);
    for (uint32_t i = 0; !noise && i < len; i++)
        m->plain[i] = (uint8_t)(i % 7 + i / 1000);
    m->ref = (struct cg_ref){ .era = 1, .len = len };
    assert_int_equal(cg_keys_object_id(m->keys, CG_OBJECT_CHUNK, m->plain, len, m->ref.id, &err),
                     0);
    assert_int_equal(
        cg_object_encode(m->codec, CG_OBJECT_CHUNK, m->ref.id, m->plain, len, &e, &err), 0);
    assert_int_equal(e.payload == m->plain, noise);
    memcpy(m->object, e.header, sizeof e.header);
    memcpy(m->object + CG_OBJECT_HEADER, e.payload, e.payload_len);
    m->object_len = CG_OBJECT_HEADER + e.payload_len;
}

static void done(struct made *m)
{
    cg_keys_free(m->keys);
    cg_codec_free(m->codec);
    free(m->plain);
    free(m->back);
    free(m->object);
}

static int decode(struct made *m, size_t len)
{
    struct cg_error err = { .message = "" };

    int r = cg_object_decode(m->codec, m->keys, CG_OBJECT_CHUNK, &m->ref, m->object, len, m->back,
                             &err);
    assert_true(r == 0 || err.message[0]);
    return r;
}

/* Makes the checksums right again after a change. */
static void seal(struct made *m)
{
    cg_put_le32(m->object + 80,
                cg_crc32c(m->object + CG_OBJECT_HEADER, m->object_len - CG_OBJECT_HEADER));
    cg_put_le32(m->object + 92, 0);
    cg_put_le32(m->object + 92, cg_crc32c(m->object, CG_OBJECT_HEADER));
}

static void test_round_trip(void **state)
{
    (void)state;
    static const uint32_t sizes[] = { 512, 24576, 1000000, CG_CHUNK_SIZE };

    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        struct made m;
        make(&m, sizes[i / 2], i % 2);
        assert_int_equal(decode(&m, m.object_len), 0);
        assert_memory_equal(m.plain, m.back, m.ref.len);
        assert_memory_equal(m.object, "CGOB\1\0\1", 7);
        done(&m);
    }
}

static void test_header_flips(void **state)
{
    (void)state;
    struct made m;
    uint8_t before[CG_OBJECT_HEADER];

    make(&m, 20000, false);
    memcpy(before, m.object, sizeof before);
    for (unsigned i = 0; i < 8 * CG_OBJECT_HEADER; i++) {
        m.object[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(decode(&m, m.object_len), -EIO);
        /* Somebody who can compute a checksum gets no further, whatever field it is. */
        seal(&m);
        int r = decode(&m, m.object_len);
        bool checksum = (i / 8 >= 80 && i / 8 < 84) || i / 8 >= 92;
        assert_true(checksum ? r == 0 : r == -EIO || r == -ENOTSUP);
        memcpy(m.object, before, sizeof before);
    }
    assert_int_equal(decode(&m, m.object_len), 0);
    m.object[7] |= 2;
    seal(&m);
    assert_int_equal(decode(&m, m.object_len), -ENOTSUP); /* encrypted */
    memcpy(m.object, before, sizeof before);
    m.object[4] = 2;
    seal(&m);
    assert_int_equal(decode(&m, m.object_len), -ENOTSUP); /* a later format */
    done(&m);
}

static void test_payload_flips(void **state)
{
    (void)state;
    for (int noise = 0; noise < 2; noise++) {
        struct made m;
        make(&m, 4000, noise);
        for (size_t i = CG_OBJECT_HEADER; i < m.object_len; i++) {
            m.object[i] ^= 0x10;
            assert_int_equal(decode(&m, m.object_len), -EIO);
            seal(&m);
            int r = decode(&m, m.object_len);
            /* A few bits of a zstd frame mean nothing. */
            assert_true(r == -EIO || memcmp(m.plain, m.back, m.ref.len) == 0);
            m.object[i] ^= 0x10;
            seal(&m);
        }
        for (size_t len = 0; len < m.object_len; len++)
            assert_int_equal(decode(&m, len), -EIO);
        m.object[m.object_len] = 0;
        assert_int_equal(decode(&m, m.object_len + 1), -EIO);
        assert_int_equal(decode(&m, m.object_len), 0);
        done(&m);
    }
}

static void test_other_object(void **state)
{
    (void)state;
    struct made m;
    struct cg_error err;

    make(&m, 5000, true);
    struct cg_ref other = m.ref;
    other.id[5] ^= 1;
    assert_int_equal(cg_object_decode(m.codec, m.keys, CG_OBJECT_CHUNK, &other, m.object,
                                      m.object_len, m.back, &err),
                     -EIO);
    assert_int_equal(cg_object_decode(m.codec, m.keys, CG_OBJECT_PAGE, &m.ref, m.object,
                                      m.object_len, m.back, &err),
                     -EIO);
    struct cg_keys *keys = new_keys("acme");
    assert_int_equal(cg_object_decode(m.codec, keys, CG_OBJECT_CHUNK, &m.ref, m.object,
                                      m.object_len, m.back, &err),
                     -EIO);
    cg_keys_free(keys);
    done(&m);
}

/* Replaces the payload by a zstd frame (or two) of len zeros. */
static void bomb(struct made *m, size_t len, int frames, bool with_size)
{
    size_t bound = ZSTD_compressBound(len);
    uint8_t *zeros = calloc(1, len);
    ZSTD_CCtx *c = ZSTD_createCCtx();

    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, with_size);
    m->object = realloc(m->object, CG_OBJECT_HEADER + 2 * bound);
    m->object_len = CG_OBJECT_HEADER;
    for (int i = 0; i < frames; i++)
        m->object_len += ZSTD_compress2(c, m->object + m->object_len, bound, zeros, len);
    cg_put_le32(m->object + 12, (uint32_t)(m->object_len - CG_OBJECT_HEADER));
    seal(m);
    ZSTD_freeCCtx(c);
    free(zeros);
}

static void test_bomb(void **state)
{
    (void)state;
    struct made m;

    make(&m, 65536, false);
    bomb(&m, 64 << 20, 1, true);
    assert_int_equal(decode(&m, m.object_len), -EIO);
    bomb(&m, 64 << 20, 1, false);
    assert_int_equal(decode(&m, m.object_len), -EIO);
    bomb(&m, 32768, 2, true);
    assert_int_equal(decode(&m, m.object_len), -EIO);
    bomb(&m, 65536, 1, true); /* the right size, but not the content */
    assert_int_equal(decode(&m, m.object_len), -EIO);
    done(&m);
}

static void test_page(void **state)
{
    (void)state;
    struct cg_ref refs[CG_PAGE_CHUNKS] = { 0 }, back[CG_PAGE_CHUNKS];
    uint8_t page[CG_PAGE_BYTES];
    struct cg_error err;
    uint64_t size = 3 * CG_PAGE_SPAN - CG_CHUNK_SIZE + 512;

    for (unsigned i = 0; i < CG_PAGE_CHUNKS; i += 3) {
        cg_random(refs[i].id, sizeof refs[i].id);
        refs[i].era = i + 1;
        refs[i].len = CG_CHUNK_SIZE;
    }
    cg_random(refs[511].id, sizeof refs[511].id);
    refs[511].era = 1;
    refs[511].len = 512;
    cg_page_encode(refs, page);
    assert_int_equal(cg_page_decode(page, 2, size, back, &err), 0);
    assert_memory_equal(refs, back, sizeof refs);
    /* The last chunk is shorter only where the volume ends there. */
    assert_int_equal(cg_page_decode(page, 1, size, back, &err), -EIO);
    assert_int_equal(cg_page_decode(page, 2, size + 512, back, &err), -EIO);
    assert_int_equal(cg_page_decode(page, 3, size, back, &err), -EIO);
    /* Bytes that must be zero, in an entry and in one of zeros. */
    static const unsigned at[] = { 36, 44, 48 + 0, 48 + 32, 48 + 36, 48 + 44 };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        page[at[i]] ^= 1;
        assert_int_equal(cg_page_decode(page, 2, size, back, &err), -EIO);
        page[at[i]] ^= 1;
    }
    cg_put_le32(page + 40, CG_CHUNK_SIZE + 1);
    assert_int_equal(cg_page_decode(page, 0, UINT64_MAX >> 2, back, &err), -EIO);
    assert_int_equal(cg_page_entry(page, 0, back, &err), -EIO);
}

static struct cg_point *new_point(void)
{
    struct cg_point *p = cg_point_new();

    strcpy(p->project, "acme");
    strcpy(p->volume, "web");
    cg_point_name(1700000000, 2, p->name);
    assert_string_equal(p->name, "20231114T221320Z-2");
    p->sequence = 7;
    p->size = 10 * CG_PAGE_SPAN - 512;
    p->original_size = p->size - 100;
    p->time = 1700000000;
    strcpy(p->source.text, "a \"quoted\" text, \"pages\": [ and \xff");
    strcpy(p->source.identity.image, "i");
    strcpy(p->source.identity.snapshot, "s");
    strcpy(p->source.snapshot, "cowgate-1");
    strcpy(p->parent, "20231114T221320Z");
    strcpy(p->tool, "test");
    strcpy(p->session, "01234567-0123456789abcdef");
    p->era = 3;
    p->pins = json_pack("[s]", "web/20231114T221320Z");
    p->page_count = 10;
    p->pages = calloc(10, sizeof *p->pages);
    p->pages[3] = (struct cg_ref){ .id = { 1, 2 }, .era = 3, .len = CG_PAGE_BYTES };
    p->pages[4] = (struct cg_ref){ .id = { 3, 4 }, .era = 0xffffffff, .len = CG_PAGE_BYTES };
    return p;
}

static int decode_point(struct cg_keys *keys, const char *text, size_t len)
{
    struct cg_error err = { .message = "" };
    struct cg_point *back = NULL;

    int r = cg_point_decode(keys, "acme", "web", "20231114T221320Z-2", text, len, &back, &err);
    assert_true(r == 0 || err.message[0]);
    cg_point_free(back);
    return r;
}

static void test_point(void **state)
{
    (void)state;
    struct cg_keys *keys = new_keys("acme"), *others = new_keys("acme");
    struct cg_point *p = new_point(), *back, *head;
    struct cg_error err;
    char *text;
    size_t len;

    assert_int_equal(cg_point_encode(p, keys, &text, &len, &err), 0);
    assert_int_equal(
        cg_point_decode(keys, "acme", "web", "20231114T221320Z-2", text, len, &back, &err), 0);
    assert_true(back->size == p->size && back->original_size == p->original_size);
    assert_true(back->sequence == 7 && back->time == 1700000000 && back->era == 3);
    assert_int_equal(back->page_count, 10);
    assert_memory_equal(back->pages, p->pages, 10 * sizeof *p->pages);
    assert_string_equal(back->source.text, "a \"quoted\" text, \"pages\": [ and ?");
    assert_string_equal(back->parent, p->parent);
    assert_string_equal(back->session, p->session);
    assert_true(json_equal(back->pins, p->pins));
    assert_int_equal(
        cg_point_decode_head("acme", "web", "20231114T221320Z-2", text, len, &head, &err), 0);
    assert_true(head->sequence == 7 && head->size == p->size && !head->pages);
    assert_string_equal(head->source.snapshot, "cowgate-1");
    cg_point_free(head);
    /* Elsewhere it's another's. */
    assert_int_equal(
        cg_point_decode(keys, "acme", "www", "20231114T221320Z-2", text, len, &head, &err), -EIO);
    assert_int_equal(
        cg_point_decode(keys, "acme", "web", "20231114T221320Z", text, len, &head, &err), -EIO);
    assert_int_equal(
        cg_point_decode(keys, "b", "web", "20231114T221320Z-2", text, len, &head, &err), -EIO);
    assert_int_equal(decode_point(others, text, len), -EIO);
    for (size_t i = 0; i < 8 * len; i++) {
        text[i / 8] ^= (char)(1 << i % 8);
        assert_int_equal(decode_point(keys, text, len), -EIO);
        text[i / 8] ^= (char)(1 << i % 8);
    }
    for (size_t i = 0; i < len; i++)
        assert_int_equal(decode_point(keys, text, i), -EIO);
    text[len] = '\n'; /* in place of the NUL */
    assert_int_equal(decode_point(keys, text, len + 1), -EIO);
    cg_point_free(p);
    cg_point_free(back);
    cg_keys_free(keys);
    cg_keys_free(others);
    free(text);
}

/* The point with some text replaced, and a MAC that is right. */
static int forged(struct cg_keys *keys, const char *from, const char *to)
{
    struct cg_point *p = new_point();
    struct cg_error err;
    char *text, *line, hex[2 * CG_KEYS_MAC + 1];
    uint8_t mac[CG_KEYS_MAC];
    size_t len;

    assert_int_equal(cg_point_encode(p, keys, &text, &len, &err), 0);
    *strchr(text, '\n') = '\0';
    char *at = strstr(text, from);
    assert_non_null(at);
    *at = '\0';
    assert_true(asprintf(&line, "%s%s%s", text, to, at + strlen(from)) > 0);
    assert_int_equal(cg_keys_point_mac(keys, line, strlen(line), mac, &err), 0);
    cg_hex(hex, mac, sizeof mac);
    free(text);
    assert_true(asprintf(&text, "%s\n%s\n", line, hex) > 0);
    int r = decode_point(keys, text, strlen(text));
    free(line);
    free(text);
    cg_point_free(p);
    return r;
}

static void test_forged_point(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        int result;
    } cases[] = {
        { "\"era\"", "\"era\"", 0 },
        { "\"format\": 1", "\"format\": 2", -ENOTSUP },
        { "\"format\": 1", "\"format\": \"1\"", -EIO },
        { "\"pages\": [3,", "\"pages\": [4,", -EIO },
        { "\"pages\": [3,", "\"pages\": [2,", -EIO },
        { "\"pages\": [3,", "\"pages\": [-3,", -EIO },
        { "\"pages\": [3,", "\"pages\": [3000000000000,", -EIO },
        { "\"pages\": [3,", "\"pages\": [3, null,", -EIO },
        { "ffffffff/", "00000000/", -EIO },
        { "ffffffff/", "ffffffff", -EIO },
        { "\"size\": 2", "\"size\": -2", -EIO },
        { "\"size\": 2", "\"size\": 999999992", -EIO },
        { "\"sequence\": 7", "\"sequence\": 0", -EIO },
        { "\"tool\": \"test\", ", "", -EIO },
        { "\"pins\": [", "\"pins\": {}, \"x\": [", -EIO },
        { "{\"format\"", "[\"format\"", -EIO },
    };
    struct cg_keys *keys = new_keys("acme");

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int r = forged(keys, cases[i].from, cases[i].to);
        if (r != cases[i].result)
            fail_msg("%s: %d", cases[i].to, r);
    }
    cg_keys_free(keys);
}

static void test_keys(void **state)
{
    (void)state;
    struct cg_keys *keys, *again;
    struct cg_error err;
    char *text;
    uint8_t a[32], b[32];

    assert_int_equal(cg_keys_generate("acme", &text, &err), 0);
    size_t len = strlen(text);
    assert_int_equal(cg_keys_parse("acme", text, len, &keys, &err), 0);
    assert_int_equal(cg_keys_parse("acme", text, len, &again, &err), 0);
    assert_int_equal(cg_keys_object_id(keys, CG_OBJECT_CHUNK, "x", 1, a, &err), 0);
    assert_int_equal(cg_keys_object_id(again, CG_OBJECT_CHUNK, "x", 1, b, &err), 0);
    assert_memory_equal(a, b, 32);
    assert_int_equal(cg_keys_object_id(keys, CG_OBJECT_PAGE, "x", 1, b, &err), 0);
    assert_memory_not_equal(a, b, 32);
    assert_int_equal(cg_keys_point_mac(keys, "x", 1, b, &err), 0);
    assert_memory_not_equal(a, b, 32);
    cg_keys_free(keys);
    cg_keys_free(again);
    assert_int_equal(cg_keys_parse("other", text, len, &keys, &err), -EIO);
    for (size_t i = 0; i < len; i++) {
        text[i] ^= 1;
        int r = cg_keys_parse("acme", text, len, &keys, &err);
        if (r == 0)
            fail_msg("byte %zu doesn't matter", i);
        text[i] ^= 1;
    }
    memcpy(strstr(text, "\"format\": 1") + 10, "2", 1);
    assert_int_equal(cg_keys_parse("acme", text, len, &keys, &err), -ENOTSUP);
    cg_keys_text_free(text);
}

/* Files that were made from the description of the format alone, by another program. */
static void test_described(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        enum cg_object_kind kind;
    } cases[] = {
        { "chunk/zstd", CG_OBJECT_CHUNK },
        { "chunk/raw", CG_OBJECT_CHUNK },
        { "chunk/page", CG_OBJECT_PAGE },
    };
    const char *src = getenv("abs_srcdir");
    struct cg_error err;
    struct cg_keys *keys;
    char path[512], *text;
    size_t len;

    snprintf(path, sizeof path, "%s/tests/fuzz/project-json/right", src ? src : ".");
    assert_int_equal(cg_file_read(AT_FDCWD, path, 65536, &text, &len, &err), 0);
    if (cg_keys_parse("acme", text, len, &keys, &err) < 0)
        fail_msg("%s", err.message);
    free(text);
    struct cg_codec *codec = cg_codec_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t plain[65536];
        struct cg_ref ref = { .era = 1 };
        snprintf(path, sizeof path, "%s/tests/fuzz/%s", src ? src : ".", cases[i].file);
        assert_int_equal(cg_file_read(AT_FDCWD, path, 65536, &text, &len, &err), 0);
        ref.len = cg_le32((uint8_t *)text + 8);
        memcpy(ref.id, text + 20, sizeof ref.id);
        if (cg_object_decode(codec, keys, cases[i].kind, &ref, text, len, plain, &err) < 0)
            fail_msg("%s: %s", path, err.message);
        free(text);
    }
    cg_codec_free(codec);
    cg_keys_free(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_header_flips),
        cmocka_unit_test(test_payload_flips), cmocka_unit_test(test_other_object),
        cmocka_unit_test(test_bomb),          cmocka_unit_test(test_page),
        cmocka_unit_test(test_point),         cmocka_unit_test(test_forged_point),
        cmocka_unit_test(test_keys),          cmocka_unit_test(test_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
