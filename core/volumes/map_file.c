#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/cleanup.h"
#include "core/base/files.h"
#include "core/base/size.h"
#include "core/volumes/map_file.h"

/* The header, all little-endian; the bytes between are zeros. */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_BLOCK = 12,
    AT_UUID = 16, /* text, without a NUL */
    AT_SIZE = 56,
    AT_CRC = CG_MAP_HEADER - 4, /* CRC-32C of everything before it */
};
_Static_assert(AT_UUID + CG_UUID_LEN <= AT_SIZE, "the fields of the header overlap");
_Static_assert(CG_MAP_WINDOW * 4 == CG_MAP_WINDOW_BLOCKS, "two bits a block");
_Static_assert(CG_MAP_WINDOW == CG_MAP_WINDOW_SECTORS * CG_MAP_SECTOR, "a window is whole sectors");

static const uint8_t magic[8] = { 'C', 'O', 'W', 'G', 'M', 'A', 'P', '\n' };
#define FORMAT 1

uint64_t cg_map_file_windows(uint64_t size)
{
    uint64_t window = (uint64_t)CG_MAP_WINDOW_BLOCKS * CG_BLOCK;

    return (size + window - 1) / window;
}

void cg_map_file_encode(uint8_t ret[static CG_MAP_HEADER], const struct cg_map_header *header)
{
    memset(ret, 0, CG_MAP_HEADER);
    memcpy(ret + AT_MAGIC, magic, sizeof magic);
    cg_put_le32(ret + AT_VERSION, FORMAT);
    cg_put_le32(ret + AT_BLOCK, CG_BLOCK);
    memcpy(ret + AT_UUID, header->uuid, CG_UUID_LEN);
    cg_put_le64(ret + AT_SIZE, header->size);
    cg_put_le32(ret + AT_CRC, cg_crc32c(ret, AT_CRC));
}

int cg_map_file_decode(const uint8_t *buf, size_t len, struct cg_map_header *ret_header,
                       struct cg_error *err)
{
    struct cg_map_header h = { .uuid = "" };

    if (len < CG_MAP_HEADER)
        return cg_error_say(err, EIO, "the map is damaged: it has only %zu bytes", len);
    if (memcmp(buf + AT_MAGIC, magic, sizeof magic) != 0)
        return cg_error_say(err, EIO, "the map is damaged: it does not begin as a map does");
    if (cg_crc32c(buf, AT_CRC) != cg_le32(buf + AT_CRC))
        return cg_error_say(err, EIO, "the map is damaged: its header's checksum is wrong");
    if (cg_le32(buf + AT_VERSION) != FORMAT)
        return cg_error_say(err, ENOTSUP, "the map has format %u, this program knows format %d",
                            cg_le32(buf + AT_VERSION), FORMAT);
    if (cg_le32(buf + AT_BLOCK) != CG_BLOCK)
        return cg_error_say(err, ENOTSUP, "the map has blocks of %u bytes, this program knows %u",
                            cg_le32(buf + AT_BLOCK), CG_BLOCK);
    memcpy(h.uuid, buf + AT_UUID, CG_UUID_LEN);
    h.size = cg_le64(buf + AT_SIZE);
    if (!cg_uuid_valid(h.uuid) || h.size == 0 || h.size % CG_SECTOR || h.size > CG_IMAGE_MAX)
        return cg_error_say(err, EIO, "the map is damaged: its header makes no sense");
    *ret_header = h;
    return 0;
}

static uint64_t file_length(uint64_t size)
{
    return CG_MAP_HEADER + cg_map_file_windows(size) * CG_MAP_WINDOW;
}

int cg_map_file_create(int dirfd, const char *name, const struct cg_map_header *header,
                       struct cg_error *err)
{
    uint8_t buf[CG_MAP_HEADER];
    CG_CLEANUP(cg_close)
    int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return cg_error_set(err, errno, "create %s", name);
    cg_map_file_encode(buf, header);
    int r = cg_pwrite_full(fd, buf, sizeof buf, 0);
    if (r == 0 && (ftruncate(fd, (off_t)file_length(header->size)) < 0 || fsync(fd) < 0))
        r = -errno;
    if (r < 0) {
        unlinkat(dirfd, name, 0);
        return cg_error_set(err, -r, "write %s", name);
    }
    return 0;
}

static int check(int fd, const char *uuid, uint64_t *ret_size, struct cg_error *err)
{
    struct cg_map_header header;
    uint8_t buf[CG_MAP_HEADER];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return cg_error_set(err, errno, "stat");
    int r = cg_pread_full(fd, buf, sizeof buf, 0);
    if (r == -ENODATA)
        return cg_error_say(err, EIO, "the map is damaged: it has only %llu bytes",
                            (unsigned long long)st.st_size);
    if (r < 0)
        return cg_error_set(err, -r, "read");
    r = cg_map_file_decode(buf, sizeof buf, &header, err);
    if (r < 0)
        return r;
    if (strcmp(header.uuid, uuid) != 0)
        return cg_error_say(err, EIO, "the map is damaged: it belongs to layer %s", header.uuid);
    if ((uint64_t)st.st_size != file_length(header.size))
        return cg_error_say(err, EIO, "the map is damaged: it has %llu bytes and should have %llu",
                            (unsigned long long)st.st_size,
                            (unsigned long long)file_length(header.size));
    *ret_size = header.size;
    return 0;
}

int cg_map_file_open(int dirfd, const char *name, const char *uuid, int *ret_fd, uint64_t *ret_size,
                     struct cg_error *err)
{
    CG_CLEANUP(cg_close) int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC);

    if (fd < 0 && (errno == EACCES || errno == EROFS || errno == EPERM))
        fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return cg_error_set(err, errno, "open %s", name);
    int r = check(fd, uuid, ret_size, err);
    if (r < 0)
        return cg_error_prefix(err, r, "%s", name);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

void cg_map_file_put_words(uint8_t *ret, const uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cg_put_le64(ret + 8 * i, words[i]);
}

void cg_map_file_get_words(uint64_t *ret, const uint8_t *buf, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ret[i] = cg_le64(buf + 8 * i);
}
