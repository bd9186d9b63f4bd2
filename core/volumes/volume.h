/* An open volume or snapshot.  All handles of a process share one struct cg_volume, with a chain to
 * read from; the first write makes it the volume's writer (one among all processes).
 *
 * Those who write a volume or change its structure hold the file `lock` in its directory.  Who only
 * reads holds shared locks on the layers that it reads, and on the directory, so that nobody writes
 * into or deletes what it stands on.
 */
#ifndef CG_VOLUMES_VOLUME_H
#define CG_VOLUMES_VOLUME_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/volumes/chain.h"
#include "core/volumes/control.h"
#include "core/volumes/space.h"
#include "core/volumes/volume_json.h"
#include "core/volumes/writer.h"

struct cg_volume {
    struct cg_volumes *space;
    struct cg_volume *next;  /* guarded by space->lock */
    unsigned refs;           /* guarded by space->lock, as are the next five */
    bool loading;            /* its opening isn't done: nobody but who opens it looks at it */
    bool overtaken;          /* meanwhile a writer of this process has ended: load it again */
    unsigned beginning;      /* threads that are making it the writer */
    unsigned leaving;        /* threads that gave the last reference back and may have to end it */
    bool ending;             /* nobody gets a reference any more; still locked */
    char label[CG_NAME_MAX]; /* for messages */
    int dirfd;
    uint64_t dev, inode; /* of the directory: what the volume is known by while it's open */
    char snapshot[CG_PART_MAX + 1]; /* "" for the head */
    uint64_t original_size;         /* as volume.json had it when this was opened */
    char filling[CG_UUID_LEN + 1];  /* likewise */
    struct cg_layers replaced;      /* likewise: layers that the lowest one stands for */

    /* Taken in this order. */
    pthread_mutex_t change;     /* guards what follows up to gate, and changes of the structure */
    struct cg_volume_json json; /* once `locked` */
    int lock_fd;                /* >= 0: this is the writer, or changes the structure */
    bool brief;                 /* only for a change: no writes, no socket */
    char run[PATH_MAX];         /* where the working maps are */
    bool maps;                  /* the lock file says so: they count, also if this process dies */
    char socket[108];           /* "" if brief */
    struct cg_control *control;
    bool flattening, merging;

    /* Held shared by writes: exclusively, nothing is being written.  Guards head. */
    pthread_rwlock_t gate;
    struct cg_chain *head;
    atomic_uint retired; /* earlier heads that somebody still reads from */

    _Atomic uint64_t size;   /* of head, for who needs nothing else */
    atomic_bool says_ending; /* the lock file says that this process is about to end */
    atomic_bool writing;     /* the head's top layer takes writes */
    atomic_int failed;       /* -errno: the volume is between two states until it's opened again */
};

/* Opens the directory of a volume, held against deletion.  -ENOENT. */
int cg_volume_open_dir(struct cg_volumes *space, const struct cg_name *name, int *ret_fd,
                       struct cg_error *err);

/* Opens a volume or snapshot for its images, as cg_space_open does; flags: CG_OPEN_*. */
int cg_volume_open(struct cg_volumes *space, const struct cg_name *name, unsigned flags,
                   struct cg_volume **ret_volume, struct cg_error *err);

/* Gives a reference back; the last one flushes, if this was the writer, and closes. */
void cg_volume_unref(struct cg_volume *volume);

/* Frees one that nobody else has seen, also if it is among those of its space. */
void cg_volume_free(struct cg_volume *volume);

/* The open volume of a head, with a reference; NULL if there is none, or with `writer` if this
 * process doesn't write it. */
struct cg_volume *cg_volume_find(struct cg_volumes *space, int dirfd, bool writer);

/* Puts one among those of its space, before it's known which layers it has. */
void cg_volume_enlist(struct cg_volume *volume);

/* Why an attempt to open has to be repeated. */
enum {
    CG_VOLUME_OVERTAKEN = 1, /* somebody wrote the volume while it was being opened */
    CG_VOLUME_EARLIER,       /* a handle here shows it as it was before another process wrote it */
};

/* Lets others share an enlisted one, or gives back what can be shared already; current: only if
 * that shows no less.  Else one of the above.  Frees the volume if it isn't what is given back. */
int cg_volume_publish(struct cg_volume *volume, bool current, struct cg_volume **ret_volume);

/* Opens a volume alone, for changing its structure in a moment, and takes the lock.  -EBUSY:
 * somebody writes it.  Given back by cg_volume_unref. */
int cg_volume_open_brief(struct cg_volumes *space, const struct cg_name *name,
                         struct cg_volume **ret_volume, struct cg_error *err);

/* Makes this process the writer.  Nothing if it is. */
int cg_volume_begin(struct cg_volume *volume, struct cg_error *err);

/* Writes into the lock file who holds the lock.  brief: not for long, others wait for it. */
int cg_volume_describe(struct cg_volume *volume, bool brief, struct cg_error *err);

/* -EIO if the volume is between two states: a change of it failed. */
int cg_volume_check(const struct cg_volume *volume, struct cg_error *err);

/* The head's chain, with a reference. */
struct cg_chain *cg_volume_head(struct cg_volume *volume);

/* A new image over the volume, which takes over the caller's reference, on success only. */
int cg_volume_image(struct cg_volume *volume, bool read_only, struct cg_image **ret_image,
                    struct cg_error *err);

/* Opens the layers and locks them against writers and merging; those below the top wait for that.
 * -ENOENT: one isn't there (any more); -EWOULDBLOCK: the top is being written. */
int cg_volume_open_layers(int dirfd, const struct cg_layers *layers, bool sealed,
                          struct cg_layer ***ret_layers, struct cg_error *err);
void cg_volume_close_layers(struct cg_layer **layers, size_t count);

/* What the layers of a chain are, as in volume.json. */
int cg_volume_layers_of(struct cg_chain *chain, struct cg_layers *ret, struct cg_error *err);

/* The directory of a volume or draft in the pool: PROJECT/VOLUME, PROJECT/.draft-VOLUME. */
#define CG_DRAFT_PREFIX ".draft-"
void cg_volume_dir_name(const struct cg_name *name, char ret[static CG_NAME_MAX]);

#endif
