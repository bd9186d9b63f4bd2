#!/bin/bash
# A client with one request in flight reads an RBD snapshot, and a local clone of one: the OSD, which
# counts, is asked ahead and in larger pieces. An image that others may write isn't read ahead.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-functions.sh"
start_ceph

cowgate init
configure '{}'
head -c 32M /dev/urandom >disk
rbd import --no-progress disk rbd/web
cowgate snapshot rbd/rbd/web@s
cowgate clone rbd/rbd/web@s volumes/acme/web
start_serve "$tmp/nbd.sock"

asked() { ceph daemon "$ceph"/run/osd.0.*.asok perf dump osd | jq .osd.op_r; }
# osd_reads NAME: how many requests it takes the OSD to have it read in pieces of 64 KiB.
osd_reads() {
    local before
    before=$(asked)
    nbdcopy --connections=1 --requests=1 --request-size=65536 --no-extents "$(uri "$tmp/nbd.sock" "$1")" copy.raw
    same disk copy.raw
    echo $(($(asked) - before))
}
for name in rbd/rbd/web@s volumes/acme/web; do
    n=$(osd_reads $name)
    [ "$n" -lt 200 ] || fail "$name: $n requests to the OSD"
done
n=$(osd_reads rbd/rbd/web)
[ "$n" -ge 512 ] || fail "a head: $n requests to the OSD"

# A partition of a snapshot is a window onto what is read ahead.
echo 'start=2048, size=20480' | sfdisk -q disk
rbd import --no-progress disk rbd/parts
cowgate snapshot rbd/rbd/parts@s
nbdcopy --connections=1 --requests=1 --request-size=65536 "$(uri "$tmp/nbd.sock" rbd/rbd/parts@s.p1)" copy.raw
dd if=disk of=want.raw bs=1M skip=1 count=10 status=none
same want.raw copy.raw
