#!/bin/bash
# A block device as an image: random operations against memory, and its own calls for discarding and
# zeroing.  It isn't opened for writing while it is mounted.
. "$abs_srcdir/tests/functions.sh"
requires test "$(id -u)" = 0
requires test -x "$abs_builddir/tests/unit/test-file"
requires losetup --version

# With the first partition's worth of data on it beforehand, so that zeroing matters.
head -c 4M /dev/urandom >disk
device=$(losetup --find --show disk)
cleanup_fn losetup -d "$device"
before=$(du -k disk | cut -f1)

TEST_DEVICE=$device "$abs_builddir/tests/unit/test-file" 2>&1 | tee test.log
! grep -q SKIPPED test.log || fail "the device wasn't tested"
sync disk
after=$(du -k disk | cut -f1)
[ "$after" -lt $((before / 4)) ] || fail "discarding left $after of $before KiB"

truncate -s 64M disk
losetup -c "$device"
mkfs.ext4 -q "$device"
mkdir mnt
mount "$device" mnt
cleanup_fn umount mnt
! TEST_DEVICE=$device "$abs_builddir/tests/unit/test-file" >mounted.log 2>&1 ||
    fail "a mounted device was opened for writing"
