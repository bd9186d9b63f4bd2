#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>
#include <linux/nbd.h>

#include "cli/nbd_handshake.h"
#include "core/base/cleanup.h"

#ifndef NBD_FLAG_ROTATIONAL
#define NBD_FLAG_ROTATIONAL (1 << 4)
#endif
#ifndef NBD_FLAG_SEND_WRITE_ZEROES
#define NBD_FLAG_SEND_WRITE_ZEROES (1 << 6)
#endif

enum {
    SECTOR = 512,
    SILENT_SECONDS = 30, /* without a word from the server */
};

static void free_handle(struct nbd_handle **h)
{
    nbd_close(*h);
}

static const char *address_text(const struct cli_nbd_address *a)
{
    return a->uri ? a->uri : a->socket;
}

static int nbd_failed(const struct cli_nbd_address *a, struct cg_error *err)
{
    int errnum = nbd_get_errno();

    return cg_error_say(err, errnum > 0 ? errnum : EIO, "connect to %s: %s", address_text(a),
                        nbd_get_error());
}

static int shake(struct nbd_handle *h, const struct cli_nbd_address *a, struct cg_error *err)
{
    if (nbd_set_request_structured_replies(h, false) < 0 || nbd_set_full_info(h, true) < 0 ||
        nbd_set_uri_allow_tls(h, LIBNBD_TLS_DISABLE) < 0)
        return nbd_failed(a, err);
#ifdef LIBNBD_HAVE_NBD_SET_REQUEST_EXTENDED_HEADERS
    if (nbd_set_request_extended_headers(h, false) < 0)
        return nbd_failed(a, err);
#endif
    if ((a->uri ? nbd_aio_connect_uri(h, a->uri) : nbd_aio_connect_unix(h, a->socket)) < 0)
        return nbd_failed(a, err);
    while (nbd_aio_is_connecting(h) == 1) {
        int r = nbd_poll(h, SILENT_SECONDS * 1000);
        if (r < 0)
            return nbd_failed(a, err);
        if (r == 0)
            return cg_error_say(err, ETIMEDOUT, "connect to %s: no answer within %d s",
                                address_text(a), SILENT_SECONDS);
    }
    return nbd_aio_is_ready(h) == 1 ? 0 : nbd_failed(a, err);
}

/* The id that our servers describe an export by. */
static int learn_id(struct nbd_handle *h, const struct cli_nbd_address *a,
                    char ret[static CLI_NBD_SHOWS_SIZE], struct cg_error *err)
{
    static const char before[] = ", id ";
    CG_CLEANUP(cg_free) char *text = nbd_get_export_description(h);
    const char *id = text ? strstr(text, before) : NULL;

    if ((size_t)snprintf(ret, CLI_NBD_SHOWS_SIZE, "%s", id ? id + strlen(before) : "") >=
        CLI_NBD_SHOWS_SIZE)
        return cg_error_say(err, EPROTO, "%s describes itself at too great a length",
                            address_text(a));
    return 0;
}

/* What the server said of the export. */
static int describe(struct nbd_handle *h, const struct cli_nbd_address *a,
                    struct cli_nbd_link *link, struct cg_error *err)
{
    int64_t size = nbd_get_size(h), minimum = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
    const struct {
        int can;
        unsigned flag;
    } flags[] = {
        { nbd_is_read_only(h), NBD_FLAG_READ_ONLY },
        { nbd_can_flush(h), NBD_FLAG_SEND_FLUSH },
        { nbd_can_fua(h), NBD_FLAG_SEND_FUA },
        { nbd_is_rotational(h), NBD_FLAG_ROTATIONAL },
        { nbd_can_trim(h), NBD_FLAG_SEND_TRIM },
        { nbd_can_zero(h), NBD_FLAG_SEND_WRITE_ZEROES },
        { nbd_can_multi_conn(h), NBD_FLAG_CAN_MULTI_CONN },
    };

    if (size < 0 || minimum < 0)
        return nbd_failed(a, err);
    link->flags = NBD_FLAG_HAS_FLAGS;
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (flags[i].can < 0)
            return nbd_failed(a, err);
        if (flags[i].can)
            link->flags |= flags[i].flag;
    }
    /* 512 wherever it will do: partition tables count in logical blocks, and an XFS of 512-byte
     * sectors can't be mounted from larger ones. */
    link->block = minimum > SECTOR ? (uint64_t)minimum : SECTOR;
    link->size = (uint64_t)size;
    if (link->block > (uint64_t)sysconf(_SC_PAGESIZE))
        return cg_error_say(err, EINVAL, "%s has blocks of %llu bytes, too large for the kernel",
                            address_text(a), (unsigned long long)link->block);
    if (link->size == 0 || link->size % link->block)
        return cg_error_say(err, EINVAL,
                            "%s has %llu bytes, which aren't whole blocks of %llu: import or clone "
                            "it first",
                            address_text(a), (unsigned long long)link->size,
                            (unsigned long long)link->block);
    return learn_id(h, a, link->shows, err);
}

/* One connection more.  libnbd has read nothing beyond the handshake, and closing its end says
 * nothing to the server. */
static int add_connection(const struct cli_nbd_address *a, struct cli_nbd_link *link,
                          struct cg_error *err)
{
    CG_CLEANUP(free_handle) struct nbd_handle *h = nbd_create();
    struct cli_nbd_link said = { 0 };

    if (!h)
        return nbd_failed(a, err);
    int r = shake(h, a, err);
    if (r == 0)
        r = describe(h, a, &said, err);
    if (r < 0)
        return r;
    if (link->count > 0 && (said.size != link->size || said.flags != link->flags ||
                            strcmp(said.shows, link->shows) != 0))
        return cg_error_say(err, ESTALE, "%s changed while connections to it were made",
                            address_text(a));
    link->size = said.size;
    link->block = said.block;
    link->flags = said.flags;
    memcpy(link->shows, said.shows, sizeof link->shows);
    int fd = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return cg_error_set(err, errno, "connect to %s", address_text(a));
    link->fds[link->count++] = fd;
    return 0;
}

int cli_nbd_shake_hands(const struct cli_nbd_address *a, unsigned wanted, bool read_only,
                        struct cli_nbd_link *link, struct cg_error *err)
{
    link->count = 0;
    do {
        int r = add_connection(a, link, err);
        if (r < 0) {
            cli_nbd_link_close(link);
            return r;
        }
    } while (link->count < wanted && (link->flags & NBD_FLAG_CAN_MULTI_CONN));
    if (read_only)
        link->flags |= NBD_FLAG_READ_ONLY;
    return 0;
}

void cli_nbd_link_close(struct cli_nbd_link *link)
{
    for (unsigned i = 0; i < link->count; i++)
        close(link->fds[i]);
    link->count = 0;
}
