#!/bin/bash
# Imports and exports: sparse, whole or not there.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

used() { rbd du "$1" --format json | jq '.images[0].used_size'; }
all() { { rbd ls; rados -p rbd ls | sed -n 's/^rbd_id\.//p'; } | sort -u | tr '\n' ' '; }

cowgate init
truncate -s 1G disk.raw
for at in 0 100 513 1023; do head -c 1M /dev/urandom | dd of=disk.raw bs=1M seek=$at conv=notrunc status=none; done
dd if=/dev/zero of=disk.raw bs=1M seek=200 count=8 conv=notrunc status=none # zeros that are no hole

# Holes and zeros take no space, going in and out.
cowgate --quiet import ./disk.raw rbd/rbd/web
[ "$(used web)" = $((4 * 4194304)) ] || fail "web takes $(used web)"
rbd export --no-progress web out.raw
same disk.raw out.raw
cowgate --quiet export rbd/rbd/web ./back.raw
same disk.raw back.raw
[ "$(du -k back.raw | cut -f1)" -le 4200 ] || fail "$(du -k back.raw)"
cowgate --quiet export rbd/rbd/web - | cmp - disk.raw
cowgate --quiet import - rbd/rbd/piped --size 1G <disk.raw
[ "$(used piped)" = $((4 * 4194304)) ] || fail "piped takes $(used piped)"
cowgate --quiet import rbd/rbd/web rbd/rbd/again
[ "$(used again)" = $((4 * 4194304)) ] || fail "again takes $(used again)"
cowgate --quiet import rbd/rbd/again volumes/acme/v
cowgate --quiet export volumes/acme/v - | cmp - disk.raw
must_fail 1 'rbd/rbd/web exists already' cowgate import ./disk.raw rbd/rbd/web
must_fail 1 'use import to fill a volume' cowgate export volumes/acme/v rbd/rbd/web
[ "$(all)" = 'again piped web ' ] || fail "$(all)"

head -c 400M /dev/urandom >big.raw

# An odd size is rounded up with zeros.
head -c 1000 /dev/urandom >odd.raw
cowgate --quiet import ./odd.raw rbd/rbd/odd
[ "$(rbd info odd --format json | jq .size)" = 1024 ] || fail "$(rbd info odd)"
rm out.raw
rbd export --no-progress odd out.raw
truncate -s 1024 odd.raw
same odd.raw out.raw
cowgate delete rbd/rbd/odd

# One that Ceph's own tool made, too: the rest of its last sector reads as zeros, and takes no data.
head -c 5000001 big.raw >odd.raw
cp odd.raw rounded.raw
truncate -s 5000192 rounded.raw
rbd import --no-progress odd.raw odd
cowgate --json info rbd/rbd/odd | jq -e '.size == 5000192 and .original_size == 5000001'
cowgate --json list rbd/rbd/odd | jq -e '.[0].size == 5000192'
rm -f back.raw
cowgate --quiet export rbd/rbd/odd ./back.raw
same rounded.raw back.raw
jq '.rbd = {}' "$COWGATE_ROOT/cowgate.json" >new.json
mv new.json "$COWGATE_ROOT/cowgate.json"
start_serve "$tmp/sock"
odd=$(uri "$tmp/sock" rbd/rbd/odd)
nbdcopy "$odd" served.raw
same rounded.raw served.raw
nbd_python - "$odd" <<'PY'
import nbd, sys
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
def refused(data, offset):
    try:
        h.pwrite(data, offset)
    except nbd.Error as e:
        assert e.errno == "ENOSPC", e
    else:
        sys.exit("data behind the end was taken")
assert h.get_size() == 5000192
refused(b"x", 5000001)
refused(b"x" * 512, 4999680)
h.pwrite(b"x" * 321 + bytes(191), 4999680)
h.pwrite(bytes(100), 5000050)
h.zero(512, 4999680)
h.trim(512, 4999680)
h.pwrite(b"y" * 321, 4999680)
assert h.pread(512, 4999680) == b"y" * 321 + bytes(191)
assert h.pread(100, 5000050) == bytes(100)
PY
stop "$serve_pid"
[ "$(rbd info odd --format json | jq .size)" = 5000001 ] || fail "$(rbd info odd)"
rm out.raw
rbd export --no-progress odd out.raw
printf 'y%.0s' {1..321} | dd of=odd.raw bs=1 seek=4999680 conv=notrunc status=none
same odd.raw out.raw
point=$(cowgate --quiet backup rbd/rbd/odd backups/acme/odd)
rbd_write odd 2 4500K+64K
cowgate --json backup rbd/rbd/odd backups/acme/odd | jq -e '.incremental and .chunks_read == 1'
cowgate --quiet restore "$point" rbd/rbd/odd
rm out.raw
rbd export --no-progress odd out.raw
same odd.raw out.raw
cowgate delete rbd/rbd/odd

# Interrupted: nothing is left.
slow() { # into rbd/rbd/new from a pipe that never ends
    mkfifo pipe
    cowgate --quiet import - rbd/rbd/new --size 1G <pipe 2>slow.log &
    job=$!
    exec 5>pipe
    head -c 10M big.raw >&5
    wait_for 30 rbd info .cowgate-draft.new
}
slow
[[ $(rbd ls) != *$'\n'new* ]] || fail "it's visible while it's filled"
told() { cowgate --json list "$1" | jq -r '.[] | select(.name == "rbd/rbd/new") | "\(.unfinished) \(.size) \(.description)"'; }
for prefix in rbd rbd/rbd rbd/rbd/new; do
    [[ $(told $prefix) =~ ^true\ 1073741824\ unfinished:\ a\ client\ is\ filling\ it ]] || fail "$(cowgate list)"
done
must_fail 1 'there is no rbd/rbd/new' cowgate info rbd/rbd/new
must_fail 1 'open elsewhere for writing' cowgate delete rbd/rbd/new
kill -TERM $job # SIGINT is ignored by what a script runs in the background
wait $job && fail "it wasn't interrupted"
exec 5>&-
rm pipe
[ "$(all)" = 'again piped web ' ] || fail "left: $(all)"

# Killed: what is left can be deleted, once Ceph has forgotten the dead one, and the next import of the
# name takes its place.
slow
must_fail 1 'open elsewhere for writing' cowgate import ./disk.raw rbd/rbd/new
kill -9 $job
exec 5>&-
wait $job || true
rm pipe
wait_for 90 cowgate delete rbd/rbd/new
[ "$(all)" = 'again piped web ' ] || fail "left: $(all)"
rbd create --size 5M .cowgate-draft.new
cowgate --quiet import ./disk.raw rbd/rbd/new
[ "$(all)" = 'again new piped web ' ] || fail "left: $(all)"
rm out.raw
rbd export --no-progress new out.raw
same disk.raw out.raw

# A full pool: a clear error, and nothing is left.
rbd snap create --no-progress new@s
ceph osd pool set-quota rbd max_bytes 1
wait_for 60 sh -c 'ceph health detail | grep -q "pool.*full"'
must_fail 1 'the pool is full' cowgate --quiet import ./big.raw rbd/rbd/full
ceph osd pool set-quota rbd max_bytes 0
[[ $(all) != *full* ]] || fail "left: $(all)"
