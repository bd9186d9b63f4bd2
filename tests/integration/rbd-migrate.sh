#!/bin/bash
# Images that are in use while they are filled: from a volume, a point, a file; the source stays as
# it was, and what was kept for the migration goes.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

cowgate init
for at in 0 40 100; do
    dd if=/dev/urandom of=src.raw bs=1M seek=$at count=10 conv=notrunc status=none
done
truncate -s 256M src.raw
cowgate --quiet import ./src.raw volumes/acme/web
point=$(cowgate --quiet backup volumes/acme/web)
cowgate list | grep -v '^rbd' >before

used() { rbd du --format json "$1" | jq '.images[] | select(has("snapshot") | not) | .used_size'; }

# nothing_left: of what migrations keep.
nothing_left() {
    cowgate list | grep -v '^rbd' | diff before - || fail "something of a migration is left"
    [ -z "$(find root/migrations root/repo/acme/holds -mindepth 1 2>/dev/null)" ] || fail "$(find root/migrations root/repo/acme/holds)"
    grep -q "$COWGATE_RUN/migrate-" /proc/mounts && fail "a mount is left"
    [ -z "$(ls "$COWGATE_RUN" | grep migrate-)" ] || fail "$(ls "$COWGATE_RUN")"
}

# In one go.
for source in volumes/acme/web "$point" ./src.raw; do
    cowgate migrate run "$source" rbd/rbd/whole 2>said
    grep -q 'rbd/rbd/whole is usable now' said || fail "$(cat said)"
    grep -Eq 'by the stream (nbd|file),' said || fail "$(cat said)"
    rbd export --no-progress whole - | cmp - src.raw
    [ "$(used whole)" -le $((36 << 20)) ] || fail "it isn't sparse: $(used whole)"
    rbd rm --no-progress whole
    nothing_left
done

# In steps: used before it's filled, and while it is.
cowgate migrate prepare "$point" rbd/rbd/steps --serve 2>serve.log &
serve=$!
cleanup_fn stop $serve
wait_for 30 grep -q 'usable now' serve.log
cowgate migrate status | grep -q '^rbd/rbd/steps  prepared  from' || fail "$(cowgate migrate status)"
must_fail 1 "can't be|held|hold" cowgate delete "$point"
must_fail 1 "isn't filled yet" cowgate migrate commit rbd/rbd/steps
rbd export --no-progress steps - | cmp - src.raw
cp src.raw want.raw
start_serve "$tmp/s"
target=$(uri "$tmp/s" rbd/rbd/steps)
jq '.rbd = {}' root/cowgate.json >new.json
stop "$serve_pid"
mv new.json root/cowgate.json
start_serve "$tmp/s"
change() {
    qemu-io -f raw -c "write -P $1 $2 $3" "$target" >qemu-io.log
    head -c $3 /dev/zero | tr '\0' "\\$(printf %o $1)" |
        dd of=want.raw bs=1 seek=$2 conv=notrunc status=none
}
change 7 45000000 5000
change 9 200000000 70000
nbdcopy "$target" - | cmp - want.raw
during=$(cowgate --quiet backup rbd/rbd/steps backups/acme/steps)
cowgate export "$during" - | cmp - want.raw
cowgate migrate execute rbd/rbd/steps &
execute=$!
change 11 105000000 65536
wait $execute
cowgate migrate status | grep -q '^rbd/rbd/steps  executed  from' || fail "$(cowgate migrate status)"
change 12 107000000 512
nbdcopy "$target" - | cmp - want.raw
stop "$serve_pid"
cowgate migrate commit rbd/rbd/steps
wait $serve
rbd export --no-progress steps - | cmp - want.raw
after=$(cowgate --quiet backup rbd/rbd/steps backups/acme/steps)
cowgate export "$after" - | cmp - want.raw
for p in "$during" "$after"; do cowgate delete "$p"; done
must_fail 1 'there is no migration' cowgate migrate commit rbd/rbd/steps
cowgate export "$point" - | cmp - src.raw
nothing_left

# Abort: as if nothing had been.
cowgate migrate prepare volumes/acme/web rbd/rbd/none --serve 2>serve.log &
serve=$!
wait_for 30 grep -q 'usable now' serve.log
grep -q 'what is written to volumes/acme/web later stays there' serve.log || fail "$(cat serve.log)"
must_fail 1 'is being migrated from volumes/acme/web already' cowgate migrate prepare "$point" rbd/rbd/none --serve
cowgate migrate abort rbd/rbd/none
wait $serve
[ "$(rbd ls | sort | xargs)" = steps ] || fail "$(rbd ls)"
nothing_left
must_fail 1 'rbd/rbd/steps exists already' cowgate migrate run volumes/acme/web rbd/rbd/steps
nothing_left
# Also somebody's whose header is lost, but not its data.
rados -p rbd rm "rbd_header.$(rbd info --format json steps | jq -r .id)"
rados -p rbd ls | sort >had
must_fail 1 'rbd/rbd/steps exists already' cowgate migrate run volumes/acme/web rbd/rbd/steps
rados -p rbd ls | sort | diff had - || fail "it was touched"
nothing_left
