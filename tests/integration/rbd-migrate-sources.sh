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
    rbd rm --no-progress moved
    same full.raw $file # the source is untouched
done

move ./full.raw full.raw
rbd rm --no-progress moved

# qcow2
qemu-img convert -O qcow2 sparse.raw disk.qcow2
qemu-nbd --socket="$tmp/qcow2.sock" --read-only --persistent --shared=0 --format=qcow2 disk.qcow2 2>qemu-nbd.log &
cleanup_fn stop $!
wait_for 30 nbd_answers "$tmp/qcow2.sock"
move "nbd+unix:///?socket=$tmp/qcow2.sock" sparse.raw
rbd rm --no-progress moved
