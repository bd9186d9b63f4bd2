#!/bin/bash
# Specs for Ceph's own tool, and migrations that read from the server, or the mount, that a root has
# anyway: by --advertise and by its configuration.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
start_ceph
begin_root
for at in 0 7 26; do
    dd if=/dev/urandom of=disk.raw bs=1M seek=$at count=3 conv=notrunc status=none
done
truncate -s 32M disk.raw
cowgate --quiet import ./disk.raw volumes/acme/web
cowgate snapshot volumes/acme/web@s
point=$(cowgate --quiet backup volumes/acme/web)
remember_root

if [ $stream = nbd ]; then
    cowgate serve --read-only --listen 127.0.0.1:10809 2>serve.log &
    cleanup_fn stop $!
    wait_for 30 grep -q '^serving' serve.log
    address=nbd://127.0.0.1:10809
    there=$address
else
    mkdir mnt
    cowgate mount --read-only "$tmp/mnt"
    cleanup_fn cowgate umount "$tmp/mnt"
    address=$tmp/mnt
    there=$tmp/mnt
fi

# by_rbd SPEC IMAGE: Ceph's own tool does all.
by_rbd() {
    rbd migration prepare --import-only --source-spec-path "$1" "$2"
    rbd export --no-progress "$2" - | cmp - disk.raw
    rbd migration execute --no-progress "$2"
    rbd migration commit --no-progress "$2"
    rbd export --no-progress "$2" - | cmp - disk.raw
}
n=0
for name in volumes/acme/web@s "$point" "$point.qcow2"; do
    n=$((n + 1))
    cowgate migrate spec "$name" --advertise "$address" >spec$n.json 2>said
    grep -q "warning: only this host reaches $address" said || fail "$(cat said)"
    [ "$(jq -r '.stream.uri // .stream.file_path' spec$n.json)" = "$there/$name" ] || fail "$(cat spec$n.json)"
    [ "$(jq -r .stream.type spec$n.json)" = $stream ] || fail "$(cat spec$n.json)"
    by_rbd spec$n.json by-rbd-$n
done
[ "$(jq -r .type spec2.json spec3.json | xargs)" = 'raw qcow' ] || fail "the types"
[ "$(rbd snap ls --format json by-rbd-3 | jq -r '.[].name')" = "${point##*/}" ] || fail "$(rbd snap ls by-rbd-3)"
must_fail 1 'can be written meanwhile' cowgate migrate spec volumes/acme/web --advertise "$address"
must_fail 2 'where is it served' cowgate migrate spec "$point"

# Who serves what else than this root has is found out.
mkdir other
COWGATE_ROOT=$tmp/other/root cowgate init
head -c 32M /dev/urandom >other.raw
COWGATE_ROOT=$tmp/other/root cowgate --quiet import ./other.raw volumes/acme/web
COWGATE_ROOT=$tmp/other/root cowgate snapshot volumes/acme/web@s
must_fail 1 "it belongs to another root" env COWGATE_ROOT="$tmp/other/root" \
    cowgate migrate spec volumes/acme/web@s --advertise "$address"

# Migrations from there start no server.
jq --arg a "$address" '.advertise = $a' root/cowgate.json >new.json
mv new.json root/cowgate.json
cowgate migrate spec "$point" | diff - spec2.json
cowgate migrate prepare "$point" rbd/rbd/moved 2>prepare.log
cowgate --json migrate status rbd/rbd/moved |
    jq -e --arg a "$address" '.[0] | .state == "prepared" and .address == $a and (.own_server | not)'
cowgate migrate execute rbd/rbd/moved
cowgate migrate commit rbd/rbd/moved
rbd export --no-progress moved - | cmp - disk.raw
nothing_left
cowgate migrate run volumes/acme/web rbd/rbd/run --advertise "$address"
rbd export --no-progress run - | cmp - disk.raw
nothing_left
