#!/bin/bash
# The history of a volume as a qcow2 file: twelve points with sizes that change, zeroed ranges and a
# point pruned in the middle; QEMU's tools find it sound and every snapshot identical to its point,
# over NBD and through FUSE; later backups change no byte of it.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"
. "$abs_srcdir/tests/integration/history-functions.sh"

cowgate init
make_history 1G 700M 1300M 1468006912 # 1400 MiB and a sector

start_serve "$tmp/sock"
nbdcopy "$(uri "$tmp/sock" "$last.qcow2")" h.qcow2
[ "$(nbdinfo --json "$(uri "$tmp/sock" "$last.qcow2")" | jq '.exports[0].block_size_minimum')" = 1 ] || fail "bytes can't be read"
qemu-img check h.qcow2
qemu-img snapshot -l h.qcow2 | awk 'NR > 2 { print $2 }' >tags
sed 's|.*/||' points | diff - tags

mkdir mnt
cowgate mount mnt
cleanup_fn cowgate umount mnt
same h.qcow2 "mnt/$last.qcow2"
same h.qcow2 mnt/backups/acme/web/latest.qcow2
[ "$(stat -c %s h.qcow2)" = "$(cowgate --json info "$last.qcow2" | jq .size)" ]

# Each snapshot is its point: what QEMU adds behind a smaller one are zeros.
virtual=$(cowgate --json info "$last.qcow2" | jq .virtual_size)
while read -r point; do
    cowgate --quiet export "$point" ./want.raw
    truncate -s "$virtual" want.raw
    qemu-img convert -f qcow2 -l "snapshot.name=${point##*/}" -O raw h.qcow2 got.raw
    same want.raw got.raw
    rm want.raw got.raw
done <points
cowgate --quiet export "$last" ./want.raw
qemu-img convert -f qcow2 -O raw h.qcow2 got.raw
same want.raw got.raw

# What didn't change is there once: 12 points of at most 6 changed chunks.
[ "$(stat -c %s h.qcow2)" -le $(((12 * 6 + 1) * 4194304)) ] || fail "the history is too large"

# A later point belongs to a later history.
qemu-io -f raw -c "write -P 99 0 8M" "$(uri "$tmp/sock" volumes/acme/web)" >>qemu-io.log
cowgate backup volumes/acme/web | tail -n 1 >later
nbdcopy "$(uri "$tmp/sock" "$last.qcow2")" again.qcow2
same h.qcow2 again.qcow2
nbdcopy "$(uri "$tmp/sock" "$(cat later).qcow2")" later.qcow2
qemu-img check later.qcow2
[ "$(qemu-img snapshot -l later.qcow2 | wc -l)" = 14 ]

must_fail 1 'there is no backups' cowgate info "$pruned.qcow2"
must_fail 1 'history|qcow2' cowgate delete "$last.qcow2"
