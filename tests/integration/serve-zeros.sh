#!/bin/bash
# serve --detect-zeros: zeros in what nobody knows the holes of are told to NBD clients, and what can
# change is left alone.
. "$abs_srcdir/tests/functions.sh"
requires test "$(id -u)" = 0
requires losetup --version

# A device, written all over, with zeros in it: 3 MiB, one aligned grain, and too few to tell.
head -c 40M /dev/urandom >disk
dd if=/dev/zero of=disk bs=1M seek=5 count=3 conv=notrunc status=none
dd if=/dev/zero of=disk bs=64K seek=200 count=1 conv=notrunc status=none
dd if=/dev/zero of=disk bs=4K seek=4001 count=15 conv=notrunc status=none
loop=$(losetup --find --show disk)
cleanup_fn losetup -d "$loop"
cat >map <<'EOT'
0 5242880 0
5242880 3145728 2
8388608 4718592 0
13107200 65536 2
13172736 28770304 0
EOT

cowgate init
cowgate clone "$loop" volumes/acme/device
cowgate clone ./disk volumes/acme/file
nbdkit --foreground --unix "$tmp/other.sock" --filter=noextents file disk 2>nbdkit.log &
cleanup_fn stop $!
wait_for 30 nbd_answers "$tmp/other.sock"
cowgate clone "nbd+unix:///?socket=$tmp/other.sock" volumes/acme/export
cowgate --quiet backup volumes/acme/device >/dev/null

start_serve "$tmp/nbd.sock" --read-only --detect-zeros
for name in volumes/acme/device volumes/acme/file volumes/acme/export backups/acme/device/latest; do
    u=$(uri "$tmp/nbd.sock" "$name")
    nbdinfo --json --map "$u" | jq -r '.[] | "\(.offset) \(.length) \(.type)"' >got
    diff map got || fail "$name: the map is wrong"
    nbdcopy "$u" copy.raw
    same disk copy.raw
    # qemu asks for one extent at a time.
    qemu-img map --output=json -f raw "$u" | jq -r '.[] | "\(.start) \(.length) \(.zero)"' |
        sed -e 's/false$/0/' -e 's/true$/2/' >got
    diff map got || fail "$name: qemu-img maps it wrongly"
    qemu-img convert -f raw -O raw "$u" copy.raw
    same disk copy.raw
done
stop "$serve_pid"

# What others may write is called data; snapshots aren't.
cowgate snapshot volumes/acme/device@s
start_serve "$tmp/nbd.sock" --detect-zeros
nbdinfo --map --totals "$(uri "$tmp/nbd.sock" volumes/acme/device)" >totals
! grep -q zero totals || fail "zeros were told of a volume that can be written"
nbdinfo --json --map "$(uri "$tmp/nbd.sock" volumes/acme/device@s)" |
    jq -r '.[] | "\(.offset) \(.length) \(.type)"' | diff map - || fail "a snapshot's zeros weren't found"
stop "$serve_pid"

# Without the option nothing is read to answer.
start_serve "$tmp/nbd.sock" --read-only
nbdinfo --map --totals "$(uri "$tmp/nbd.sock" volumes/acme/device)" >totals
! grep -q zero totals || fail "zeros were told without the option"
