/* Which of a process's open volumes an opener shares.  There is one of a head at a time, so that
 * all its handles show the same moment: a face keeps one page cache for all of them, or lets a
 * client spread its reads over several.
 */
#include "config.h"

#include <string.h>
#include <sys/stat.h>

#include "core/base/cleanup.h"
#include "core/volumes/volume.h"

static bool is_of(const struct cg_volume *v, uint64_t dev, uint64_t inode)
{
    return v->dev == dev && v->inode == inode && !*v->snapshot && !v->loading;
}

/* Waits until no open volume of this directory is about to become the writer, or to stop being. */
static void wait_settled_locked(struct cg_volumes *space, uint64_t dev, uint64_t inode)
{
    for (struct cg_volume *v = space->open; v;) {
        if (is_of(v, dev, inode) && (v->beginning || v->ending)) {
            pthread_cond_wait(&space->settled, &space->lock);
            v = space->open;
        } else {
            v = v->next;
        }
    }
}

/* The open volume of a head, if there is one; no new reference. */
static struct cg_volume *find_head_locked(struct cg_volumes *space, uint64_t dev, uint64_t inode)
{
    wait_settled_locked(space, dev, inode);
    struct cg_volume *v = space->open;
    while (v && !is_of(v, dev, inode))
        v = v->next;
    return v;
}

struct cg_volume *cg_volume_find(struct cg_volumes *space, int dirfd, bool writer)
{
    struct stat st;

    if (fstat(dirfd, &st) < 0)
        return NULL;
    CG_LOCK(&space->lock);
    struct cg_volume *v = find_head_locked(space, st.st_dev, st.st_ino);
    if (!v || (writer && !atomic_load(&v->writing)))
        return NULL;
    v->refs++;
    return v;
}

static bool same_layer(struct cg_chain *a, size_t i, struct cg_chain *b, size_t j)
{
    return strcmp(cg_layer_uuid(cg_chain_layer(a, i)), cg_layer_uuid(cg_chain_layer(b, j))) == 0;
}

/* Where layer `first` of before is in now: others may have come below, before or in the parent's
 * place (flatten). */
static size_t place_of(struct cg_chain *before, size_t first, struct cg_volume *now)
{
    size_t at = 0;

    if (cg_chain_parent(before) || *now->filling)
        while (at < cg_chain_count(now->head) && !same_layer(before, first, now->head, at))
            at++;
    return at;
}

/* The one, from its layer `first` on, shows what the other does from its layer `at` on: the same
 * layers, and what one has above them is empty (a snapshot was made in between). */
static bool rest_same(struct cg_chain *before, size_t first, struct cg_chain *now, size_t at)
{
    size_t nb = cg_chain_count(before) - first, nn = cg_chain_count(now) - at, i = 0;
    bool same = cg_chain_size(before) == cg_chain_size(now);

    for (; same && i < nb && i < nn; i++)
        same = same_layer(before, first + i, now, at + i);
    for (; same && (i < nb || i < nn); i++) {
        struct cg_layer *layer =
            i < nb ? cg_chain_layer(before, first + i) : cg_chain_layer(now, at + i);
        if (cg_layer_is_empty(layer, &same, NULL) < 0)
            return false;
    }
    return same;
}

static bool chains_same(struct cg_chain *before, size_t first, struct cg_volume *now)
{
    size_t at = place_of(before, first, now);

    return at < cg_chain_count(now->head) && rest_same(before, first, now->head, at);
}

/* How many layers of before, from `first` on, are those that the lowest one of now stands for. */
static size_t replaced(struct cg_chain *before, size_t first, struct cg_volume *now)
{
    struct cg_layers all;
    size_t n;

    if (!now->replaced.count || cg_volume_layers_of(before, &all, NULL) < 0)
        return 0;
    struct cg_layers rest = { .count = all.count - first, .uuid = all.uuid + first };
    n = cg_layers_replaced(&rest, &now->replaced, cg_layer_uuid(cg_chain_layer(now->head, 0)));
    cg_layers_clear(&all);
    return n;
}

/* now isn't among the open ones yet. */
static bool shows_same(struct cg_volume *before, struct cg_volume *now)
{
    CG_CLEANUP(cg_chain_cleanup) struct cg_chain *head = cg_volume_head(before);
    const char *lowest = cg_layer_uuid(cg_chain_layer(head, 0));
    size_t first = 0, gone = replaced(head, 0, now);

    /* What was being filled, and given up since, said nothing else than what it stood on or under.
     */
    if (!gone && strcmp(lowest, before->filling) == 0 && !cg_chain_find(now->head, lowest)) {
        first = 1;
        gone = replaced(head, first, now);
    }
    return gone ? rest_same(head, first + gone, now->head, 1) : chains_same(head, first, now);
}

static struct cg_volume *find_snapshot_locked(struct cg_volume *v)
{
    struct cg_volume *other = v->space->open;

    while (other && (other->loading || other->ending || other->dev != v->dev ||
                     other->inode != v->inode || !*other->snapshot || !shows_same(other, v)))
        other = other->next;
    return other;
}

void cg_volume_enlist(struct cg_volume *v)
{
    CG_LOCK(&v->space->lock);
    v->loading = true;
    v->next = v->space->open;
    v->space->open = v;
}

int cg_volume_publish(struct cg_volume *v, bool current, struct cg_volume **ret_volume)
{
    struct cg_volume *other;
    int r = 0;

    pthread_mutex_lock(&v->space->lock);
    other = *v->snapshot ? find_snapshot_locked(v) : find_head_locked(v->space, v->dev, v->inode);
    if (v->overtaken)
        r = CG_VOLUME_OVERTAKEN;
    else if (other && current && !atomic_load(&other->writing) && !shows_same(other, v))
        r = CG_VOLUME_EARLIER;
    else if (other)
        other->refs++;
    else
        v->loading = false;
    pthread_mutex_unlock(&v->space->lock);
    if (r == 0)
        *ret_volume = other ? other : v;
    if (r != 0 || other)
        cg_volume_free(v);
    return r;
}
