/* Where the messages of the FUSE face go: standard error in the foreground and until the mount is
 * usable, the system log after that. */
#ifndef CG_FUSE_LOG_H
#define CG_FUSE_LOG_H

#include <stdbool.h>

/* Also takes over what libfuse has to say. */
void cg_log_start(void);

/* From now on to the system log.  Any thread, once. */
void cg_log_to_syslog(void);

/* One message, without a newline.  Any thread. */
void cg_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
