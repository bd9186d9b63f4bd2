# Clients that come back at once, while the volume is still being closed behind the one before, and a
# server that takes over from one that is ending: they wait and write, and nothing is lost.
. "$abs_srcdir/tests/functions.sh"

cowgate init
cowgate create volumes/acme/web --size 64M
start_serve "$tmp/s"
cat >writer.py <<'PY'
import sys, nbd
for i in range(40):
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    if i:
        assert h.pread(4096, (i - 1) * 8192) == bytes([i]) * 4096, i
    h.pwrite(bytes([i + 1]) * 4096, i * 8192)
    for at in range(32, 64, 4):
        h.pwrite(bytes([i + 1]) * (4 << 20), at << 20)
    h.shutdown()
PY
nbd_python writer.py "$(uri "$tmp/s" volumes/acme/web)"

for i in 1 2 3 4 5; do
    kill "$serve_pid"
    start_serve "$tmp/s$i"
    qemu-io -f raw -c "read -P 40 32M 32M" -c "write -P $i $((i * 4096 + 4096)) 4K" -c "read -P 7 48K 4K" \
        "$(uri "$tmp/s$i" volumes/acme/web)" >qemu-io.log 2>&1 || fail "$(cat qemu-io.log "$tmp/s$i.log")"
    ! grep -q 'verification failed' qemu-io.log || fail "$(cat qemu-io.log)"
done
stop "$serve_pid"
cowgate --quiet export volumes/acme/web ./out.raw
for i in 1 2 3 4 5; do
    [ "$(dd if=out.raw bs=4096 skip=$((i + 1)) count=1 status=none | tr -d "\\00$i" | wc -c)" = 0 ] || fail "write $i is lost"
done
[ -z "$(ls "$COWGATE_RUN" | grep '^map-')" ] || fail "working maps are left: $(ls "$COWGATE_RUN")"

# A server that is told to end while its client is just leaving closes the volume all the same.
for i in $(seq 20); do
    start_serve "$tmp/t$i"
    qemu-io -f raw -c "write -P $i 32M 1M" "$(uri "$tmp/t$i" volumes/acme/web)" >/dev/null
    kill "$serve_pid"
    wait "$serve_pid" || fail "the server ended with $?"
    [ -z "$(ls "$COWGATE_RUN" | grep '^map-')" ] || fail "round $i: the volume wasn't closed"
done
