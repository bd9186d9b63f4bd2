/* Changes of a volume's structure: seal, snapshot, resize, rollback.
 *
 * A change makes its new layer durable, then replaces volume.json, then goes on with a new chain:
 * interrupted at any point it has happened or not.  It's done by whoever holds the volume's lock;
 * other processes ask that one by its socket, with an id that is stored with the result, so that
 * asking again after the writer's death repeats nothing. */
#ifndef CG_VOLUMES_CHANGE_H
#define CG_VOLUMES_CHANGE_H

#include "core/volumes/change_request.h"
#include "core/volumes/control.h"
#include "core/volumes/volume.h"

/* Does the change, here or by asking the writer.  *ret_sealed (may be NULL): the chain of the
 * volume's or the snapshot's layers afterwards, all of them sealed, for SNAPSHOT and SEAL. */
int cg_change(struct cg_volumes *space, const struct cg_name *name, struct cg_change *change,
              struct cg_layers *ret_sealed, struct cg_error *err);

/* The volume gets an empty top layer of its own, whatever the one below is.  With v->change held;
 * so is what follows. */
int cg_change_push_locked(struct cg_volume *v, struct cg_error *err);

/* A snapshot in the steps of cg_seal: prepare with those checks that other changes undergo too
 * (-EAGAIN: the volume isn't this process' any more), and take. */
struct cg_seal;
int cg_change_prepare_snapshot_locked(struct cg_volume *v, const struct cg_change *change,
                                      struct cg_seal *ret_seal, struct cg_error *err);
int cg_change_take_snapshot_locked(struct cg_seal *seal, const struct cg_change *change,
                                   struct cg_error *err);

/* Replaces v->json by json (taken over, also on failure) durably; chain (taken over too) is the
 * head from then on.  After a failure the volume is as before, or takes no more writes if that
 * can't be said. */
int cg_change_commit_locked(struct cg_volume *v, struct cg_volume_json *json,
                            struct cg_chain *chain, struct cg_error *err);

/* The same with v->gate held exclusively, too. */
int cg_change_commit_gated(struct cg_volume *v, struct cg_volume_json *json, struct cg_chain *chain,
                           struct cg_error *err);

/* chain (taken over), which shows the same as the head, is the head from here on. */
void cg_change_show_locked(struct cg_volume *v, struct cg_chain *chain);

/* What the socket of the volume's writer answers (opaque: the volume). */
cg_control_fn cg_change_answer;

/* Asks the writer of the volume in dirfd to seal what it has.  -ECONNRESET: nobody answers. */
int cg_change_ask_seal(int dirfd, struct cg_layers *ret_layers, struct cg_error *err);

#endif
