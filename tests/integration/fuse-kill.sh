# kill -9 of the daemon under a writer: all that was acknowledged is there after the next mount, which
# takes the dead one's place.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

cowgate init
cowgate create volumes/acme/web --size 256M

# Writes blocks that tell their number and round, notes each after write(2) has returned, until the
# file fails.  MODE: direct, dsync, buffered, fsync.
cat >writer.py <<'PY'
import mmap, os, random, sys
path, log, mode, seed = sys.argv[1:]
flags = {"direct": os.O_DIRECT, "dsync": os.O_DSYNC}.get(mode, 0)
fd = os.open(path, os.O_WRONLY | flags)
log = open(log, "a", buffering=1)
rng = random.Random(seed)
block = mmap.mmap(-1, 4096)
round = 0
try:
    while True:
        n = rng.randrange(65536)
        round += 1
        block[:] = b"%15d\n" % n * 128 + (b"%s%14d\n" % (seed[:1].encode(), round)) * 128
        log.write("try %d %d\n" % (n, round))
        os.pwrite(fd, block, n * 4096)
        if mode == "fsync" and round % 50 == 0:
            os.fsync(fd)
        log.write("ok %d %d\n" % (n, round))
except OSError:
    pass
PY
# Each block is what was last acknowledged, or a later try whose answer never came.
cat >check.py <<'PY'
import collections, sys
path, log, seed = sys.argv[1:]
acked, tried = {}, collections.defaultdict(set)
for line in open(log):
    what, n, round = line.split() if line.endswith("\n") and line.count(" ") == 2 else ("", 0, 0)
    if what == "try":
        tried[int(n)].add(int(round))
    elif what == "ok":
        acked[int(n)] = int(round)
assert len(acked) > 100, "too few writes: %d" % len(acked)
with open(path, "rb") as f:
    for n in tried:
        f.seek(n * 4096)
        block = f.read(4096)
        allowed = {r for r in tried[n] if r >= acked.get(n, 0)}
        blocks = [b"%15d\n" % n * 128 + (b"%s%14d\n" % (seed[:1].encode(), r)) * 128 for r in allowed]
        if n not in acked:
            blocks.append(bytes(4096))
        assert block in blocks, "block %d: %r, acknowledged %r" % (n, block[:40] + block[2048:2080], acked.get(n))
print(len(acked), "acknowledged blocks are there")
PY

many() { [ "$(grep -c ok "$1")" -gt 500 ]; }

for mode in direct buffered dsync fsync; do
    cowgate create volumes/acme/$mode --size 256M
    start_mount
    /usr/bin/python3 writer.py mnt/volumes/acme/$mode $mode.writes $mode $mode-1 &
    writer=$!
    wait_for 60 many $mode.writes
    kill -9 "$mount_pid"
    wait "$mount_pid" 2>/dev/null || true
    wait "$writer" || fail "the writer didn't end well"
    ls mnt >/dev/null 2>&1 && fail "the mount lives"

    # The dead mount is replaced, also by the daemon in the background.
    cowgate mount mnt
    /usr/bin/python3 check.py mnt/volumes/acme/$mode $mode.writes $mode-1
    cowgate umount mnt
    mountpoint -q mnt && fail "still mounted"
    cowgate --quiet export volumes/acme/$mode ./out.raw
    /usr/bin/python3 check.py out.raw $mode.writes $mode-1
    rm out.raw
done

# What fsync, O_DSYNC, O_SYNC or close have made stable outlives the host, too: that's the death of
# the daemon and of the run directory, where the volume's state is kept between flushes.
cat >stable.py <<'PY'
import mmap, os, sys
path, how = sys.argv[1:]
flags = {"dsync": os.O_DSYNC, "sync": os.O_SYNC, "dsync-direct": os.O_DSYNC | os.O_DIRECT}.get(how, 0)
block = mmap.mmap(-1, 65536)
block[:] = (b"stable-" + how.encode()).ljust(65536, b"x")
fd = os.open(path, os.O_RDWR | flags)
if how == "mmap":
    shared = mmap.mmap(fd, 65536)
    shared[:] = block[:]
    shared.flush() # msync
else:
    assert os.pwrite(fd, block, 0) == 65536
if how == "fsync":
    os.fsync(fd)
if how == "fdatasync":
    os.fdatasync(fd)
if how == "close":
    os.close(fd)
print("done", flush=True)
sys.stdin.read() # keeps it open
PY
for how in nothing fsync fdatasync dsync sync dsync-direct mmap close; do
    cowgate create volumes/acme/stable-$how --size 16M
    start_mount
    coproc HOLDER { /usr/bin/python3 stable.py mnt/volumes/acme/stable-$how $how; }
    holder=$HOLDER_PID
    read -r answer <&"${HOLDER[0]}"
    [ "$answer" = done ] || fail "$how: $answer"
    kill -9 "$mount_pid"
    wait "$mount_pid" 2>/dev/null || true
    exec {HOLDER[1]}>&-
    wait "$holder" || fail "$how: the holder didn't end well"
    umount mnt
    other_boot
    found=$(cowgate --quiet export volumes/acme/stable-$how - | tr -d '\0' | wc -c)
    if [ $how = nothing ]; then
        [ "$found" = 0 ] || fail "this test would find what wasn't flushed"
    else
        [ "$found" = 65536 ] || fail "$how: $found of 65536 bytes are there"
    fi
done
