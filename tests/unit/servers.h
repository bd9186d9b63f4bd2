/* NBD servers as children of a test, for as long as it runs. */
#ifndef CG_TESTS_SERVERS_H
#define CG_TESTS_SERVERS_H

#include <sys/types.h>

struct server {
    pid_t pid;
    char directory[64]; /* of its own; goes with it */
    char uri[256];
};

/* Starts a server on a unix socket and waits until it answers.  args end with NULL; in them
 * @SOCKET@ and @DIR@ stand for the socket's path and the directory.  Returns 0, or -1 if the
 * program isn't there. */
int server_start(struct server *server, const char *const *args);

/* Ends it by a signal, waits for it and removes its directory. */
void server_stop(struct server *server, int sig);

#endif
