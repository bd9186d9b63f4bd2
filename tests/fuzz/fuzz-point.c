/* A point: the input is its first line, to which the right MAC is put; and a whole file. */
#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/keys.h"
#include "core/backups/page.h"
#include "core/backups/point.h"
#include "core/base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cg_keys *keys(void)
{
    static struct cg_keys *k;
    struct cg_error err;
    char *text;

    if (k)
        return k;
    if (cg_keys_generate("acme", &text, &err) < 0 ||
        cg_keys_parse("acme", text, strlen(text), &k, &err) < 0)
        abort();
    cg_keys_text_free(text);
    return k;
}

static void decode(const char *text, size_t len)
{
    struct cg_point *p;
    struct cg_error err;

    if (cg_point_decode(keys(), "acme", "web", "20231114T221320Z", text, len, &p, &err) == 0) {
        for (uint64_t i = 0; i < p->page_count; i++) {
            if (p->pages[i].len != 0 && p->pages[i].len != CG_PAGE_BYTES)
                abort();
        }
        cg_point_free(p);
    }
    if (cg_point_decode_head("acme", "web", "20231114T221320Z", text, len, &p, &err) == 0)
        cg_point_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 2 * CG_KEYS_MAC + 3);
    uint8_t mac[CG_KEYS_MAC];
    struct cg_error err;

    if (size > 0)
        memcpy(text, data, size);
    decode(text, size);
    size_t line = size > 0 && text[size - 1] == '\n' ? size - 1 : size;
    if (cg_keys_point_mac(keys(), text, line, mac, &err) < 0)
        abort();
    text[line] = '\n';
    cg_hex(text + line + 1, mac, sizeof mac);
    text[line + 1 + 2 * CG_KEYS_MAC] = '\n';
    decode(text, line + 2 + 2 * CG_KEYS_MAC);
    free(text);
    return 0;
}
