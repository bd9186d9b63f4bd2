/* The names that the kernel knows at the moment: each is a node, which lives as long as the
 * kernel's count of look-ups isn't zero, and whose address is the kernel's number for it. */
#ifndef CG_FUSE_NODES_H
#define CG_FUSE_NODES_H

#include <stdint.h>

#include "core/base/name.h"
#include "core/space.h"

enum cg_node_kind {
    CG_NODE_DIRECTORY,
    CG_NODE_IMAGE,
    CG_NODE_LINK, /* stands for another name: "latest" */
};

struct cg_nodes;

/* Its fields don't change while it lives. */
struct cg_node {
    struct cg_name name;
    enum cg_node_kind kind;
    struct cg_identity identity; /* "" where the space has none */
    uint64_t generation;         /* tells it from every other node that had its address */
};

/* NULL if memory is short. */
struct cg_nodes *cg_nodes_new(void);

/* Frees the nodes that are left, too.  NULL is fine. */
void cg_nodes_free(struct cg_nodes *nodes);

/* The node of a name, with one more look-up.  If the name now means something else than before (a
 * volume was deleted and another made), it's another node, so that the kernel doesn't show the old
 * one's pages.  NULL if memory is short.  Any thread. */
struct cg_node *cg_nodes_look_up(struct cg_nodes *nodes, const struct cg_name *name,
                                 enum cg_node_kind kind, const struct cg_identity *identity);

/* Takes count look-ups back; the last one frees node.  Any thread. */
void cg_nodes_forget(struct cg_nodes *nodes, struct cg_node *node, uint64_t count);

/* How many nodes there are. */
uint64_t cg_nodes_count(struct cg_nodes *nodes);

/* A number for a name that is the same in every mount, for st_ino and d_ino. */
uint64_t cg_nodes_number(const char *path);

#endif
