#!/bin/bash
# A snapshot as a virtual qcow2 file, over NBD and FUSE: what qemu-img reads in it is the snapshot,
# with its holes, whatever is written to the volume.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

cowgate init
# Data at the start, where an L2 table ends, and in an end that fills no cluster.
truncate -s 1200000512 src.raw
for at in 0 535822336 1199996416; do
    head -c 3000000 /dev/urandom | dd of=src.raw bs=4096 seek=$((at / 4096)) conv=notrunc status=none
done
truncate -s 1200000512 src.raw
cowgate --quiet import ./src.raw volumes/acme/web
cowgate snapshot volumes/acme/web@s
start_serve "$tmp/s"
qemu-io -f raw -c 'write -P 7 0 1M' "$(uri "$tmp/s" volumes/acme/web)" >/dev/null
file=$(uri "$tmp/s" volumes/acme/web@s.qcow2)
check() {
    qemu-img check -f qcow2 "$1" >check.log || fail "$(cat check.log)"
    qemu-img compare -f qcow2 -F raw "$1" src.raw
    allocated=$(qemu-img map -f qcow2 --output json "$1" | jq '[.[] | select(.data) | .length] | add')
    [ "$allocated" -le $((9000000 + 6 * 65536)) ] || fail "$allocated bytes are allocated"
}
check "$file"
# Its own holes are those of the snapshot, shifted.
data=$(nbdinfo --map --json "$file" | jq '[.[] | select(.type == 0) | .length] | add')
[ "$data" -le $((9000000 + 64 * 65536)) ] || fail "$data bytes of the file are data: $(nbdinfo --map "$file")"
nbdcopy "$file" copy.qcow2
check copy.qcow2
start_mount
same mnt/volumes/acme/web@s.qcow2 copy.qcow2
[ -z "$(ls mnt/volumes/acme | grep qcow2)" ] || fail "it's listed"
must_fail 1 'No such file' cat mnt/volumes/acme/web.qcow2
must_fail 1 'has a part that ends in .qcow2' cowgate export volumes/acme/web.qcow2 ./no.qcow2
must_fail 1 'is made up when it is read' cowgate delete volumes/acme/web@s.qcow2
must_fail 1 'No such file' nbdinfo "$(uri "$tmp/s" volumes/acme/web@t.qcow2)"
