#!/bin/bash
# What Ceph itself was told about an image doesn't weaken what is acknowledged, and a project sees
# only what it was given.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

cowgate init
# set JSON: the configuration of rbd/.
set_rbd() {
    jq ".rbd = $1" "$COWGATE_ROOT/cowgate.json" >new.json
    mv new.json "$COWGATE_ROOT/cowgate.json"
}
set_rbd '{}'

# An image, or its pool, that Ceph was told to write back: acknowledged writes survive a kill all the
# same.
# write_back image|pool NAME
write_back() {
    rbd config "$1" set "$2" rbd_cache true
    rbd config "$1" set "$2" rbd_cache_policy writeback
    rbd config "$1" set "$2" rbd_cache_max_dirty_age 60
    rbd config "$1" set "$2" rbd_disable_zero_copy_writes false
}
ceph osd pool create pool-back 8 >ceph.log 2>&1
rbd pool init pool-back
write_back pool pool-back
rbd create -s 64M rbd/back
write_back image rbd/back
rbd create -s 64M pool-back/back
{ head -c 4096 /dev/zero; printf '\7%.0s' {1..4096}; printf '\10%.0s' {1..4096}; } >want.raw
for image in rbd/back pool-back/back; do
    start_serve sock
    nbd_python - "$(uri sock rbd/$image)" <<'P'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"\7" * 4096, 4096)
h.pwrite(b"\10" * 4096, 8192, nbd.CMD_FLAG_FUA)
h.trim(4096, 1 << 20)
import os
os._exit(0)
P
    kill -9 "$serve_pid"
    wait "$serve_pid" || true
    rm -f out.raw
    rbd export --no-progress "$image" out.raw
    cmp -n 12288 want.raw out.raw || fail "an acknowledged write is lost in $image"
done

# An image and a namespace of the same name: each belongs to whom it was given.
rbd namespace create rbd/tenant
rbd create -s 8M rbd/tenant
rbd create -s 8M rbd/tenant/disk
set_rbd '{"pools": {"rbd": "admin", "rbd/tenant": "acme"}}'
start_serve acme.sock --project acme
nbd_try acme.sock rbd/rbd/tenant/disk
must_fail 1 'No such file' nbd_try acme.sock rbd/rbd/tenant
must_fail 1 'No such file' nbd_try acme.sock rbd/rbd/back
nbdinfo --list --json "$(uri acme.sock)" | jq -e '[.exports[]["export-name"]] == ["rbd/rbd/tenant/disk"]'
start_serve admin.sock --project admin
nbd_try admin.sock rbd/rbd/tenant
must_fail 1 'No such file' nbd_try admin.sock rbd/rbd/tenant/disk

# A snapshot of a person's keeps its image, whatever it's called.
rbd snap create --no-progress rbd/back@cowgate-release
must_fail 1 'has snapshots' cowgate delete rbd/rbd/back
