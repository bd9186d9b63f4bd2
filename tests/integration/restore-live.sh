# A volume is usable at once and filled from its point meanwhile, by whoever writes it or by the
# command: a guest writes and reads on, whoever is killed; in the end the volume is the point plus
# what was written, and needs neither point nor repository.
. "$abs_srcdir/tests/functions.sh"
requires nbd_python -c 'import nbd'

# A point of 20 GiB with data here and there, and a later one that isn't meant.
cowgate init
truncate -s 20G disk.raw
put() { dd if=/dev/urandom of=disk.raw bs=64K seek=$(($1 * 16)) count=$(($2 * 16)) conv=notrunc status=none; }
put 0 96
put 10240 48
put 20464 16
printf 'something in a block' | dd of=disk.raw bs=1 seek=$((15 << 30 | 777)) conv=notrunc status=none
cowgate --quiet import ./disk.raw volumes/acme/web
point=$(cowgate --quiet backup volumes/acme/web)
cp disk.raw want.raw
start_serve "$tmp/s0"
qemu-io -f raw -c 'write -P 0x77 1M 1M' "$(uri "$tmp/s0" volumes/acme/web)" >/dev/null
stop "$serve_pid"
cowgate --quiet backup volumes/acme/web >/dev/null
live=volumes/acme/live

start_live() { # ARGS ...: in the background, usable when this returns
    cowgate restore --live "$@" "$point" $live 2>live.log &
    live_pid=$!
    cleanup_fn stop $live_pid
    wait_for 20 grep "^$live is usable now; filling it from $point" live.log
}
kill_9() { kill -9 "$1" && ! wait "$1" 2>/dev/null; }
info() { # EXPRESSION, of i
    cowgate --json info ${2-$live} | nbd_python -c 'import json, sys; i = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1"
}
is() { [ "$(info "$1" ${3-})" = "$2" ] || fail "$1 is $(info "$1" ${3-}), not $2"; }
more_than() { [ "$(info 'i["parent"]["filled_bytes"]')" -gt "$1" ]; }
goes_on() { # more is filled than now
    local now
    now=$(info 'i["parent"].get("filled_bytes", 0)')
    wait_for 30 more_than "$now"
}
same_image() { qemu-img compare -f raw -F raw "$1" "$2" >compare.log 2>&1 || fail "$1 and $2: $(cat compare.log)"; }
holds() { find root/repo -path '*/holds/*' -type f | wc -l; }

# guest.py URI: writes, zeroes and reads what has data and what hasn't, until the file stop is there.  What was
# acknowledged is in want.raw too.  When the server dies it connects again and repeats what it was at, as NBD clients do.
cat >guest.py <<'PY'
import nbd, os, random, sys, time
def connect():
    for _ in range(600):
        try:
            h = nbd.NBD()
            h.connect_uri(sys.argv[1])
            return h
        except nbd.Error:
            time.sleep(0.05)
    sys.exit("nobody serves any more")
want = open("want.raw", "r+b", buffering=0)
places = [(0, 64 << 20), (5 << 30, 16 << 20), (10 << 30, 60 << 20), ((20 << 30) - (16 << 20), 16 << 20)]
h, done = connect(), {"write": 0, "zero": 0, "read": 0}
r = random.Random(1)
while not os.path.exists("stop"):
    start, span = r.choice(places)
    n = r.choice([512, 3584, 4096, 65536])
    off = start + r.randrange((span - n) // 512 + 1) * 512
    op = r.choice(["write", "write", "zero", "read", "read", "read"])
    data = r.randbytes(n) if op == "write" else bytes(n)
    while True:
        try:
            got = h.pread(n, off) if op == "read" else None
            if op == "write":
                h.pwrite(data, off)
            elif op == "zero":
                h.zero(n, off)
            break
        except nbd.Error as e:
            if h.aio_is_ready():
                sys.exit(f"{op} of {n} at {off}: {e}")
            h = connect()
    if op == "read":
        if got != os.pread(want.fileno(), n, off):
            sys.exit(f"{n} at {off} are wrong")
    else:
        os.pwrite(want.fileno(), data, off)
    done[op] += 1
    if done["write"] == 1:
        open("writing", "w").close()
    time.sleep(0.002)
h.shutdown()
print(done)
PY

# Refused, and nothing has changed: what is there and isn't this point's, and what isn't a volume.
must_fail 1 "volumes/acme/web exists, and doesn't stand on $point" cowgate restore --live "$point" volumes/acme/web
cowgate clone backups/acme/web/latest volumes/acme/other
must_fail 1 "volumes/acme/other exists, and doesn't stand on $point" cowgate restore --live "$point" volumes/acme/other
is 'i["parent"].get("filled_bytes")' None volumes/acme/other
cowgate delete volumes/acme/other
[ "$(holds)" = 0 ] || fail "something is held"
must_fail 1 'makes a volume or' cowgate restore --live "$point" ./file
must_fail 1 'makes a volume or' cowgate restore --live "$point" $live@s
must_fail 1 'no point' cowgate restore --live volumes/acme/web $live
must_fail 1 'there is no' cowgate restore --live backups/acme/web/20200101T000000Z $live
must_fail 2 'only for --live' cowgate restore --rate 1M "$point" $live
must_fail 2 'no diff' cowgate restore --live --trust-diff "$point" $live
must_fail 1 'there is no volume' cowgate info $live

# The chunks go away in the middle: what was filled is here, for the next server too, and the rest when
# they are back.
cut=volumes/acme/cut
cowgate restore --live --rate 24M "$point" $cut 2>cut.log &
cut_pid=$!
cleanup_fn stop $cut_pid
wait_for 20 grep 'usable now' cut.log
start_serve "$tmp/s1"
/usr/bin/python3 -c '
import nbd, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(b"1" * 4096, 1 << 20)
time.sleep(600)' "$(uri "$tmp/s1" $cut)" & # its server fills
cleanup_fn stop $!
wait_for 20 eval '[ "$(info "i[\"parent\"][\"filled_bytes\"]" $cut)" -gt 30000000 ]'
mv root/repo/acme/chunks root/repo/acme/away
wait $cut_pid && fail "it ended well without the chunks"
grep -q "^$cut stays usable, and needs $point: run the same command again" cut.log || fail "$(cat cut.log)"
stop "$serve_pid"
start_serve "$tmp/s1"
qemu-io -r -f raw -c 'read -v 0 1M' "$(uri "$tmp/s1" $cut)" | grep '^[0-9a-f]*:' >have.txt
qemu-io -r -f raw -c 'read -v 0 1M' disk.raw | grep '^[0-9a-f]*:' >want.txt
same have.txt want.txt
must_fail 1 'read failed' qemu-io -r -f raw -c 'read 20464M 1M' "$(uri "$tmp/s1" $cut)"
mv root/repo/acme/away root/repo/acme/chunks
cowgate --quiet restore --live "$point" $cut
qemu-io -r -f raw -c 'read -P 0x31 1M 4K' -c 'read 20464M 1M' "$(uri "$tmp/s1" $cut)" >/dev/null
stop "$serve_pid"
cowgate delete $cut
[ "$(holds)" = 0 ] || fail "something is held"

# Nobody writes: the command fills, and another one can't.
start_live --rate 6M
is 'i["parent"]["name"]' "$point"
[ "$(holds)" = 1 ] || fail "the point isn't held"
must_fail 1 'being filled by another process' cowgate restore --live "$point" $live

# A guest comes: its server fills from its first write on.
start_serve "$tmp/s"
/usr/bin/python3 guest.py "$(uri "$tmp/s" $live)" >guest.log 2>&1 &
guest_pid=$!
cleanup_fn stop $guest_pid
wait_for 20 test -e writing
wait_for 20 more_than 8000000
is 'i["writer"]' "$serve_pid"
must_fail 1 'being flattened already' cowgate restore --live "$point" $live
cowgate snapshot $live@early
cowgate clone $live@early volumes/acme/clone # stands on the point too, and on what is filled so far
cowgate --quiet export volumes/acme/clone ./clone.raw

# The command is killed: the volume stays as it is.  Again, and it goes on.
kill_9 $live_pid || true
is 'i["parent"]["name"]' "$point"
[ "$(holds)" = 2 ] || fail "the points aren't held"
start_live --rate 6M
goes_on

# The server is killed: the command fills, until the next server writes.
kill_9 "$serve_pid" || true
goes_on
start_serve "$tmp/s"
goes_on
kill $live_pid
wait $live_pid && fail "it was interrupted, and says that all is well"
grep -q "^$live stays usable, and needs $point: run the same command again" live.log || fail "$(cat live.log)"
is 'i["parent"]["name"]' "$point"

# The last run ends it.  From here on there is no repository.
cowgate --json --quiet restore --live "$point" $live >live.json
grep -q '"resumed": true' live.json && grep -q '"held": false' live.json || fail "$(cat live.json)"
is 'i["parent"]' None
is 'i.get("held")' None
[ "$(holds)" = 1 ] || fail "the point is still held"
must_fail 1 "exists, and doesn't stand on" cowgate restore --live "$point" $live
kill -0 $guest_pid || fail "the guest: $(cat guest.log)"
mv root/repo root/away
sleep 0.5 # of the guest's
touch stop
wait $guest_pid || fail "the guest: $(cat guest.log)"
nbdcopy "$(uri "$tmp/s" $live)" have.raw
same_image have.raw want.raw
stop "$serve_pid"
rm have.raw
cowgate --quiet export $live ./have.raw
same_image have.raw want.raw

# A clone that was made meanwhile is what it was, and lets go by itself.
mv root/away root/repo
cowgate --quiet flatten volumes/acme/clone
[ "$(holds)" = 0 ] || fail "the clone's point is still held"
mv root/repo root/away
rm have.raw
cowgate --quiet export volumes/acme/clone ./have.raw
same_image have.raw clone.raw
cowgate --quiet export $live@early ./early.raw
same_image early.raw clone.raw
