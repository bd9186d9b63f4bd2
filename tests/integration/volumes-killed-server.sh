# kill -9 of the server under clients that write without flushing: the next server has every write
# that was acknowledged, and so have a snapshot made after the kill and the disk after an orderly end.
. "$abs_srcdir/tests/functions.sh"
client=$abs_builddir/tests/integration/volumes-client

cowgate init
cowgate create volumes/acme/v --size 100M
start_serve "$tmp/s"
v=$(uri "$tmp/s" volumes/acme/v)

# Of what a round before knew, all that this one didn't touch is still there; where this one's first
# write of a piece was under way at the kill, what was there before may be too.
merge() {
    awk 'NR == FNR { was[$1] = $2; next } $2 < 0 && $1 in was { $2 = was[$1] } { print; new[$1] = 1 }
         END { for (p in was) if (!(p in new)) print p, was[p], -1 }' known acknowledged >merged
    mv merged known
}
kill_it() {
    "$client" write "$v" "$serve_pid" "$1" 400 >acknowledged
    wait "$serve_pid" 2>/dev/null || true
    merge
}

: >known
for round in 1 2 3; do
    kill_it $round
    start_serve "$tmp/s"
    "$client" check "$v" <known
    # What was under way is settled by now.
    awk '$3 < 0' known >settled
    mv settled known
done
kill_it 4
cowgate snapshot volumes/acme/v@s
other_boot
start_serve "$tmp/s"
"$client" check "$(uri "$tmp/s" volumes/acme/v@s)" <known
"$client" check "$v" <known

# What is flushed is there after a reboot, whoever wrote it: the first of two clients writes, the other
# flushes, and the server is killed before anybody else does.
cat >two.py <<'PY'
import os, signal, sys, nbd
a, b = nbd.NBD(), nbd.NBD()
for h in a, b:
    h.connect_uri(sys.argv[1])
assert a.can_multi_conn()
for off in 0, 4096, 8192 + 512, 50 << 20:
    a.pwrite(b"a" * 4096, off)
a.zero(8192, 1 << 20)
b.flush()
os.kill(int(sys.argv[2]), signal.SIGKILL)
PY
cowgate create volumes/acme/two --size 64M
cowgate clone volumes/acme/v volumes/acme/clone
for two in two clone; do
    nbd_python two.py "$(uri "$tmp/s" "volumes/acme/$two")" "$serve_pid"
    wait "$serve_pid" 2>/dev/null || true
    other_boot
    start_serve "$tmp/s"
    qemu-io -f raw -c 'read -P 97 0 8k' -c 'read -P 97 8704 4k' -c 'read -P 97 50M 4k' \
        -c 'read -P 0 1M 8k' "$(uri "$tmp/s" "volumes/acme/$two")" >io.log
    ! grep -i failed io.log || fail "$two: $(cat io.log)"
done
