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

# An odd size is rounded up with zeros.
head -c 1000 /dev/urandom >odd.raw
cowgate --quiet import ./odd.raw rbd/rbd/odd
[ "$(rbd info odd --format json | jq .size)" = 1024 ] || fail "$(rbd info odd)"
rm out.raw
rbd export --no-progress odd out.raw
truncate -s 1024 odd.raw
same odd.raw out.raw
cowgate delete rbd/rbd/odd

# Interrupted: nothing is left.
head -c 400M /dev/urandom >big.raw
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
