#!/bin/bash
# The server is killed (-9) under four clients that write odd sizes and zeroes and never flush: the
# next server has every write that was acknowledged, time after time.
. "$abs_srcdir/tests/functions.sh"
requires nbd_python -c 'import nbd'

client="$abs_srcdir/tests/integration/nbd-kill-client.py"
cowgate init
cowgate create volumes/acme/web --size 8M
for acknowledged in 1 10 200 500 1000; do
    start_serve nbd.sock
    nbd_python "$client" write nbd.sock volumes/acme/web state "$serve_pid" $acknowledged
    { wait "$serve_pid" || true; } 2>/dev/null
    start_serve nbd.sock
    nbd_python "$client" check nbd.sock volumes/acme/web state
    stop "$serve_pid"
done

# And over a parent: the blocks written in part were filled from it.
head -c 8M /dev/zero | tr '\0' 'p' >parent
cowgate clone ./parent volumes/acme/child
start_serve nbd.sock
child=$(uri nbd.sock volumes/acme/child)
nbd_python - "$child" "$serve_pid" <<'PY'
import nbd, os, signal, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for block in range(0, 1000, 3):
    h.pwrite(b"c" * 512, block * 4096 + 512 * (block % 8))
os.kill(int(sys.argv[2]), signal.SIGKILL)
PY
{ wait "$serve_pid" || true; } 2>/dev/null
start_serve nbd.sock
nbdcopy "$child" got
nbd_python - <<'PY'
want = bytearray(b"p" * (8 << 20))
for block in range(0, 1000, 3):
    at = block * 4096 + 512 * (block % 8)
    want[at:at + 512] = b"c" * 512
assert open("got", "rb").read() == want
PY
