/* An object's envelope: the input is the object, taken for the one that its header says it is. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/backups/keys.h"
#include "core/base/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Keys that are the same in every run, so that objects of the corpus can be right ones. */
static struct cg_keys *keys(void)
{
    static const char text[] =
        "{\"format\": 1, \"project\": \"acme\", \"keys\": [{\"generation\": 1, \"wrap\": \"none\", "
        "\"key\": \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\", "
        "\"check\": \"7e31e2f39029adc1e4b906d060369a13b62487314e75554a303fe7792bee2e20\"}]}";
    struct cg_error err;
    struct cg_keys *k;

    if (cg_keys_parse("acme", text, sizeof text - 1, &k, &err) < 0)
        abort();
    return k;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum cg_object_kind kinds[] = { CG_OBJECT_CHUNK, CG_OBJECT_PAGE };
    struct cg_ref ref = { .era = 1, .len = 4096 };
    struct cg_error err;
    uint8_t id[CG_OBJECT_ID];

    if (size >= CG_OBJECT_HEADER) {
        ref.len = cg_le32(data + 8);
        memcpy(ref.id, data + 20, sizeof ref.id);
    }
    if (ref.len == 0 || ref.len > CG_CHUNK_SIZE)
        return 0;
    struct cg_keys *k = keys();
    struct cg_codec *codec = cg_codec_new();
    uint8_t *plain = malloc(ref.len);
    for (int i = 0; i < 2; i++) {
        if (cg_object_decode(codec, k, kinds[i], &ref, data, size, plain, &err) < 0)
            continue;
        /* Never wrong bytes. */
        if (cg_keys_object_id(k, kinds[i], plain, ref.len, id, &err) < 0 ||
            memcmp(id, ref.id, sizeof id) != 0)
            abort();
    }
    free(plain);
    cg_codec_free(codec);
    cg_keys_free(k);
    return 0;
}
