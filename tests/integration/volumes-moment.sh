#!/bin/bash
# Snapshots of several volumes at one moment while a client writes to one after the other, each in
# another process: what is in the snapshots is what was there at a moment, whoever is killed.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

cowgate init
for v in a b c; do cowgate create volumes/acme/$v --size 1M; done
start_serve "$tmp/a" volumes/acme/a
a_pid=$serve_pid
start_serve "$tmp/b" volumes/acme/b
start_mount

# n to a, then to b, then to c (by the mount), each when the one before is acknowledged.  Where a
# server is gone it waits for the next, and writes what wasn't acknowledged again.
cat >numbers.py <<'PY'
import os, sys, time, nbd
def connect(path):
    while not os.path.exists("stop"):
        try:
            h = nbd.NBD()
            h.connect_unix(path)
            return h
        except nbd.Error:
            time.sleep(0.01)
    sys.exit(0)
handles = {path: connect(path) for path in sys.argv[1:3]}
fd = os.open(sys.argv[3], os.O_WRONLY)
n = 0
while not os.path.exists("stop"):
    n += 1
    block = n.to_bytes(8, "little") * 64
    for path in sys.argv[1:3]:
        while True:
            try:
                handles[path].pwrite(block, n % 2 * 4096)
                break
            except nbd.Error as e:
                if not handles[path].aio_is_dead() and not handles[path].aio_is_closed():
                    raise
                handles[path] = connect(path)
    os.pwrite(fd, block, n % 2 * 4096)
    if n == 1:
        open("begun", "w")
PY
nbd_python numbers.py "$tmp/a" "$tmp/b" "$tmp/mnt/volumes/acme/c" &
numbers_pid=$!
cleanup_fn stop "$numbers_pid"
wait_for 60 test -e begun

# number VOLUME@SNAPSHOT: the highest in it, from two places that are written in turn.
number() {
    rm -f look.raw
    cowgate --quiet export "volumes/acme/$1" ./look.raw
    { od -An -t d8 -N 8 look.raw; od -An -t d8 -j 4096 -N 8 look.raw; } | sort -n | tail -n 1 | tr -d ' '
}

# check SNAPSHOT: one moment.
check() {
    local a b c
    a=$(number "a@$1") b=$(number "b@$1") c=$(number "c@$1")
    ((a >= b && b >= c && c >= a - 1 && a > 0)) || fail "$1: a has $a, b has $b, c has $c"
}
names() { echo volumes/acme/{c,a,b}@$1; }

for round in $(seq 20); do
    cowgate snapshot $(names "s$round")
done
for round in $(seq 20); do check "s$round"; done
cowgate --json list volumes/acme >list.json
[ "$(jq '[.[] | select(.description == "snapshot")] | length' list.json)" = 60 ] || fail "$(cat list.json)"

# whole SNAPSHOT: it's of all or, after the next command, of none.
whole() {
    local n
    cowgate snapshot volumes/acme/a@next
    cowgate delete volumes/acme/a@next
    cowgate --json list volumes/acme >list.json
    n=$(jq --arg s "@$1" '[.[] | select(.name | endswith($s))] | length' list.json)
    case $n in
    0) ;;
    3) check "$1" ;;
    *) fail "$1: $n of 3 snapshots" ;;
    esac
}

# kill -9 of the command: the writers go on.
for round in $(seq 20); do
    cowgate snapshot $(names "k$round") 2>/dev/null &
    pid=$!
    sleep 0.0$((RANDOM % 4))$((RANDOM % 10))
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || true
    whole "k$round"
done

# kill -9 of a writer: the command tries again without it.
for round in $(seq 8); do
    cowgate snapshot $(names "w$round") 2>>snapshot.log &
    pid=$!
    sleep 0.0$((RANDOM % 4))$((RANDOM % 10))
    kill -9 $a_pid
    wait $a_pid 2>/dev/null || true
    start_serve "$tmp/a" volumes/acme/a
    a_pid=$serve_pid
    wait $pid || fail "snapshot: $(cat snapshot.log)"
    whole "w$round"
    check "w$round"
done

# One that can't be: none of the others.
cowgate snapshot volumes/acme/b@there
must_fail 1 'volumes/acme/b has a snapshot there already' cowgate snapshot $(names there)
must_fail 1 'one snapshot at a moment' cowgate snapshot volumes/acme/a@x volumes/acme/b@x volumes/acme/a@y
must_fail 1 'no volume volumes/acme/none' cowgate snapshot volumes/acme/a@x volumes/acme/none@x
cowgate --json list volumes/acme >list.json
[ "$(jq '[.[] | select(.name | endswith("@x") or endswith("@there"))] | length' list.json)" = 1 ] ||
    fail "$(cat list.json)"
[ -z "$(ls "$COWGATE_ROOT/pool/.moment-"* 2>/dev/null)" ] || fail "a record was left"

touch stop
wait "$numbers_pid" || fail "the writer saw an error"
stop_mount
