#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "core/backups/keys.h"
#include "core/base/bytes.h"

/* Thread model: a struct cg_keys doesn't change after it is made; each computation works on a
 * duplicate of a context that has its key. */

#define FORMAT 1
#define KEY 32
#define HEX (2 * KEY + 1)

struct cg_keys {
    EVP_MAC_CTX *id;    /* HMAC-SHA256, keyed */
    EVP_MAC_CTX *point; /* HMAC-SHA256, keyed */
};

void cg_keys_text_free(char *text)
{
    if (text)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
}

/* HKDF-SHA256 (RFC 5869) of the master key; no salt, info says what for. */
static bool derive(const uint8_t master[static KEY], const char *info, uint8_t ret[static KEY])
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)master, KEY),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, strlen(info)),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    bool ok = ctx && EVP_KDF_derive(ctx, ret, KEY, params) == 1;

    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok;
}

/* What shows that a key and a project's name are what they were: a key with a flipped bit is a key
 * like any other, and points written with it would be lost. */
static bool checksum(const uint8_t master[static KEY], const char *project, char ret[static HEX])
{
    char info[CG_PART_MAX + 32];
    uint8_t check[KEY];

    snprintf(info, sizeof info, "cowgate project %s", project);
    if (!derive(master, info, check))
        return false;
    cg_hex(ret, check, sizeof check);
    return true;
}

int cg_keys_generate(const char *project, char **ret_text, struct cg_error *err)
{
    uint8_t key[KEY];
    char hex[HEX], check[HEX];
    json_t *doc = NULL;

    cg_random(key, sizeof key);
    cg_hex(hex, key, sizeof key);
    if (checksum(key, project, check))
        doc =
            json_pack("{s:i, s:s, s:[{s:i, s:s, s:s, s:s}]}", "format", FORMAT, "project", project,
                      "keys", "generation", 1, "wrap", "none", "key", hex, "check", check);
    OPENSSL_cleanse(key, sizeof key);
    OPENSSL_cleanse(hex, sizeof hex);
    char *text = doc ? json_dumps(doc, JSON_INDENT(2)) : NULL;
    json_decref(doc);
    if (!text)
        return cg_error_set(err, ENOMEM, "make keys");
    *ret_text = text;
    return 0;
}

/* An HMAC-SHA256 context keyed with what info derives, or NULL. */
static EVP_MAC_CTX *keyed(EVP_MAC *hmac, const uint8_t master[static KEY], const char *info)
{
    uint8_t key[KEY];
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(hmac);

    if (ctx && (!derive(master, info, key) || EVP_MAC_init(ctx, key, sizeof key, params) != 1)) {
        EVP_MAC_CTX_free(ctx);
        ctx = NULL;
    }
    OPENSSL_cleanse(key, sizeof key);
    return ctx;
}

static int make_keys(const uint8_t master[static KEY], struct cg_keys **ret, struct cg_error *err)
{
    struct cg_keys *keys = calloc(1, sizeof *keys);
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);

    if (keys && hmac) {
        keys->id = keyed(hmac, master, "cowgate object id");
        keys->point = keyed(hmac, master, "cowgate point mac");
    }
    EVP_MAC_free(hmac);
    if (!keys || !keys->id || !keys->point) {
        cg_keys_free(keys);
        return cg_error_set(err, ENOMEM, "derive keys");
    }
    *ret = keys;
    return 0;
}

/* The first generation's master key: ids and MACs stay the same when later ones are added. */
static int master_of(const char *project, json_t *doc, uint8_t ret[static KEY],
                     struct cg_error *err)
{
    int format = 0, generation = 0;
    const char *own = NULL, *wrap = NULL, *key = NULL, *check = NULL;
    char expected[HEX];
    json_t *list = NULL;

    if (json_unpack(doc, "{s:i}", "format", &format) < 0 || format < 1)
        return cg_error_say(err, EIO, "project.json has no format");
    if (format != FORMAT)
        return cg_error_say(err, ENOTSUP,
                            "project.json has format %d; this version of cowgate reads format %d",
                            format, FORMAT);
    if (json_unpack(doc, "{s:s, s:o}", "project", &own, "keys", &list) < 0 ||
        json_unpack(json_array_get(list, 0), "{s:i, s:s}", "generation", &generation, "wrap",
                    &wrap) < 0 ||
        generation != 1)
        return cg_error_say(err, EIO, "project.json doesn't have what it must");
    if (strcmp(own, project) != 0)
        return cg_error_say(err, EIO, "project.json belongs to project '%.128s'", own);
    if (strcmp(wrap, "none") != 0)
        return cg_error_say(err, ENOTSUP,
                            "the project's key is wrapped by '%.64s'; this version of cowgate "
                            "can't unwrap that",
                            wrap);
    if (json_unpack(json_array_get(list, 0), "{s:s, s:s}", "key", &key, "check", &check) < 0 ||
        !cg_unhex(ret, KEY, key))
        return cg_error_say(err, EIO, "project.json's key isn't 64 hex digits");
    if (!checksum(ret, project, expected))
        return cg_error_set(err, ENOMEM, "check project.json");
    if (strcmp(check, expected) != 0)
        return cg_error_say(err, EIO, "project.json is damaged: its key doesn't pass its check");
    return 0;
}

int cg_keys_parse(const char *project, const char *text, size_t len, struct cg_keys **ret_keys,
                  struct cg_error *err)
{
    json_error_t why;
    uint8_t master[KEY];
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

    if (!doc)
        return cg_error_say(err, EIO, "project.json isn't JSON: %s", why.text);
    int r = master_of(project, doc, master, err);
    if (r == 0)
        r = make_keys(master, ret_keys, err);
    OPENSSL_cleanse(master, sizeof master);
    json_decref(doc);
    return r;
}

void cg_keys_free(struct cg_keys *keys)
{
    if (!keys)
        return;
    EVP_MAC_CTX_free(keys->id); /* wipes */
    EVP_MAC_CTX_free(keys->point);
    free(keys);
}

static int mac(EVP_MAC_CTX *key, const void *prefix, size_t prefix_len, const void *buf, size_t len,
               uint8_t ret[static 32], struct cg_error *err)
{
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_dup(key);
    size_t n = 0;
    bool ok = ctx && EVP_MAC_update(ctx, prefix, prefix_len) == 1 &&
              EVP_MAC_update(ctx, buf, len) == 1 && EVP_MAC_final(ctx, ret, &n, 32) == 1 && n == 32;

    EVP_MAC_CTX_free(ctx);
    return ok ? 0 : cg_error_set(err, ENOMEM, "HMAC-SHA256");
}

int cg_keys_object_id(struct cg_keys *keys, enum cg_object_kind kind, const void *plain, size_t len,
                      uint8_t ret_id[static CG_OBJECT_ID], struct cg_error *err)
{
    uint8_t prefix[9] = { (uint8_t)kind };

    cg_put_le64(prefix + 1, len);
    return mac(keys->id, prefix, sizeof prefix, plain, len, ret_id, err);
}

int cg_keys_point_mac(struct cg_keys *keys, const void *line, size_t len,
                      uint8_t ret_mac[static CG_KEYS_MAC], struct cg_error *err)
{
    return mac(keys->point, NULL, 0, line, len, ret_mac, err);
}
