#!/bin/bash
# Beside a server that writes, all clients of another one that have the volume open at the same time
# see one moment: a copy over several connections is of one generation, or of one that was becoming
# the next.
. "$abs_srcdir/tests/functions.sh"

cowgate init
cowgate create volumes/acme/web --size 16M
start_serve "$tmp/w"
web=$(uri "$tmp/w" volumes/acme/web)
start_serve "$tmp/ro" --read-only
reader=$(uri "$tmp/ro" volumes/acme/web)
start_serve "$tmp/rw"
other=$(uri "$tmp/rw" volumes/acme/web)

# Two connections, opened before and after a write.
start_writer "$web"
write 1
cat >two.py <<'PY'
import sys, nbd
def connect(uri):
    h = nbd.NBD()
    h.connect_uri(uri)
    assert h.can_multi_conn()
    return h
def byte(h, off):
    return h.pread(512, off)[0]
web, reader, other = sys.argv[1:]
r1, o1 = connect(reader), connect(other)
writer = connect(web)
for off in range(0, writer.get_size(), 1 << 20):
    writer.pwrite(b"\x02" * (1 << 20), off)
r2, o2 = connect(reader), connect(other)
for h in r1, r2, o1, o2:
    assert byte(h, 0) == byte(h, 8 << 20) == 1, byte(h, 0)
for h in writer, r1, o1, r2, o2:
    h.shutdown()
PY
nbd_python two.py "$web" "$reader" "$other"

# A generation after the other, in each from the begin of the volume to its end, until the file stop
# is there.  nbdcopy gives a connection 128 MiB at a time.
cat >generations.py <<'PY'
import os, sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
n = 0
while not os.path.exists("stop"):
    n = n % 250 + 1
    for off in range(0, h.get_size(), 1 << 20):
        h.pwrite(bytes([n]) * 4096, off)
h.shutdown()
PY
cat >check.py <<'PY'
import sys
seen = []
with open(sys.argv[1], "rb") as f:
    for off in range(0, 512 << 20, 1 << 20):
        f.seek(off)
        block = f.read(4096)
        assert block == block[:1] * 4096, off
        if not seen or seen[-1] != block[0]:
            seen.append(block[0])
assert len(seen) == 1 or len(seen) == 2 and seen[0] == seen[1] % 250 + 1, seen
PY
cowgate create volumes/acme/disk --size 512M
/usr/bin/python3 generations.py "$(uri "$tmp/w" volumes/acme/disk)" &
generations_pid=$!
cleanup_fn stop "$generations_pid"
for i in $(seq 5); do
    for server in ro rw; do
        rm -f copy.raw
        nbdcopy --connections=4 --threads=4 "$(uri "$tmp/$server" volumes/acme/disk)" copy.raw
        nbd_python check.py copy.raw
    done
done
touch stop
wait "$generations_pid" || fail "the writer saw an error"

# Who may write sees what is there, or is refused while somebody here reads an earlier moment.
write 3
cat >earlier.py <<'PY'
import os, sys, time, nbd
h = nbd.NBD()
h.set_export_name("volumes/acme/web")
h.connect_unix(sys.argv[1])
open("connected", "w")
while not os.path.exists("leave"):
    time.sleep(0.01)
assert h.pread(512, 0)[0] == 3
h.shutdown()
PY
/usr/bin/python3 earlier.py "$tmp/rw" &
earlier_pid=$!
cleanup_fn stop "$earlier_pid"
wait_for 30 test -e connected
write 4
stop_writer
must_fail 1 'nbd' nbdinfo "$other"
grep -q "is still open here as it was before" "$tmp/rw.log" || fail "the log doesn't say why"
touch leave
wait "$earlier_pid" || fail "the earlier reader saw an error"
qemu-io -f raw -c 'read -P 4 0 16M' -c 'write -P 5 0 64k' "$other" >io.log 2>&1 || fail "$(cat io.log)"
! grep -q failed io.log || fail "$(cat io.log)"
