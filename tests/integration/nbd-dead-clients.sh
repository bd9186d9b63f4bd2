# Clients die in the midst of many reads while others write and never flush.  Some nbdkits abort then
# (1.32 does, now and then): whether this one does or not, every acknowledged write is there afterwards.
. "$abs_srcdir/tests/functions.sh"
requires nbd_python -c 'import nbd'

client="$abs_srcdir/tests/integration/nbd-kill-client.py"
cowgate init
cowgate create volumes/acme/web --size 8M
head -c 64M /dev/urandom >other.raw
cowgate --quiet import ./other.raw volumes/acme/other

dying_reader() {
    nbd_python - "$(uri nbd.sock volumes/acme/other)" <<'PY'
import nbd, os, signal, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for i in range(64):
    h.aio_pread(nbd.Buffer(1 << 20), i << 20)
os.kill(os.getpid(), signal.SIGKILL)
PY
}

aborted=0
for round in 1 2 3; do
    start_serve nbd.sock
    nbd_python "$client" write nbd.sock volumes/acme/web state 0 20000 >writes.log &
    writer=$!
    cleanup_fn stop "$writer"
    wait_for 30 test -e state.begun # all its connections are there
    rm state.begun
    for i in {1..12}; do
        { dying_reader || true; } 2>/dev/null
        kill -0 "$serve_pid" 2>/dev/null || break
    done
    if kill -9 "$serve_pid" 2>/dev/null; then :; else aborted=$((aborted + 1)); fi
    { wait "$serve_pid" || true; } 2>/dev/null
    wait "$writer" || fail "the writer failed"
    [ "$(cut -d' ' -f1 writes.log)" -gt 0 ] || fail "nothing was written"
    start_serve nbd.sock
    nbd_python "$client" check nbd.sock volumes/acme/web state
    cowgate --quiet export volumes/acme/other - | cmp - other.raw
    stop "$serve_pid"
done
echo "nbdkit aborted in $aborted of 3 rounds"
