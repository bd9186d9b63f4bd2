# Whatever breaks the line from the last point to this one, or what Ceph says changed since then: the
# backup is right, full, and says why.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

id() { rbd info "$1" --format json | jq -r .id; }
own_snapshot() { rbd snap ls "$1" --format json | jq -r '.[].name | select(startswith("cowgate-"))'; }

# The last backup is in out; its point has what its snapshot has.
check_content() {
    rm -f want.raw got.raw
    rbd export --no-progress "rbd/$1@$(own_snapshot "rbd/$1")" want.raw
    cowgate export "$(jq -r .point <out)" ./got.raw
    qemu-img compare -q -f raw -F raw want.raw got.raw
}
is_full() {
    cowgate --json backup "rbd/rbd/$1" "backups/acme/$1" >out
    jq -e --arg why "$2" '.incremental == false and (.reason | test($why))' out || fail "$(cat out)"
    check_content "$1"
}
is_incremental() {
    cowgate --json backup "rbd/rbd/$1" "backups/acme/$1" >out
    jq -e --argjson n "$2" '.incremental and .chunks_read == $n' out || fail "$(cat out)"
    check_content "$1"
}

cowgate init
rbd create --size 64M rbd/web
rbd_write web 1 0+24M
rbd snap create --no-progress rbd/web@old
rbd_write web 2 4M+4K 40M+4M
is_full web 'no earlier point'
rbd_write web 3 8M+4K
is_incremental web 1

# Its object map is lost, so Ceph flags it invalid; rebuilding mends it.
rados -p rbd rm "rbd_object_map.$(id rbd/web)"
rbd_write web 4 12M+4K
rbd info rbd/web | grep 'object map invalid'
is_full web 'object map of the image is flagged invalid'
rbd object-map rebuild --no-progress rbd/web
is_full web 'object map of the last snapshot is flagged invalid'
rbd_write web 5 16M+4K
is_incremental web 1

rbd resize --no-progress --size 80M rbd/web
is_full web 'resized since'
rbd resize --no-progress --allow-shrink --size 72M rbd/web
is_full web 'smaller than the last point'

rbd_write web 6 20M+4K
rbd snap rollback --no-progress rbd/web@old
rbd resize --no-progress --size 72M rbd/web
is_full web 'rolled back'
rbd_write web 7 20M+4K
rbd snap rollback --no-progress "rbd/web@$(own_snapshot rbd/web)"
is_full web 'rolled back'
rbd_write web 8 20M+4K
cowgate rollback rbd/rbd/web@old
rbd resize --no-progress --size 72M rbd/web
is_full web 'rolled back'
rbd_write web 8 20M+4K
is_incremental web 1

rbd snap rm --no-progress "rbd/web@$(own_snapshot rbd/web)"
is_full web 'snapshot of the last point is gone'
rbd snap purge --no-progress rbd/web
rbd rm --no-progress rbd/web
rbd create --size 72M rbd/web
rbd_write web 9 4M+4M
is_full web 'of another image'

# A clone's increments have what it hides of its parent; flattening it is no increment.
rbd snap create --no-progress rbd/web@base
rbd snap protect rbd/web@base
rbd clone rbd/web@base rbd/clone
is_full clone 'no earlier point'
rbd_write clone 1 5M+4K 60M+4K
is_incremental clone 2
rbd_write clone trim 4M+4M
is_incremental clone 1
rbd flatten --no-progress rbd/clone
is_full clone 'flattened'
rbd_write clone 2 8M+4K
is_incremental clone 1

# An image without features needs no object map.
rbd create --size 64M --image-feature layering rbd/plain
rbd_write plain 1 0+8M
is_full plain 'no earlier point'
rbd_write plain 2 4M+4K 60M+4K
is_incremental plain 2

# An object changes behind Ceph's back, so that the snapshot changes with it: only the audit sees it.
rbd create --size 64M rbd/bad
rbd_write bad 1 0+24M
is_full bad 'no earlier point'
printf 'other %.0s' {1..1000} >other
rados -p rbd put "rbd_data.$(id rbd/bad).0000000000000003" other
must_fail 1 "chunk 3 \(at 12582912\) isn't what it was .* the next backup reads everything" \
    cowgate backup --audit 1 rbd/rbd/bad backups/acme/bad
[ "$(own_snapshot rbd/bad | wc -l)" = 1 ]
is_full bad 'an audit found'
is_incremental bad 0
jq -e '.chunks_audited == 8 and .bytes_audited == 8 * 4194304' out
cowgate --json backup --audit 0 rbd/rbd/bad backups/acme/bad | jq -e '.chunks_audited == 0'
cowgate --json backup --audit 1 rbd/rbd/bad backups/acme/bad | jq -e '.chunks_audited == 16'
must_fail 2 'share from 0 to 1' cowgate backup --audit 7 rbd/rbd/bad backups/acme/bad
