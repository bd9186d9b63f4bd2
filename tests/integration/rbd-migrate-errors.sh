#!/bin/bash
# What can't be migrated is said clearly and leaves nothing; what was done meanwhile with Ceph's own
# tools is known; somebody else's image is never touched.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
start_ceph
begin_small
one=rbd/rbd/one

# refused TEXT COMMAND ...: and nothing is left.
refused() {
    local text=$1
    shift
    must_fail 1 "$text" cowgate migrate "$@"
    nothing_left
    [ -z "$(rbd ls)" ] || fail "after $*: $(rbd ls)"
}
state() { cowgate --json migrate status | jq -r '.[].state'; }
is_whole() { rbd export --no-progress one - | cmp - src.raw; }

# Sources and targets that aren't, or can't be.
refused 'volumes/acme/none' run volumes/acme/none $one
refused 'none.raw: No such file' run ./none.raw $one
refused 'none.sock' run "nbd+unix:///?socket=$tmp/none.sock" $one
refused 'rbd/rbd/none' run rbd/rbd/none $one
refused "acme/web/20200101T000000Z" run backups/acme/web/20200101T000000Z $one
refused 'nopool' run "$point" rbd/nopool/one
refused "can't be the target" run "$point" volumes/acme/new
refused "can't be the target|write rbd/POOL/IMAGE|snapshot" run "$point" $one@s
must_fail 2 '.' cowgate migrate run "$point"
must_fail 2 "no step 'go'" cowgate migrate go
must_fail 2 "can't take standard input" cowgate migrate run - $one
must_fail 1 'there is no migration' cowgate migrate status $one
for step in execute commit abort; do must_fail 1 'there is no migration' cowgate migrate $step $one; done
cp root/cowgate.json all.json
jq '.rbd = {"pools": {"other": null}}' all.json >root/cowgate.json
cowgate list rbd/ >list.out 2>&1 || true
refused 'rbd' run "$point" $one
cp all.json root/cowgate.json

# An image that is there stays.
rbd create one --size 16M
must_fail 1 'exists already' cowgate migrate run "$point" $one
must_fail 1 'exists already' cowgate migrate run $one $one
nothing_left
rbd rm --no-progress one

# Addresses: nobody's, another root's.
refused 'nobody serves this at' prepare "$point" $one --advertise /nonexistent
refused "the migration's server doesn't answer at /nonexistent" prepare "$point" $one --serve --advertise /nonexistent
mkdir -p "other/$(dirname "$point")"
head -c 15M src.raw >"other/$point"
refused "has 15728640 bytes, not 16777216: it belongs to another root" prepare "$point" $one --advertise "$tmp/other"
cp src.raw "other/$point"
for at in 0 5 14; do
    dd if=/dev/urandom of="other/$point" bs=1M seek=$at count=1 conv=notrunc status=none
done
refused "isn't the same image: it belongs to another root" prepare "$point" $one --advertise "$tmp/other"
cp src.raw "other/$point" # a part in the middle
dd if=/dev/urandom of="other/$point" bs=1M seek=4 count=4 conv=notrunc status=none
refused "isn't the same image" prepare "$point" $one --advertise "$tmp/other"
must_fail 2 'names an export' cowgate migrate prepare "$point" $one --advertise nbd://localhost/x
must_fail 2 'is no address' cowgate migrate prepare "$point" $one --advertise localhost
must_fail 2 '--stream is nbd or file' cowgate migrate prepare "$point" $one --stream http
must_fail 2 'for the server that --serve starts' cowgate migrate prepare "$point" $one --listen 127.0.0.1:10809
must_fail 2 'is for --tls-certificates' cowgate migrate prepare "$point" $one --serve --listen 127.0.0.1:10809 --tls-verify-peer
refused 'is no address of a stream over nbd' prepare "$point" $one --stream nbd --advertise "$tmp/other"
if [ "$stream" = nbd ]; then
    refused 'nobody serves this at' prepare "$point" $one
    refused 'nobody serves this at' prepare "$point" $one --advertise nbd://127.0.0.1:1
    refused 'at which of its addresses' prepare "$point" $one --serve --listen 0.0.0.0:10809
    refused 'can be reached from outside' prepare "$point" $one --serve --listen 192.0.2.1:10809
    start_serve "$tmp/busy" --read-only
    nc_port=10977
    cowgate serve --listen 127.0.0.1:$nc_port --insecure >busy.log 2>&1 &
    busy=$!
    cleanup_fn stop $busy
    wait_for 30 grep -q 'serving on' busy.log
    refused "the migration's server ended: .*(in use|EADDRINUSE)" prepare "$point" $one --serve --listen 127.0.0.1:$nc_port
    stop $busy
else
    refused "can't read a stream of the kind 'nbd'" prepare "$point" $one --serve --stream nbd
    refused "can't read a stream of the kind 'nbd'" prepare "$point" $one --advertise nbd://127.0.0.1:1
    refused 'where is it mounted' prepare "$point" $one
    refused 'a server that listens is of no use' prepare "$point" $one --serve --listen 127.0.0.1:10809
fi

# spec: of what can't change, from where it is served; Ceph's own tool takes it.
must_fail 1 'can be written meanwhile' cowgate migrate spec volumes/acme/web --advertise /m
must_fail 1 'nobody serves' cowgate migrate spec "$point" --advertise /nonexistent
must_fail 2 'where is it served' cowgate migrate spec "$point"
mkdir m
cowgate mount m --read-only
cleanup_fn umount -ql m
cowgate migrate spec "$point" --advertise "$tmp/m" >spec.json 2>said
grep -q 'only this host reaches' said || fail "$(cat said)"
rbd migration prepare --import-only --source-spec-path spec.json one
is_whole
must_fail 1 'exists already' cowgate migrate run "$point" $one
is_whole
rbd migration abort --no-progress one

# A mount or a server that is there: told, or configured.
cowgate migrate prepare "$point" $one --advertise "$tmp/m" 2>said
must_fail 1 "was prepared to read from $tmp/m" cowgate migrate prepare "$point" $one --advertise "$tmp/other"
cowgate migrate run "$point" $one 2>said
is_whole
rbd rm --no-progress one
jq --arg a "$tmp/m" '.advertise = $a' all.json >root/cowgate.json
cowgate migrate run volumes/acme/web $one 2>said
grep -q "$tmp/m" said || fail "$(cat said)"
is_whole
rbd rm --no-progress one
cp all.json root/cowgate.json
nothing_left
if [ "$stream" = nbd ]; then
    cowgate serve >default.log 2>&1 &
    default=$!
    cleanup_fn stop $default
    wait_for 30 grep -q 'serving on' default.log
    cowgate migrate prepare "$point" $one 2>said
    grep -q "$COWGATE_RUN/nbd.sock" said || fail "$(cat said)"
    cowgate migrate execute $one
    cowgate migrate commit $one
    is_whole
    rbd rm --no-progress one
    stop $default
    nothing_left
fi

prepare() {
    rm -f prepare.log
    cowgate migrate prepare "$1" $one --serve 2>prepare.log &
    prepare=$!
    cleanup_fn stop $prepare
    wait_for 60 grep -q 'usable now' prepare.log
}

# One at a time.
prepare "$point"
must_fail 1 'another process is at this migration' flock root/migrations/rbd+rbd+one cowgate migrate execute $one
must_fail 1 "is being migrated from $point already" cowgate migrate run volumes/acme/web $one
must_fail 1 "is being migrated from $point already" cowgate migrate run "$point" $one --snapshots
cowgate --root other.root init
jq '.rbd = {}' other.root/cowgate.json >new.json
mv new.json other.root/cowgate.json
must_fail 1 'exists already' cowgate --root other.root migrate run ./src.raw $one
[ -z "$(ls other.root/migrations)" ] || fail "$(ls other.root/migrations)"
[ "$(state)" = prepared ] || fail "$(state)"

# Asked to end, prepare --serve ends its server and says so; not while another process needs it.
flock root/migrations/rbd+rbd+one bash -c "kill $prepare; while kill -0 $prepare; do sleep 0.05; done" 2>kill.err
wait $prepare
grep -q 'another process is at rbd/rbd/one: its server goes on' prepare.log || fail "$(cat prepare.log)"
is_whole
prepare "$point"
stop $prepare
grep -q 'nobody serves rbd/rbd/one now' prepare.log || fail "$(cat prepare.log)"
cowgate migrate status | grep -q "its server doesn't run" || fail "$(cowgate migrate status)"
prepare "$point"
is_whole

# By Ceph's tool: filled and committed, aborted, removed for another of the same name.
rbd migration execute --no-progress one
[ "$(state)" = executed ] || fail "$(state)"
rbd migration commit --no-progress one
[ "$(state)" = committed ] || fail "$(state)"
must_fail 1 'was committed, not by this root' cowgate migrate abort $one
cowgate migrate commit $one
wait $prepare
is_whole
rbd rm --no-progress one
nothing_left

prepare "$point"
rbd migration abort --no-progress one
[ "$(state)" = gone ] || fail "$(state)"
for step in execute commit; do must_fail 1 "migrate abort $one" cowgate migrate $step $one; done
must_fail 1 "migrate abort $one" cowgate migrate run "$point" $one
cowgate migrate abort $one
wait $prepare
nothing_left

prepare "$point"
rbd migration abort --no-progress one
rbd create one --size 16M
cowgate migrate status | grep -q 'another image has its name' || fail "$(cowgate migrate status)"
for step in execute commit; do must_fail 1 'another image' cowgate migrate $step $one; done
cowgate migrate abort $one
wait $prepare
rbd info one >info.out
rbd rm --no-progress one
nothing_left

# An image that isn't found isn't gone: where the cluster isn't known, or the image has no name or another.
prepare "$point"
jq '.rbd.conf = "/nonexistent/ceph.conf"' all.json >root/cowgate.json
for step in execute commit abort; do must_fail 1 'read /nonexistent/ceph.conf' cowgate migrate $step $one; done
must_fail 1 'read /nonexistent/ceph.conf' cowgate migrate run "$point" $one
[ "$(state)" = unknown ] || fail "$(state)"
cp all.json root/cowgate.json
must_fail 1 'it is being migrated' cowgate rename $one rbd/rbd/two
must_fail 1 'it is being migrated' cowgate flatten $one
ceph osd pool rename rbd other 2>>ceph.log
for step in execute commit abort; do must_fail 1 'there is no pool rbd' cowgate migrate $step $one; done
ceph osd pool rename other rbd 2>>ceph.log
rbd rename one two
for step in execute commit abort; do must_fail 1 'give it its name back' cowgate migrate $step $one; done
rbd create one --size 16M
must_fail 1 'give it its name back' cowgate migrate abort $one
rbd rm --no-progress one
[ "$(state)" = unknown ] || fail "$(state)"
rbd rename two one
is_whole
cowgate migrate execute $one
cowgate migrate commit $one
wait $prepare
is_whole
rbd rm --no-progress one
nothing_left

# A source that goes meanwhile: a volume's content stays, a file's is missed.
cowgate clone volumes/acme/web volumes/acme/short
prepare volumes/acme/short
cowgate delete volumes/acme/short
cowgate migrate execute $one
cowgate migrate commit $one
wait $prepare
is_whole
rbd rm --no-progress one
cp src.raw short.raw
prepare ./short.raw
rm short.raw
kill -9 "$(cat root/migrations/rbd+rbd+one/server)" # which has it open
must_fail 1 'short.raw' cowgate migrate execute $one
cowgate migrate abort $one
wait $prepare || true # as it sees first that its server died, or that all ended
nothing_left

# A damaged record hides no other, and nothing is done with what it was of.
prepare "$point"
cp root/migrations/rbd+rbd+one/migration.json record
echo '{"format": 1}' >root/migrations/rbd+rbd+one/migration.json
mkdir root/migrations/rbd+rbd+two
sed -e 's/"format": 1/"format": 99/' record >root/migrations/rbd+rbd+two/migration.json
cowgate migrate status >status.out
grep -q '^rbd/rbd/one  damaged  (.*not the record' status.out || fail "$(cat status.out)"
grep -q '^rbd/rbd/two  damaged  (.*format 99' status.out || fail "$(cat status.out)"
must_fail 1 'not the record of a migration' cowgate migrate abort $one
must_fail 1 'not the record of a migration' cowgate migrate run "$point" $one
rm -r root/migrations/rbd+rbd+two
cp record root/migrations/rbd+rbd+one/migration.json
cowgate migrate abort $one
wait $prepare
nothing_left
