/* Who is in the way: the processes that hold a flock on a file, for messages. */
#ifndef CG_VOLUMES_HOLDERS_H
#define CG_VOLUMES_HOLDERS_H

#include <stddef.h>

/* "process 123 (nbdkit), process 45 (cowgate-fuse)", or "another process" where the kernel doesn't
 * tell (/proc/locks): it's another host's, or in a namespace of its own. */
void cg_holders(int fd, char *ret, size_t size);

#endif
