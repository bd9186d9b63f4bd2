#include "config.h"

#include <errno.h>
#include <string.h>

#include "core/base/bytes.h"
#include "core/base/cleanup.h"
#include "core/base/json.h"
#include "core/volumes/writer_record.h"

int cg_writer_record_encode(const struct cg_writer *writer, char ret[static CG_WRITER_RECORD],
                            struct cg_error *err)
{
    json_t *root = json_pack("{s:I, s:b, s:s, s:s, s:s}", "pid", (json_int_t)writer->pid, "brief",
                             writer->brief, "boot", writer->boot, "run", writer->run, "socket",
                             writer->socket);
    CG_CLEANUP(cg_free) char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

    json_decref(root);
    if (!text)
        return cg_error_set(err, ENOMEM, "write the lock file");
    size_t len = strlen(text);
    if (len >= CG_WRITER_RECORD)
        return cg_error_set(err, ENAMETOOLONG, "write run directory %s to the lock file",
                            writer->run);
    memcpy(ret, text, len);
    memset(ret + len, ' ', CG_WRITER_RECORD - len - 1);
    ret[CG_WRITER_RECORD - 1] = '\n';
    return 0;
}

static bool is_place(const char *path)
{
    return !*path || *path == '/';
}

static int take(const json_t *root, struct cg_writer *ret)
{
    struct cg_writer writer = { .brief = json_is_true(json_object_get(root, "brief")) };
    json_int_t pid = json_integer_value(json_object_get(root, "pid"));

    if (pid < 1 || pid > INT32_MAX ||
        !cg_json_text(root, "boot", writer.boot, sizeof writer.boot) ||
        !cg_json_text(root, "run", writer.run, sizeof writer.run) ||
        !cg_json_text(root, "socket", writer.socket, sizeof writer.socket) ||
        !cg_uuid_valid(writer.boot) || !is_place(writer.run) || !is_place(writer.socket))
        return -EIO;
    writer.pid = (pid_t)pid;
    *ret = writer;
    return 0;
}

int cg_writer_record_decode(const char *text, size_t len, struct cg_writer *ret)
{
    json_t *root =
        len == CG_WRITER_RECORD ? json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    int r = root ? take(root, ret) : -EIO;

    json_decref(root);
    return r;
}
