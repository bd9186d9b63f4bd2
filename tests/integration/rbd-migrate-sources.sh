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

# A client that stays, and writes, from before execute until after the commit.
cat >stays.py <<'PY'
import nbd, os, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
n = 0
while not os.path.exists("stop") or n < 1000:
    data = bytes([n % 255 + 1]) * 4096
    h.pwrite(data, 4096 * (n % 1000))
    assert h.pread(4096, 4096 * (n % 1000)) == data
    n += 1
    if n == 20:
        open("writes", "w").close()
h.flush()
h.shutdown()
with open("want.raw", "r+b") as f:
    for i in range(n - 1000, n):
        f.seek(4096 * (i % 1000))
        f.write(bytes([i % 255 + 1]) * 4096)
PY
start_moving ./full.raw full.raw
start_serve "$tmp/moved.sock"
nbd_python stays.py "$(uri "$tmp/moved.sock" rbd/rbd/moved)" &
stays=$!
wait_for 60 test -e writes
cowgate migrate execute rbd/rbd/moved
cowgate migrate commit rbd/rbd/moved
wait $prepare
touch stop
wait $stays
stop "$serve_pid"
rbd export --no-progress moved - | cmp - want.raw
nothing_left
