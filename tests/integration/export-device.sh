#!/bin/bash
# Copies towards a block device: what was on it is gone, and a thin one stays thin, be it that it can
# forget what is zeroed or, as device mapper's thin volumes, that it can't.
. "$abs_srcdir/tests/functions.sh"
requires test "$(id -u)" = 0
requires losetup --version
requires nbdfuse --version
requires test -c /dev/fuse

size=$((96 << 20))
# Data at both ends and in the middle; holes; and zeros that are written, 8 MiB of them.
truncate -s $size source.raw
for at in 0 40 95; do
    dd if=/dev/urandom of=source.raw bs=1M seek=$at count=1 conv=notrunc status=none
done
dd if=/dev/zero of=source.raw bs=1M seek=50 count=8 conv=notrunc status=none
cowgate init
cowgate --quiet import ./source.raw volumes/acme/web
cowgate --quiet backup volumes/acme/web >/dev/null

kib() { sync "$1"; echo $(($(stat -c '%b * %B' "$1") / 1024)); }
thin() { # FILE: it has room for the data, and little more
    local n
    n=$(kib "$1")
    [ "$n" -le $((4 << 10)) ] || fail "$2: $1 takes $n KiB"
}
# check DEVICE BACKING WHAT: both ways of writing to it, first empty and then full of old data.
check() {
    local device=$1 backing=$2 job
    for job in "export volumes/acme/web" "export ./source.raw" "restore backups/acme/web/latest"; do
        truncate -s 0 "$backing"
        truncate -s $size "$backing"
        blockdev --flushbufs "$device"
        cowgate --quiet $job "$device"
        cmp source.raw "$device" || fail "$job to an empty $3 went wrong"
        thin "$backing" "$job to an empty $3"
        dd if=/dev/urandom of="$device" bs=1M oflag=direct count=96 status=none
        cowgate --quiet $job "$device"
        cmp source.raw "$device" || fail "$job to a used $3 went wrong"
    done
}

truncate -s $size loop.backing
loop=$(losetup --find --show --direct-io=off loop.backing)
cleanup_fn losetup -d "$loop"
check "$loop" loop.backing "loop device"
thin loop.backing "a used loop device"

# A device that can neither discard nor zero: a loop over a file of a server that can't.
truncate -s $size thin.backing
mkdir mnt
nbdkit --foreground --unix "$tmp/nbd.sock" --filter=nozero split thin.backing 2>nbdkit.log &
cleanup_fn stop $!
wait_for 30 nbd_answers "$tmp/nbd.sock"
nbdfuse "$tmp/mnt/disk" "nbd+unix:///?socket=$tmp/nbd.sock" 2>nbdfuse.log &
nbdfuse_pid=$!
cleanup_fn wait $nbdfuse_pid
cleanup_fn umount -l "$tmp/mnt"
wait_for 30 test -e mnt/disk
thick=$(losetup --find --show --direct-io=off mnt/disk)
cleanup_fn losetup -d "$thick"
! fallocate --punch-hole --offset 0 --length 1M "$thick" 2>/dev/null ||
    fail "the device that shouldn't be able to zero is"
check "$thick" thin.backing "thin device"
