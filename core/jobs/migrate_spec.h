/* What "rbd migration prepare --import-only" is told about where an image comes from (Ceph's
 * documentation, rbd/rbd-live-migration). */
#ifndef CG_JOBS_MIGRATE_SPEC_H
#define CG_JOBS_MIGRATE_SPEC_H

#include <stdbool.h>

#include <jansson.h>

#include "core/jobs/migration.h"

/* "nbd" or "file": the stream that an address stands for; NULL, with err set, if it is none.
 * Addresses are an NBD server's URI without an export (nbd://HOST:PORT, nbds://…,
 * nbd+unix:///?socket=PATH), or the directory of a mount (/PATH, file:///PATH). */
const char *cg_migrate_stream(const char *address, struct cg_error *err);

/* True if only processes of this host can reach it: loopback, a socket, a path. */
bool cg_migrate_is_local(const char *address);

/* True if ADDR:PORT means all addresses of a host, which is none to reach it at. */
bool cg_migrate_is_wildcard(const char *listen);

/* Where the image of that name is under the address: a URI or an absolute path. */
int cg_migrate_location(const char *address, const char *name, char ret[static CG_NAME_MAX * 2],
                        struct cg_error *err);

/* True if that is a virtual qcow2 file: a history or a snapshot. */
bool cg_migrate_is_qcow2(const char *name);

/* The spec of images (see struct cg_migration_record) served from an address, which the caller
 * owns.  An image named POINT.qcow2 is a "qcow", with all its snapshots; any other is "raw". */
int cg_migrate_spec(const char *address, const struct cg_migration_image *images, size_t count,
                    json_t **ret_spec, struct cg_error *err);

/* The spec by which Ceph reads rbd/POOL[/NAMESPACE]/IMAGE@SNAPSHOT itself, with nobody in between.
 * cluster, client: of another cluster, whose cluster.conf everybody who opens the new image finds
 * (librbd before Ceph 20 ignores them, and takes an image of its own cluster); NULL for its own. */
int cg_migrate_native_spec(const struct cg_name *name, const char *cluster, const char *client,
                           json_t **ret_spec, struct cg_error *err);

#endif
