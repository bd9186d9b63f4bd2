/* The socket of a volume's writer: what other processes want of it.  A connection carries one
 * request, a line of JSON; the answer is lines of JSON, of which the last has "ok" or "errno".  One
 * a second says that the process is working on it.  Where a request is done in steps, a line says
 * that one is reached, and the other end's line that it may go on. */
#ifndef CG_VOLUMES_CONTROL_H
#define CG_VOLUMES_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "core/base/error.h"

struct cg_control;
struct cg_control_call;

/* Does what request asks and adds members to answer, an object.  0 or -errno with err set.  Any
 * number of calls at once, each in a thread of its own. */
typedef int cg_control_fn(void *opaque, struct cg_control_call *call, const json_t *request,
                          json_t *answer, struct cg_error *err);

/* Listens at the path socket, replacing what is there, and calls fn for each request.  Starts
 * threads. */
int cg_control_start(const char *socket, cg_control_fn *fn, void *opaque,
                     struct cg_control **ret_control, struct cg_error *err);

/* Removes the socket: from here on the path is somebody else's.  NULL is fine. */
void cg_control_hide(struct cg_control *control);

/* Removes the socket if it wasn't hidden, takes no more requests, waits for the running ones.  NULL
 * is fine. */
void cg_control_stop(struct cg_control *control);

/* Within fn: tells the other end how far it is.  Non-zero if nobody waits any more. */
int cg_control_progress(struct cg_control_call *call, uint64_t done, uint64_t total);

/* Within fn, for a request that is done in steps: tells the other end that one is reached, and
 * waits until it says to go on.  -ECONNRESET: it's gone, or says something else; -ETIMEDOUT: it
 * said nothing for so many milliseconds, not even cg_control_keep. */
int cg_control_reach(struct cg_control_call *call, const char *step, unsigned silence);

#define CG_CONTROL_SILENCE 30000 /* milliseconds that are too long for a process that works */

/* Asks who listens at socket.  0 with the answer, which the caller owns; -ECONNRESET if nobody
 * listens or the other end died before it answered: start again; -ETIMEDOUT if it said nothing for
 * so many milliseconds (the message names the process); else the answer's error. */
int cg_control_ask(const char *socket, const json_t *request, unsigned silence,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   json_t **ret_answer, struct cg_error *err);

/* cg_control_ask in parts, for a request that is done in steps: begin gives the connection, which
 * the caller closes; await waits for a step, and calls waiting (or NULL) whenever it's told that
 * this is worked on; go says to go on; keep, that there is still somebody who will, and waits for
 * nobody; end waits for the answer. */
int cg_control_begin(const char *socket, const json_t *request, unsigned silence, int *ret_fd,
                     struct cg_error *err);
int cg_control_await(const char *socket, int fd, unsigned silence, const char *step,
                     void (*waiting)(void *opaque), void *opaque, struct cg_error *err);
int cg_control_go(int fd);
void cg_control_keep(int fd);
int cg_control_end(const char *socket, int fd, unsigned silence,
                   int (*progress)(void *opaque, uint64_t done, uint64_t total), void *opaque,
                   json_t **ret_answer, struct cg_error *err);

/* True if somebody listens at socket.  Doesn't wait. */
bool cg_control_answers(const char *socket);

#endif
