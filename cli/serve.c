#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/serve_socket.h"
#include "core/base/cleanup.h"
#include "core/base/workers.h"

/* serve checks what can be checked, makes the socket, and becomes nbdkit with the cowgate plugin.
 */

struct serve {
    const char *image, *listen, *socket, *project, *certificates, *psk, *threads;
    bool read_only, detect_zeros, verify_peer, insecure, verbose;
    struct cli_only only;
    bool remote;                /* requests wait for other machines */
    char address[256], port[8]; /* of listen */
    char socket_path[CLI_SOCKET_PATH_SIZE];
};

enum {
    LISTEN = 256,
    SOCKET,
    READ_ONLY,
    DETECT_ZEROS,
    PROJECT,
    ONLY,
    CERTIFICATES,
    VERIFY_PEER,
    PSK,
    THREADS,
    INSECURE,
    VERBOSE
};

static const struct option serve_options[] = {
    { "listen", required_argument, NULL, LISTEN },
    { "socket", required_argument, NULL, SOCKET },
    { "read-only", no_argument, NULL, READ_ONLY },
    { "detect-zeros", no_argument, NULL, DETECT_ZEROS },
    { "project", required_argument, NULL, PROJECT },
    { "only", required_argument, NULL, ONLY },
    { "tls-certificates", required_argument, NULL, CERTIFICATES },
    { "tls-verify-peer", no_argument, NULL, VERIFY_PEER },
    { "tls-psk", required_argument, NULL, PSK },
    { "threads", required_argument, NULL, THREADS },
    { "insecure", no_argument, NULL, INSECURE },
    { "verbose", no_argument, NULL, VERBOSE },
    { 0 },
};

static int set_serve(void *opaque, int option, const char *value)
{
    struct serve *s = opaque;

    switch (option) {
    case LISTEN:
        s->listen = value;
        break;
    case SOCKET:
        s->socket = value;
        break;
    case READ_ONLY:
        s->read_only = true;
        break;
    case DETECT_ZEROS:
        s->detect_zeros = true;
        break;
    case PROJECT:
        s->project = value;
        if (!cg_name_part_valid(value))
            return cli_misused("serve", "'%s' is not the name of a project", value);
        break;
    case ONLY:
        return cli_add_only("serve", &s->only, value);
    case CERTIFICATES:
        s->certificates = value;
        break;
    case VERIFY_PEER:
        s->verify_peer = true;
        break;
    case PSK:
        s->psk = value;
        break;
    case THREADS:
        s->threads = value;
        if (strspn(value, "0123456789") != strlen(value) || strlen(value) > 4 || atoi(value) < 1)
            return cli_misused("serve", "--threads %s: write a number from 1 to 9999", value);
        break;
    case INSECURE:
        s->insecure = true;
        break;
    default:
        s->verbose = true;
    }
    return 0;
}

static bool is_loopback(const char *address)
{
    struct in_addr a4;
    struct in6_addr a6;

    if (strcmp(address, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, address, &a4) == 1)
        return ntohl(a4.s_addr) >> 24 == 127;
    return inet_pton(AF_INET6, address, &a6) == 1 && IN6_IS_ADDR_LOOPBACK(&a6);
}

/* Splits ADDR:PORT or [ADDR]:PORT and asks for TLS where others can listen in. */
static int parse_listen(struct serve *s)
{
    const char *text = s->listen, *colon = strrchr(text, ':');
    const char *start = text, *end = colon;

    if (colon && text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        start++;
        end--;
    } else if (colon && memchr(text, ':', (size_t)(colon - text))) {
        colon = NULL; /* an IPv6 address without brackets */
    }
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
    if (!colon || start == end || (size_t)(end - start) >= sizeof s->address || port < 1 ||
        port > 65535 || colon[1 + strspn(colon + 1, "0123456789")])
        return cli_misused("serve", "--listen %s: write ADDR:PORT, as in 127.0.0.1:10809", text);
    snprintf(s->address, sizeof s->address, "%.*s", (int)(end - start), start);
    snprintf(s->port, sizeof s->port, "%lu", port);
    if (!is_loopback(s->address) && !s->certificates && !s->psk && !s->insecure)
        return cli_misused("serve",
                           "%s can be reached from outside: give --tls-certificates DIR or "
                           "--tls-psk FILE (or --insecure, if the network is yours alone)",
                           s->address);
    return 0;
}

static int check_readable(const char *dir, const char *file, struct cg_error *err)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof path, "%s%s", dir, file) >= sizeof path)
        return cg_error_set(err, ENAMETOOLONG, "read %s", dir);
    return access(path, R_OK) == 0 ? 0 : cg_error_set(err, errno, "read %s", path);
}

/* nbdkit finds this out too, but leaves the socket. */
static int check_tls(const struct serve *s, struct cg_error *err)
{
    static const char *const files[] = { "/ca-cert.pem", "/server-cert.pem", "/server-key.pem" };
    int r = s->psk ? check_readable(s->psk, "", err) : 0;

    for (size_t i = 0; s->certificates && r == 0 && i < 3; i++)
        r = check_readable(s->certificates, files[i], err);
    return r;
}

/* What can be wrong before anybody connects: the root, the project, the image.  Nothing of them
 * stays open. */
static int check(struct cli *cli, struct serve *s, char *root, size_t size)
{
    struct cg_image *image = NULL;
    const struct cg_gateway_options options = { .root = cli->root,
                                                .project = s->project,
                                                .serving = true };
    struct cg_name name;

    int r = cg_gateway_new(&options, &cli->gateway, &cli->err);
    if (r == 0 && s->image)
        r = cg_name_parse(s->image, &name, &cli->err);
    if (r == 0 && s->image)
        r = cg_gateway_open(cli->gateway, &name, CG_OPEN_READ, &image, &cli->err);
    if (r == 0) {
        snprintf(root, size, "root=%s", cg_gateway_root(cli->gateway));
        s->remote =
            s->image ? name.space == CG_NAME_RBD : cg_gateway_has(cli->gateway, CG_NAME_RBD);
    }
    cg_image_unref(image);
    cg_gateway_free(cli->gateway);
    cli->gateway = NULL;
    return r;
}

/* The threads of a connection: enough to keep the processors and a disk busy, and no more, for then
 * they only wait for each other; to keep a cluster busy, as many as a client has requests. */
static void default_threads(bool remote, char ret[static 8])
{
    unsigned n = 2 * cg_processors();

    snprintf(ret, 8, "%u", remote ? 32 : n > 16 ? 16 : n);
}

/* What the plugin says when clients can connect. */
static void describe_ready(const struct serve *s, char *ret, size_t size)
{
    if (s->listen)
        snprintf(ret, size, "ready=serving on %s://%s/", s->certificates || s->psk ? "nbds" : "nbd",
                 s->listen);
    else
        snprintf(ret, size, "ready=serving on nbd%s+unix:///?socket=%s",
                 s->certificates || s->psk ? "s" : "", s->socket_path);
}

static int become_nbdkit(struct cli *cli, struct serve *s, char *root)
{
    const char *plugin = getenv("COWGATE_PLUGIN"), *nbdkit = getenv("COWGATE_NBDKIT");
    char threads[8], project[CG_PART_MAX + 16], export[CG_NAME_MAX + 16];
    char certificates[PATH_MAX + 32], psk[PATH_MAX + 32], pid[16];
    char ready[512], socket[CLI_SOCKET_PATH_SIZE + 16];
    CG_CLEANUP(cg_free) const char **args = calloc(32 + s->only.count, sizeof *args);
    size_t n = 0;

    if (!args)
        return cg_error_set(&cli->err, ENOMEM, "start nbdkit");
    default_threads(s->remote, threads);
    args[n++] = "nbdkit";
    args[n++] = "--foreground";
    args[n++] = "--threads";
    args[n++] = s->threads ? s->threads : threads;
    if (s->verbose)
        args[n++] = "--verbose";
    if (s->listen) {
        args[n++] = "--ipaddr";
        args[n++] = s->address;
        args[n++] = "--port";
        args[n++] = s->port;
    }
    args[n++] = s->certificates || s->psk ? "--tls=require" : "--tls=off";
    if (s->certificates) {
        snprintf(certificates, sizeof certificates, "--tls-certificates=%s", s->certificates);
        args[n++] = certificates;
    }
    if (s->verify_peer)
        args[n++] = "--tls-verify-peer";
    if (s->psk) {
        snprintf(psk, sizeof psk, "--tls-psk=%s", s->psk);
        args[n++] = psk;
    }
    args[n++] = plugin && *plugin ? plugin : NBDKIT_PLUGINDIR "/nbdkit-cowgate-plugin.so";
    args[n++] = root;
    if (s->project) {
        snprintf(project, sizeof project, "project=%s", s->project);
        args[n++] = project;
    }
    for (size_t i = 0; i < s->only.count; i++)
        args[n++] = s->only.v[i];
    if (s->image) {
        snprintf(export, sizeof export, "export=%s", s->image);
        args[n++] = export;
    }
    if (s->read_only)
        args[n++] = "readonly=true";
    if (s->detect_zeros)
        args[n++] = "detect-zeros=true";
    if (!cli->quiet) {
        describe_ready(s, ready, sizeof ready);
        args[n++] = ready;
    }
    if (!s->listen) {
        snprintf(socket, sizeof socket, "socket=%s", s->socket_path);
        args[n++] = socket;
        snprintf(pid, sizeof pid, "%ld", (long)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "1", 1);
    }
    args[n] = NULL;
    nbdkit = nbdkit && *nbdkit ? nbdkit : "nbdkit";
    execvp(nbdkit, (char *const *)args);
    int r = cg_error_set(&cli->err, errno, "start %s", nbdkit);
    if (!s->listen)
        unlink(s->socket_path);
    return r;
}

static int serve(struct cli *cli, struct serve *s)
{
    char root[PATH_MAX + 8];

    if (s->listen && s->socket)
        return cli_misused("serve", "--listen and --socket exclude each other");
    if (s->certificates && s->psk)
        return cli_misused("serve", "--tls-certificates and --tls-psk exclude each other");
    if (s->verify_peer && !s->certificates)
        return cli_misused("serve", "--tls-verify-peer is for --tls-certificates");
    int r = s->listen ? parse_listen(s) : 0;
    if (r)
        return r;
    r = check(cli, s, root, sizeof root);
    if (r == 0)
        r = check_tls(s, &cli->err);
    if (r == 0 && !s->listen)
        r = cli_serve_socket(s->socket, s->socket_path, &cli->err);
    if (r == 0)
        become_nbdkit(cli, s, root);
    return cli_failed(cli);
}

int cli_serve(struct cli *cli, int argc, char **argv)
{
    struct serve s = { 0 };
    int r = cli_args(argc, argv, serve_options, set_serve, &s, 0, 1);

    s.image = optind < argc ? argv[optind] : NULL;
    r = r < 0 ? CLI_OK : r > 0 ? r : serve(cli, &s);
    cli_only_clear(&s.only);
    return r;
}
