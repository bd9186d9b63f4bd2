#!/bin/bash
# The extents of RBD images are where `rbd diff` sees data, and a hole reads as zeros: for objects of
# several sizes, striped ones, without an object map, of an odd size, with a pool for the data, with
# snapshots, rolled back, cloned; and they are quick for an image of 1 TiB.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

cowgate init
jq '.rbd = {}' "$COWGATE_ROOT/cowgate.json" >new.json
mv new.json "$COWGATE_ROOT/cowgate.json"
start_serve "$tmp/sock"
tool="$abs_srcdir/tests/integration/rbd-extents.py"

write() { nbd_python "$tool" write "$(uri "$tmp/sock" "rbd/rbd/$1")" "$2" "$(rbd info "$1" --format json | jq .size)"; }

# check IMAGE[@SNAPSHOT]
check() {
    rm -f export.raw
    rbd diff --format json "$1" >diff.json
    rbd export --no-progress "$1" export.raw
    nbd_python "$tool" check "$(uri "$tmp/sock" "rbd/rbd/$1")" diff.json export.raw || fail "$1"
}

# try NAME ARGS ...: an image made like this, empty, written, with snapshots, rolled back.
try() {
    local name=$1
    shift
    rbd create "$name" "$@"
    check "$name"
    write "$name" 1
    check "$name"
    rbd snap create --no-progress "$name@a"
    write "$name" 2
    check "$name"
    rbd snap create --no-progress "$name@b"
    check "$name@a"
    write "$name" 3
    rbd snap rollback --no-progress "$name@a"
    check "$name"
    check "$name@b"
}

ceph osd pool create data 8 >ceph.log 2>&1
try usual --size 40M
try small-objects --size 10M --object-size 64K
try large-objects --size 80M --object-size 32M
try striped --size 40M --object-size 1M --stripe-unit 64K --stripe-count 4
try striped-odd --size 41M --object-size 1M --stripe-unit 32K --stripe-count 3 --image-feature layering
try no-map --size 40M --image-feature layering,exclusive-lock
try odd --size 5000001B
try tiny --size 1000B
try other-pool --size 40M --data-pool data

# A clone shows the parent's data; what it discards, and an object that a rollback takes away.
rbd snap protect usual@b
rbd clone usual@b clone
check clone
rbd snap create --no-progress clone@a
write clone 4
rbd snap create --no-progress clone@b
check clone
rbd snap rollback --no-progress clone@a
check clone
write clone 5
rbd snap create --no-progress clone@c
rbd snap protect clone@c
rbd clone --object-size 1M --stripe-unit 64K --stripe-count 2 clone@c clone-of-clone
write clone-of-clone 6
check clone-of-clone
rbd resize --no-progress --allow-shrink --size 20M clone
rbd resize --no-progress --size 40M clone
check clone

# Objects are only asked for where the map has some.
rbd create huge --size 1T
nbd_python - "$(uri "$tmp/sock" rbd/rbd/huge)" <<'PY'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for i in range(1, 1 << 40, 100 << 30):
    h.pwrite(b"x" * 512, i // 512 * 512)
PY
nbdinfo --map --totals "$(uri "$tmp/sock" rbd/rbd/huge)" >totals.log
awk '$4 == "data" { if ($1 == 11 * 512) ok = 1 } END { exit !ok }' totals.log || fail "$(cat totals.log)"
