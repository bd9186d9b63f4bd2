#!/bin/bash
# A chain of 20 clones, each of the one before, which was written: no image stands on more than 16.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

parent() { rbd info "$1" --format json | jq -r '.parent.image // "none"'; }

cowgate init
cowgate create rbd/rbd/c0 --size 32M
for i in {1..20}; do
    qemu-io -f raw -c "write -q -P $i $((i - 1))M 1M" "rbd:rbd/c$((i - 1))"
    cowgate snapshot "rbd/rbd/c$((i - 1))@s"
    cowgate clone "rbd/rbd/c$((i - 1))@s" "rbd/rbd/c$i" 2>"c$i.log"
    want=c$((i - 1))
    [ $i = 17 ] && want=none
    [ "$(parent c$i)" = $want ] || fail "c$i stands on $(parent c$i)"
done
grep -q '^flattened: rbd/rbd/c17' c17.log || fail "it doesn't say so: $(cat c17.log)"
[ ! -s c16.log ] && [ ! -s c18.log ] || fail "$(cat c16.log c18.log)"

# The content is right, of the last one and of the flat one, also when those below are gone.
for i in {1..20}; do printf "\\x$(printf %x "$i")%.0s" {1..1024} | head -c 1024; done >want
content() {
    rm -f out.raw
    rbd export --no-progress "$1" out.raw
    for ((k = 0; k < $2; k++)); do dd if=out.raw bs=1024 skip=$((k * 1024)) count=1 status=none; done >got
    head -c $(($2 * 1024)) want | cmp - got || fail "$1 is wrong"
    [ "$(stat -c %s out.raw)" = 33554432 ]
}
content c20 20
content c17 17
for i in {16..0}; do
    must_fail 1 'has snapshots' cowgate delete "rbd/rbd/c$i"
    cowgate delete --snapshots "rbd/rbd/c$i"
done
[ "$(rbd ls | sort | tr '\n' ' ')" = "c17 c18 c19 c20 " ] || fail "$(rbd ls)"
content c20 20
