#!/bin/bash
# What changes an image: snapshots (of several at one moment), rollback, resize, rename, delete.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph

snaps() { rbd snap ls "$1" --format json | jq -r '[.[].name] | join(" ")'; }
size() { rbd info "$1" --format json | jq .size; }

# hold IMAGE: a client that writes it and keeps its lock, until let_go.
hold() {
    mkfifo held
    /usr/bin/python3 -c '
import rados, rbd, sys
c = rados.Rados(conffile="")
c.connect()
image = rbd.Image(c.open_ioctx("rbd"), sys.argv[1])
image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
image.write(b"x" * 512, 0)
open("holding", "w")
sys.stdin.read()
image.close()' "$1" <held 2>hold.log &
    holder=$!
    cleanup_fn stop $holder
    exec 5>held
    wait_for 30 test -e holding
}
let_go() {
    exec 5>&-
    wait $holder
    rm held holding
}

cowgate init
jq '.rbd = {}' "$COWGATE_ROOT/cowgate.json" >new.json
mv new.json "$COWGATE_ROOT/cowgate.json"
for i in a b; do cowgate create rbd/rbd/$i --size 64M; done
cowgate create volumes/acme/v --size 1M

# Several images at one moment: a client writes a number into a, then into b, through one server. What
# is in b's snapshot is never newer than what is in a's, nor older by more than one.
start_serve "$tmp/sock"
nbd_python -c '
import nbd, sys
def connect(name):
    h = nbd.NBD()
    h.set_export_name(name)
    h.connect_unix(sys.argv[1])
    return h
a, b = connect("rbd/rbd/a"), connect("rbd/rbd/b")
n = 0
while True:
    n += 1
    for h in a, b:
        h.pwrite(n.to_bytes(8, "big") * 64, 1048576)
    if n == 10:
        open("writing", "w")' "$tmp/sock" 2>writer.log &
writer=$!
cleanup_fn stop $writer
wait_for 30 test -e writing
number() {
    rm -f out.raw
    rbd export --no-progress "$1" out.raw
    echo $((16#$(dd if=out.raw bs=8 skip=131072 count=1 status=none | od -An -tx1 | tr -d ' \n')))
}
last=0
for s in s1 s2 s3 s4 s5; do
    cowgate snapshot rbd/rbd/b@$s rbd/rbd/a@$s
    a=$(number a@$s) b=$(number b@$s)
    [ "$a" -gt $last ] || fail "the writer stands still at $a"
    [ "$b" -le "$a" ] && [ "$a" -le $((b + 1)) ] || fail "$s: a is at $a, b at $b"
    last=$a
done
cowgate snapshot rbd/rbd/a@one # of one that another client writes
kill -0 $writer || fail "the writer failed: $(cat writer.log)"

# All or none.
must_fail 1 'rbd/rbd/b@s1 exists already' cowgate snapshot rbd/rbd/a@all rbd/rbd/b@s1
must_fail 1 'there is no rbd/rbd/none' cowgate snapshot rbd/rbd/a@all rbd/rbd/none@all
must_fail 1 'of one image there is one snapshot' cowgate snapshot rbd/rbd/a@all rbd/rbd/a@too
must_fail 2 'different spaces' cowgate snapshot rbd/rbd/a@all volumes/acme/v@all
must_fail 2 'names no snapshot' cowgate snapshot rbd/rbd/a@all rbd/rbd/b
rbd create --size 1M --image-feature layering old
must_fail 1 'rbd/rbd/old@all: the image hasn.t the feature exclusive-lock' cowgate snapshot rbd/rbd/a@all rbd/rbd/old@all
cowgate snapshot rbd/rbd/old@alone
[ "$(snaps old)" = alone ] && [ "$(snaps a)" = 's1 s2 s3 s4 s5 one' ] || fail "$(snaps a)"

# With commands around.
echo 'echo "$1 ${COWGATE_TAKEN-} ${*:2} $(rbd snap ls --format json a | jq length)" >>hooks' >hook
cowgate snapshot --freeze 'bash hook freeze "$@"' --thaw 'bash hook thaw "$@"' rbd/rbd/a@hooks rbd/rbd/b@hooks
printf '%s\n' 'freeze  rbd/rbd/a@hooks rbd/rbd/b@hooks 6' 'thaw yes rbd/rbd/a@hooks rbd/rbd/b@hooks 7' | diff - hooks
for i in a b; do cowgate delete rbd/rbd/$i@hooks; done

# While somebody writes.
must_fail 1 'roll back to rbd/rbd/a@s1: .* open elsewhere for writing' cowgate rollback rbd/rbd/a@s1
must_fail 1 'rbd/rbd/a is open elsewhere for writing, by the client at 127.0.0.1:' cowgate delete --snapshots rbd/rbd/a
[ "$(snaps a)" = 's1 s2 s3 s4 s5 one' ] || fail "snapshots of what stays are gone: $(snaps a)"
cowgate resize rbd/rbd/a 96M
[ "$(size a)" = 100663296 ] || fail "$(size a)"
kill $writer
wait $writer || true
stop "$serve_pid"
hold b
must_fail 1 'rbd/rbd/b@all: a client that writes the image' cowgate snapshot rbd/rbd/a@all rbd/rbd/b@all
cowgate snapshot rbd/rbd/b@held
let_go
[ "$(snaps a)" = 's1 s2 s3 s4 s5 one' ] && [ "$(snaps b)" = 's1 s2 s3 s4 s5 held' ] || fail "$(snaps a) $(snaps b)"

# Rollback: content and size are the snapshot's again, the others stay.
rbd export --no-progress a@s2 want.raw
cowgate rollback rbd/rbd/a@s2
rm -f out.raw
rbd export --no-progress a out.raw
same want.raw out.raw
[ "$(snaps a)" = 's1 s2 s3 s4 s5 one' ] || fail "$(snaps a)"
must_fail 1 'there is no rbd/rbd/a@none' cowgate rollback rbd/rbd/a@none
must_fail 2 'names no snapshot' cowgate rollback rbd/rbd/a

# Resize grows.
must_fail 1 'can only grow' cowgate resize rbd/rbd/a 1M
must_fail 1 'it is a snapshot' cowgate resize rbd/rbd/a@s1 128M
cowgate resize rbd/rbd/a 128M
[ "$(size a)" = 134217728 ] || fail "$(size a)"

# Rename: within a pool and namespace.
ceph osd pool create other 8
rbd pool init other
rbd namespace create rbd/ns
must_fail 1 'rbd/rbd/b exists already' cowgate rename rbd/rbd/a rbd/rbd/b
must_fail 1 'there is no rbd/rbd/none' cowgate rename rbd/rbd/none rbd/rbd/x
must_fail 1 'different pools or namespaces' cowgate rename rbd/rbd/a rbd/other/a
must_fail 1 'different pools or namespaces' cowgate rename rbd/rbd/a rbd/rbd/ns/a
must_fail 1 'it is a snapshot' cowgate rename rbd/rbd/a@s1 rbd/rbd/a@s9
must_fail 1 'it is a snapshot' cowgate rename rbd/rbd/a rbd/rbd/x@s9
must_fail 2 'different spaces' cowgate rename rbd/rbd/a volumes/acme/a
cowgate rename rbd/rbd/a rbd/rbd/moved
[ "$(snaps moved)" = 's1 s2 s3 s4 s5 one' ] || fail "$(snaps moved)"

# Delete.
must_fail 1 'it is a snapshot' cowgate create rbd/rbd/x@s --size 1M
must_fail 1 'rbd/rbd/b exists already' cowgate create rbd/rbd/b --size 1M
cowgate delete rbd/rbd/moved@one
must_fail 1 'there is no rbd/rbd/moved@one' cowgate delete rbd/rbd/moved@one
must_fail 1 'moved has snapshots: delete them first, or all at once with --snapshots' cowgate delete rbd/rbd/moved
cowgate delete --snapshots rbd/rbd/moved
must_fail 1 'there is no rbd/rbd/moved' cowgate delete rbd/rbd/moved
own=cowgate-0123abcd-0123456789abcdef
for name in $own cowgate-clone-01234567-89ab-cdef-0123-456789abcdef; do
    must_fail 2 'take another name' cowgate snapshot "rbd/rbd/old@$name"
    must_fail 2 'take another name' cowgate snapshot volumes/acme/v@s "volumes/acme/v@$name"
done
rbd snap create --no-progress old@$own
must_fail 1 'has snapshots' cowgate delete rbd/rbd/old
cowgate delete rbd/rbd/old@alone
cowgate delete rbd/rbd/old # those that backups made don't keep it
[ "$(rbd ls)" = b ] || fail "$(rbd ls)"
