/* The file `lock` of a volume. */
#include "config.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/volumes/writer_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is taken makes sense, and reads the same again if it can be written: what was escaped may be
 * longer. */
static void decode(const char *text, size_t len)
{
    struct cg_writer writer, again;
    char record[CG_WRITER_RECORD];
    struct cg_error err;

    if (cg_writer_record_decode(text, len, &writer) < 0)
        return;
    if (writer.pid < 1 || !*writer.boot || (*writer.run && *writer.run != '/') ||
        (*writer.socket && *writer.socket != '/'))
        abort();
    int r = cg_writer_record_encode(&writer, record, &err);
    if (r == -ENAMETOOLONG)
        return;
    if (r < 0 || cg_writer_record_decode(record, sizeof record, &again) < 0 ||
        again.pid != writer.pid || again.brief != writer.brief ||
        strcmp(again.boot, writer.boot) != 0 || strcmp(again.run, writer.run) != 0 ||
        strcmp(again.socket, writer.socket) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char padded[CG_WRITER_RECORD];

    decode((const char *)data, size);
    if (size < sizeof padded) {
        memset(padded, ' ', sizeof padded);
        if (size > 0)
            memcpy(padded, data, size);
        decode(padded, sizeof padded);
    }
    return 0;
}
