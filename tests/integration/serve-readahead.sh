#!/bin/bash
# A client with one request in flight, over images that wait for another machine: what the other
# server logs shows that it is asked ahead, in large pieces, several at a time, and for no holes.
. "$abs_srcdir/tests/functions.sh"

truncate -s 64M disk
for at in 0 30; do
    dd if=/dev/urandom of=disk bs=1M seek=$at count=16 conv=notrunc status=none
done

# serve_disk "FILTERS" PARAMETERS: the other machine.
serve_disk() {
    local filters=$1
    shift
    nbdkit --foreground --unix "$tmp/other.sock" --filter=log $filters file disk \
        logfile="$tmp/requests" "$@" 2>nbdkit.log &
    other=$!
    cleanup_fn stop $other
    wait_for 30 nbd_answers "$tmp/other.sock"
}
# What the log says about reads: how many, how many bytes, how many at the same time.
requests() {
    nbd_python - "$tmp/requests" <<'PY'
import re, sys
count = size = now = most = 0
for line in open(sys.argv[1]):
    if " ...Read " in line:
        now -= 1
    elif " Read " in line:
        count += 1
        size += int(re.search("count=(0x[0-9a-f]+)", line)[1], 16)
        now += 1
        most = max(most, now)
print(f"count={count} bytes={size} most={most}")
PY
}
# read_all NAME: in pieces of 64 KiB, one after the other; sets what requests says.
read_all() {
    : >"$tmp/requests"
    nbdcopy --connections=1 --requests=1 --request-size=65536 "$(uri "$tmp/nbd.sock" "$1")" copy.raw
    same disk copy.raw
    eval "$(requests)"
}

cowgate init
serve_disk --filter=delay rdelay=2ms
cowgate clone "nbd+unix:///?socket=$tmp/other.sock" volumes/acme/clone
cowgate clone volumes/acme/clone volumes/acme/other
start_serve "$tmp/nbd.sock"
for name in volumes/acme/clone volumes/acme/other; do
    read_all $name
    # 512 pieces of 64 KiB, as 32 of a mebibyte and what it takes to begin.
    [ $count -lt 100 ] || fail "$name: $count requests"
    [ $most -gt 1 ] || fail "$name: never two requests at a time"
    [ $bytes = $((32 << 20)) ] || fail "$name: $bytes bytes were read of 32 MiB"
done

# What is written locally is seen, and the rest is still read ahead.
dd if=/dev/urandom of=disk.new bs=64K count=8 status=none
cp --sparse=always disk disk.old
nbd_python - "$(uri "$tmp/nbd.sock" volumes/acme/clone)" <<'PY'
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for i, at in enumerate(range(0, 8 << 20, 1 << 20)):
    h.pwrite(open("disk.new", "rb").read()[i << 16:(i + 1) << 16], at)
PY
for i in 0 1 2 3 4 5 6 7; do
    dd if=disk.new of=disk.old bs=64K skip=$i seek=$((i * 16)) count=1 conv=notrunc status=none
done
: >"$tmp/requests"
nbdcopy --connections=1 --requests=1 --request-size=65536 "$(uri "$tmp/nbd.sock" volumes/acme/clone)" copy.raw
same disk.old copy.raw
eval "$(requests)"
[ $count -lt 150 ] || fail "$count requests beside what is local"

# Random reads fetch what they ask for.
: >"$tmp/requests"
nbd_python - "$(uri "$tmp/nbd.sock" volumes/acme/other)" <<'PY'
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
disk = open("disk", "rb").read()
at = 1
for i in range(200):
    at = at * 48271 % 0x7fffffff
    off = at % (len(disk) // 4096) * 4096
    assert h.pread(4096, off) == disk[off:off + 4096]
PY
eval "$(requests)"
[ $bytes -le $((200 * 4096)) ] || fail "random reads of 800 KiB read $bytes bytes"
stop "$serve_pid"
stop $other
rm other.sock

# Where zeros are looked for as well, nothing is fetched twice by a client that asks about ten objects
# of 4 MiB and then reads them, as librbd does.
serve_disk --filter=noextents
start_serve "$tmp/nbd.sock" --read-only --detect-zeros
: >"$tmp/requests"
nbd_python - "$(uri "$tmp/nbd.sock" volumes/acme/other)" <<'PY'
import sys, nbd
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
disk = open("disk", "rb").read()
size, zeros = 4 << 20, 0
def told(context, off, entries, error):
    global at, zeros
    for length, flags in zip(entries[::2], entries[1::2]):
        zeros += length if flags & nbd.STATE_ZERO else 0
        at += length
for base in range(0, len(disk), 10 * size):
    end = min(base + 10 * size, len(disk))
    at = base
    while at < end:
        h.block_status(min(size - at % size, end - at), at, told)
    for off in range(base, end, 1 << 20):
        assert h.pread(1 << 20, off) == disk[off:off + (1 << 20)]
assert zeros == 32 << 20, zeros
PY
eval "$(requests)"
[ $bytes -lt $((68 << 20)) ] || fail "$bytes bytes were fetched to look for zeros and to read"
stop "$serve_pid"
stop $other
rm other.sock

# A server that fails at one place, and tells of no holes: who reads that place gets the error.
serve_disk "--filter=noextents --filter=error" \
    error-pread=EIO error-pread-rate=100% error-file="$tmp/fail"
start_serve "$tmp/nbd.sock" --read-only
nbd_python - "$(uri "$tmp/nbd.sock" volumes/acme/other)" <<'PY'
import os, sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
disk = open("disk", "rb").read()
def read(off, n):
    assert h.pread(n, off) == disk[off:off + n], off
for off in range(0, 4 << 20, 1 << 16):
    read(off, 1 << 16)
open("fail", "w").close()
try: # beyond all that can have been read ahead
    for off in range(4 << 20, 32 << 20, 1 << 16):
        read(off, 1 << 16)
    sys.exit("no error came through")
except nbd.Error as e:
    assert e.errno == "EIO", e.errno
os.unlink("fail")
for off in range(off, 64 << 20, 1 << 16):
    read(off, 1 << 16)
PY
