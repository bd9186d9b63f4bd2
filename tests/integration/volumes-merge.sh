#!/bin/bash
# Deleting snapshots gives their space back: under a writer that verifies, with the deleting command
# and the server that merges killed (-9) again and again, and to the bytes that backups see.
. "$abs_srcdir/tests/functions.sh"
requires fio --version
requires nbd_python -c 'import nbd'

pool=$COWGATE_ROOT/pool/acme
kib() { du -sk "$pool/$1" | cut -f1; }
layers() { jq '.layers | length' "$pool/$1/volume.json"; }

# At rest: three whole copies, then one.
cowgate init
cowgate create volumes/acme/web --size 16M
start_serve "$tmp/s"
web=$(uri "$tmp/s" volumes/acme/web)
start_writer "$web"
write 1
cowgate snapshot volumes/acme/web@a
write 2
cowgate snapshot volumes/acme/web@b
write 3
[ "$(kib web)" -gt 48000 ] || fail "less than three copies"
cowgate delete volumes/acme/web@a
[ "$(kib web)" -lt 34000 ] || fail "@a took its space along: $(kib web) KiB"
cowgate --json delete volumes/acme/web@b
[ "$(kib web)" -lt 18000 ] || fail "@b took its space along: $(kib web) KiB"
write 4
stop_writer
nbdcopy "$web" got
head -c 16M /dev/zero | tr '\0' '\4' | cmp - got

# Under fio, which verifies what it wrote; a clone keeps what it shares until it goes.
cowgate create volumes/acme/busy --size 32M
busy=$(uri "$tmp/s" volumes/acme/busy)
fio --name=w --ioengine=nbd --uri="$busy" --rw=randwrite --bsrange=512-64k --size=32M --iodepth=8 \
    --time_based --runtime=12 --verify=crc32c --verify_backlog=64 --verify_fatal=1 --do_verify=1 \
    --rate=16m --output=fio.log &
fio_pid=$!
cleanup_fn stop "$fio_pid"
for i in $(seq 12); do
    cowgate snapshot "volumes/acme/busy@s$i"
    [ $i != 4 ] || cowgate clone volumes/acme/busy@s4 volumes/acme/child
    [ $i -le 2 ] || cowgate delete "volumes/acme/busy@s$((i - 2))"
    [ $i != 9 ] || cowgate delete volumes/acme/child
done
wait "$fio_pid" || fail "fio: $(cat fio.log)"
cowgate delete volumes/acme/busy@s11
cowgate delete volumes/acme/busy@s12
[ "$(layers busy)" -le 2 ] || fail "$(layers busy) layers are left"
[ "$(kib busy)" -lt 34000 ] || fail "a volume of 32 MiB takes $(kib busy) KiB"

# Killed while they merge: nothing that was acknowledged is lost, and the next delete goes on.
cowgate create volumes/acme/kill --size 8M
cat >client.py <<'PY'
import nbd, os, pickle, random, sys
mode, socket, name, state = sys.argv[1:5]
h = nbd.NBD()
h.set_export_name(name)
h.connect_unix(socket)
want = pickle.load(open(state, "rb")) if os.path.exists(state) else {}
if mode == "check":
    for sector, value in want.items():
        got = h.pread(512, sector * 512)
        assert got == bytes([value]) * 512, (sector, value, got[:4])
else:
    unsure = None
    open("connected", "w")
    try:
        for i in range(int(sys.argv[5])):
            sector, value = random.randrange(16384), random.randrange(1, 256)
            unsure = sector
            h.pwrite(bytes([value]) * 512, sector * 512)
            want[sector] = value
            unsure = None
    except nbd.Error:
        want.pop(unsure, None)
    pickle.dump(want, open(state, "wb"))
PY
client() { nbd_python client.py "$1" "$tmp/$2" volumes/acme/kill state "${3-}"; }
stop "$serve_pid"
for i in 1 2 3 4 5 6; do
    start_serve "$tmp/k"
    cowgate snapshot "volumes/acme/kill@k$i"
    client write k 1000
    cowgate snapshot "volumes/acme/kill@l$i"
    rm -f connected
    client write k 1000000 &
    client_pid=$!
    cleanup_fn stop "$client_pid"
    wait_for 30 test -e connected
    cowgate delete "volumes/acme/kill@k$i" &
    delete_pid=$!
    if [ $((i % 2)) = 1 ]; then # the server, which merges
        nbd_python -c 'import time, random; time.sleep(random.random() / 10)'
        kill -9 "$serve_pid"
    else
        nbd_python -c 'import time, random; time.sleep(random.random() / 10)'
        kill -9 "$delete_pid" 2>/dev/null || true
        sleep 0.2 # the writer writes on
        kill -9 "$serve_pid"
    fi
    { wait "$serve_pid" || true; wait "$delete_pid" || true; } 2>/dev/null
    wait "$client_pid" || fail "the client failed"
    # At rest, killed too.
    cowgate delete "volumes/acme/kill@l$i" &
    delete_pid=$!
    nbd_python -c 'import time, random; time.sleep(random.random() / 20)'
    kill -9 "$delete_pid" 2>/dev/null || true
    { wait "$delete_pid" || true; } 2>/dev/null
    start_serve "$tmp/k"
    client check k
    stop "$serve_pid"
done
cowgate snapshot volumes/acme/kill@end
for s in $(cowgate --json info volumes/acme/kill | jq -r '.snapshots[].name'); do
    cowgate delete "volumes/acme/kill@$s"
done
[ "$(layers kill)" = 1 ] || fail "$(layers kill) layers are left"
start_serve "$tmp/k"
client check k

# An incremental backup after merges, its own old snapshots' among them, is what a full one is.
cowgate create volumes/acme/inc --size 64M
inc=$(uri "$tmp/k" volumes/acme/inc)
io() { qemu-io -f raw "$@" "$inc" >io.log 2>&1 || fail "$(cat io.log)"; }
io -c 'write -P 8 0 48M'
cowgate backup volumes/acme/inc >/dev/null 2>&1
for i in 1 2 3 4; do
    io -c "write -P $i $((4 * i))M 1M" -c 'write -P 9 22M 512' -c "discard $((30 + i))M 64k"
    cowgate snapshot "volumes/acme/inc@m$i"
    io -c "write -P 1$i $((2 * i))M 64k"
    point=$(cowgate backup volumes/acme/inc 2>backup.log)
    grep -q '^incremental: .* of 64.0 MiB' backup.log || fail "not incremental: $(cat backup.log)"
    ! grep -q '^incremental: 64.0 ' backup.log || fail "it read everything: $(cat backup.log)"
    cowgate delete "volumes/acme/inc@m$i"
done
[ "$(layers inc)" -le 3 ] || fail "$(layers inc) layers: those of old backups are not merged"
full=$(cowgate backup --full volumes/acme/inc backups/acme/full 2>/dev/null)
cowgate export "$point" ./incremental.raw
cowgate export "$full" ./full.raw
cmp incremental.raw full.raw
nbdcopy "$inc" now.raw
cmp now.raw full.raw
