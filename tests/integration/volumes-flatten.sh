#!/bin/bash
# Flatten of a clone that shares layers with other volumes, while a client of another process writes
# it; the flattening command and the server killed (-9) in the middle; the 17th clone of a chain.
. "$abs_srcdir/tests/functions.sh"
requires fio --version
requires nbd_python -c 'import nbd'

pool=$COWGATE_ROOT/pool/acme
info() { cowgate --json info "volumes/acme/$1" | jq -r "$2"; }
begun() { jq -e .filling "$pool/$1/volume.json"; }
shares() { find "$pool/$1" -type f -links +1 | grep -q .; }
kib() { du -sk "$pool/$1" | cut -f1; }
# Nothing is shared, and nothing is there that volume.json doesn't name.
expect_flat() {
    ! shares "$1" || fail "$1 shares $(find "$pool/$1" -type f -links +1)"
    [ "$(info "$1" .shared)" = 0 ] && [ "$(info "$1" .depth)" = 0 ] || fail "$(cowgate info "volumes/acme/$1")"
    (cd "$pool/$1" && printf '%s\n' ./*.data) | sed 's|^./||; s|.data$||' | sort >have
    jq -r '.layers[], .snapshots[].layers[]' "$pool/$1/volume.json" | sort -u | cmp - have || fail "stray layers in $1"
}

# Two generations, of which each has written something.
cowgate init
head -c 24M /dev/urandom >golden.raw
cowgate import ./golden.raw volumes/acme/golden
cowgate clone volumes/acme/golden volumes/acme/mid
cp golden.raw want.raw
head -c 1M /dev/urandom >some.raw
dd if=some.raw of=want.raw bs=1M seek=2 conv=notrunc status=none
start_serve "$tmp/s"
io() { qemu-io -f raw "${@:2}" "$(uri "$tmp/s" "volumes/acme/$1")" >io.log 2>&1 || fail "$(cat io.log)"; }
io mid -c "write -s some.raw 2M 1M"
for k in busy killed quiet; do
    cowgate clone volumes/acme/mid volumes/acme/$k
    [ "$(info $k .depth)" = 2 ] && [ "$(info $k .shared)" -gt 24000000 ] || fail "$(cowgate info volumes/acme/$k)"
done
[ "$(kib busy)" -gt 24000 ] || fail "no layers"

# fio verifies what it writes to the second half; a snapshot is taken meanwhile.
fio --name=w --ioengine=nbd --uri="$(uri "$tmp/s" volumes/acme/busy)" --rw=randwrite --bsrange=512-64k \
    --offset=12M --size=12M --iodepth=8 --time_based --runtime=6 --verify=crc32c --verify_backlog=64 \
    --verify_fatal=1 --do_verify=1 --rate=8m --output=fio.log &
fio_pid=$!
cleanup_fn stop "$fio_pid"
wait_for 30 test -s "$pool/busy/lock"
cowgate flatten --rate 8M volumes/acme/busy 2>flatten.log &
flatten_pid=$!
cleanup_fn stop "$flatten_pid"
wait_for 30 begun busy
cowgate snapshot volumes/acme/busy@meanwhile
cowgate --quiet export volumes/acme/busy@meanwhile ./meanwhile.raw
wait "$flatten_pid" || fail "$(cat flatten.log)"
wait "$fio_pid" || fail "fio: $(cat fio.log)"
expect_flat busy
stop "$serve_pid"
cowgate --quiet export volumes/acme/busy@meanwhile ./again.raw
same meanwhile.raw again.raw
cowgate --quiet export volumes/acme/busy ./busy.raw
cmp -n $((12 << 20)) busy.raw want.raw || fail "what wasn't written is wrong"

cat >client.py <<'PY'
import nbd, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
i = int(sys.argv[2])
h.pwrite(bytes([i]) * 512, i * 1024)
open("written", "w")
time.sleep(1000)
PY

# Killed, in the command and in the server that writes, it is gone on with.
start_serve "$tmp/k"
for i in 1 2 3; do
    cowgate flatten --rate 4M volumes/acme/killed 2>flatten.log &
    flatten_pid=$!
    wait_for 30 begun killed
    sleep 0.$((i * 3)) # somewhere in the middle
    kill -9 $flatten_pid
    { wait $flatten_pid || true; } 2>/dev/null
    nbdcopy "$(uri "$tmp/k" volumes/acme/killed)" - | cmp - want.raw
done
for i in 1 2 3; do
    rm -f written
    /usr/bin/python3 client.py "$(uri "$tmp/k" volumes/acme/killed)" $i &
    io_pid=$!
    cleanup_fn stop $io_pid
    head -c 512 /dev/zero | tr '\0' "\\$i" | dd of=want.raw bs=512 seek=$((i * 2)) conv=notrunc status=none
    wait_for 30 test -e written
    cowgate flatten --rate 4M volumes/acme/killed 2>flatten.log &
    flatten_pid=$!
    sleep 0.$((i * 3))
    kill -9 "$serve_pid"
    { wait "$serve_pid" || true; } 2>/dev/null
    stop $io_pid
    kill -9 $flatten_pid 2>/dev/null || true
    { wait $flatten_pid || true; } 2>/dev/null
    start_serve "$tmp/k"
    nbdcopy "$(uri "$tmp/k" volumes/acme/killed)" - | cmp - want.raw
done
cowgate --quiet flatten volumes/acme/killed
expect_flat killed
stop "$serve_pid"

# Interrupted, it keeps what it has; a backup goes on from the one before.
cowgate backup volumes/acme/quiet >/dev/null 2>&1
cowgate flatten --rate 1M volumes/acme/quiet 2>flatten.log &
flatten_pid=$!
wait_for 30 begun quiet
kill -TERM $flatten_pid
r=0
wait $flatten_pid || r=$?
[ $r = 1 ] && grep -q 'flatten volumes/acme/quiet: interrupted' flatten.log || fail "$r: $(cat flatten.log)"
shares quiet || fail "interrupted, it's flat"
cowgate --quiet flatten volumes/acme/quiet
expect_flat quiet
start_serve "$tmp/q"
qemu-io -f raw -c 'write -q -P 7 5M 64k' "$(uri "$tmp/q" volumes/acme/quiet)"
stop "$serve_pid"
point=$(cowgate backup volumes/acme/quiet 2>backup.log)
grep -q '^incremental: 4.00 MiB of 24.0 MiB' backup.log || fail "$(cat backup.log)"
cowgate --quiet export "$point" ./point.raw
cowgate --quiet export volumes/acme/quiet ./quiet.raw
same point.raw quiet.raw

# What they were cloned from goes.
cowgate delete volumes/acme/golden
cowgate delete volumes/acme/mid
for k in busy killed; do cowgate --quiet export --force volumes/acme/$k ./$k.raw2; done
same busy.raw busy.raw2
same want.raw killed.raw2
[ "$(kib killed)" -lt 26000 ] || fail "it takes $(kib killed) KiB"

# Snapshots don't count, clones do.
cowgate create volumes/acme/c0 --size 1M
start_serve "$tmp/c"
write_c() { qemu-io -f raw -c "write -q -P $1 $((($1 - 1) * 16))k 16k" "$(uri "$tmp/c" "volumes/acme/c$2")"; }
for i in {1..18}; do
    write_c $i $((i - 1))
    cowgate snapshot volumes/acme/c$((i - 1))@a
    cowgate snapshot volumes/acme/c$((i - 1))@b
    cowgate clone volumes/acme/c$((i - 1))@b volumes/acme/c$i 2>c$i.log
    [ "$(info c$i .depth)" = $((i < 17 ? i : i - 17)) ] || fail "c$i: depth $(info c$i .depth)"
done
grep -q '^flattened: volumes/acme/c17 would stand on more than 16' c17.log || fail "it doesn't say so: $(cat c17.log)"
[ ! -s c16.log ] && [ ! -s c18.log ] || fail "$(cat c16.log c18.log)"
for i in {1..18}; do head -c 16k /dev/zero | tr '\0' "\\$(printf %o $i)"; done >c18.want
stop "$serve_pid"
for i in {0..16}; do cowgate delete --snapshots volumes/acme/c$i; done
cowgate --quiet export volumes/acme/c18 ./c18.raw
cmp -n $((18 * 16384)) c18.raw c18.want || fail "c18 is wrong"
cowgate --quiet export volumes/acme/c17 ./c17.raw
cmp -n $((17 * 16384)) c17.raw c18.want || fail "c17 is wrong"
