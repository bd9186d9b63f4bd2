#!/bin/bash
# What people migrate from, in use before and while it's filled: block devices, with holes and
# without, files, qcow2 by qemu-nbd, LUKS.  The new image is what the source was, with what was
# written since, and takes only the space that it needs.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
requires losetup --version
requires cryptsetup --version
start_ceph
begin_root
remember_root

for at in 0 13 37 62; do
    dd if=/dev/urandom of=sparse.raw bs=1M seek=$at count=2 conv=notrunc status=none
done
truncate -s 96M sparse.raw
cp --sparse=never sparse.raw full.raw # the same, and every zero written

for file in sparse.raw full.raw; do
    loop=$(losetup --find --show $file)
    cleanup_fn losetup -d "$loop"
    move "$loop" $file
    grep -q "nobody may write to $loop before the commit" prepare.log || fail "$(cat prepare.log)"
    rbd rm --no-progress moved
    same full.raw $file # the source is untouched
done

move ./full.raw full.raw
rbd rm --no-progress moved

# Sizes that aren't whole objects.
cp --sparse=always sparse.raw odd.raw
truncate -s $((63 << 20 | 1536)) odd.raw # 1 MiB of noise and a piece is in the last object
move ./odd.raw odd.raw
rbd rm --no-progress moved
for size in 512 4194304 4194816 1049088; do
    head -c $size /dev/urandom >small.raw
    start_moving ./small.raw small.raw
    cowgate migrate execute rbd/rbd/moved
    end_moving
    rbd rm --no-progress moved
done

# qcow2
qemu-img convert -O qcow2 sparse.raw disk.qcow2
qemu-nbd --socket="$tmp/qcow2.sock" --read-only --persistent --shared=0 --format=qcow2 disk.qcow2 2>qemu-nbd.log &
cleanup_fn stop $!
wait_for 30 nbd_answers "$tmp/qcow2.sock"
move "nbd+unix:///?socket=$tmp/qcow2.sock" sparse.raw
rbd rm --no-progress moved
