/* What the operations of one mount share.  Set before the session's threads start; what changes is
 * inside nodes, opens and order, which have locks of their own. */
#ifndef CG_FUSE_FS_H
#define CG_FUSE_FS_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "core/gateway.h"
#include "fuse/nodes.h"
#include "fuse/opens.h"
#include "fuse/order.h"

struct cg_fs {
    struct cg_gateway *gateway;
    struct cg_nodes *nodes;
    struct cg_opens *opens;
    struct cg_order *order;
    bool read_only;
    uid_t uid; /* whose the files are */
    gid_t gid;
    time_t started;
    unsigned max_read;      /* the mount's option; 0 if it has none */
    const char *mountpoint; /* a real path */
    struct cg_node root;    /* isn't in nodes */
};

#endif
