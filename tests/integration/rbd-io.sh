#!/bin/bash
# One image, by Ceph's own clients and by both faces: what one writes the others read, what one
# discards is a hole for all, snapshots and clones of either side are there for the other.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"
start_ceph

cowgate init
configure '{}'
rbd create web --size 64M
start_serve sock
web=$(uri sock rbd/rbd/web)

# verify ENGINE ... write|read: the same random pieces every time.
verify() {
    local how=${!#} only=()
    [ "$how" = write ] && only=(--do_verify=0)
    fio --name=verify "${@:1:$#-1}" --rw="rand$how" --bs=8k --size=24m --iodepth=16 --randseed=5 \
        --verify=crc32c --verify_fatal=1 "${only[@]}" --output=fio.log || fail "$(cat fio.log)"
}
by_rbd=(--ioengine=rbd --pool=rbd --rbdname=web --clientname=admin)
by_nbd=(--ioengine=nbd "--uri=$web")

# Written by librbd, read by the export, and the other way round.
verify "${by_rbd[@]}" --offset=0 write
verify "${by_nbd[@]}" --offset=0 read
verify "${by_nbd[@]}" --offset=24m write
verify "${by_rbd[@]}" --offset=24m read
nbdcopy "$web" out.raw
rbd export --no-progress web export.raw
same out.raw export.raw

# holes EXPORT IMAGE: they agree on where data is.
holes() {
    nbdinfo --map --json "$1" | jq -c 'map(select(.type == 0) | [.offset, .length])' >by-nbd
    rbd diff --format json "$2" |
        jq -c 'map(select(.exists == "true") | [.offset, .length] | map(tonumber)) |
            reduce .[] as [$o, $l] ([];
                if length > 0 and .[-1][0] + .[-1][1] == $o then .[-1][1] += $l
                else . + [[$o, $l]] end)' >by-rbd
    same by-nbd by-rbd
}
holes "$web" web
nbd_python -c '
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.trim(8 << 20, 4 << 20)
h.zero(4 << 20, 32 << 20)' "$web"
holes "$web" web
nbdinfo --map --json "$web" |
    jq -e 'map(select(.type == 3 and .offset <= 4194304 and .offset + .length >= 12582912)) | length == 1'

# Snapshots and clones of either side.
cowgate snapshot rbd/rbd/web@ours
rbd snap create --no-progress web@theirs
rbd export --no-progress web@ours before.raw
qemu-io -f raw -c 'write -P 9 0 1M' "$web" >qemu-io.log
for snapshot in ours theirs; do
    nbdcopy "$(uri sock "rbd/rbd/web@$snapshot")" out.raw
    same before.raw out.raw
done
rbd snap ls web --format json | jq -e 'map(.name) == ["ours", "theirs"]'
rbd snap protect web@theirs
rbd clone web@theirs their-clone
cowgate clone rbd/rbd/web@ours rbd/rbd/our-clone
for clone in their-clone our-clone; do
    nbdcopy "$(uri sock "rbd/rbd/$clone")" out.raw
    same before.raw out.raw
    qemu-io -f raw -c 'write -P 3 20M 64k' "$(uri sock "rbd/rbd/$clone")" >qemu-io.log
    rm -f export.raw
    rbd export --no-progress "$clone" export.raw
    cmp -n 4096 -i 20971520:0 export.raw <(printf '\3%.0s' {1..4096})
    holes "$(uri sock "rbd/rbd/$clone")" "$clone"
done
stop "$serve_pid"

# A disk with partitions, as files and as exports.
a_disk disk.raw
rbd namespace create rbd/ns
rbd import --no-progress disk.raw rbd/ns/disk
start_mount
ls "$tmp/mnt/rbd" | grep -qx rbd
ls "$tmp/mnt/rbd/rbd" >names
grep -qx ns names && grep -qx web names && grep -qx web@ours names || fail "$(cat names)"
[ "$(ls "$tmp/mnt/rbd/rbd/ns")" = disk ] || fail "$(ls "$tmp/mnt/rbd/rbd/ns")"
cmp disk.raw "$tmp/mnt/rbd/rbd/ns/disk"
# Two programs write one file.
exec 6<>"$tmp/mnt/rbd/rbd/web" 7<>"$tmp/mnt/rbd/rbd/web"
printf '\5%.0s' {1..512} >&6
exec 6>&-
printf '\6%.0s' {1..512} >&7
exec 7>&-
loop_device "$tmp/mnt/rbd/rbd/ns/disk.p1"
mkdir fs
mount "$loop" fs
diff -r files/linux fs/linux
cp -r files/linux fs/again
umount fs
losetup -d "$loop"
cmp "$tmp/mnt/rbd/rbd/web@theirs" before.raw
stop_mount
start_serve sock
nbdcopy "$(uri sock rbd/rbd/ns/disk.p1)" part.raw
e2fsck -fn part.raw >fsck.log
rm export.raw
rbd export --no-progress rbd/ns/disk export.raw
dd if=export.raw bs=512 skip=2048 count=81920 of=want.raw status=none
same want.raw part.raw
