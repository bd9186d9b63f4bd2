# A server that is told to end does so, whoever is connected: idle clients, ones that stopped in the
# middle of the handshake, ones that don't read their replies.  Volumes are closed, the socket is
# gone, the exit status is 0, and no client hears an error: it gets its reply or is disconnected.
. "$abs_srcdir/tests/functions.sh"
requires nbd_python -c 'import nbd'

cowgate init
cowgate create volumes/acme/web --size 64M

# A client that writes, says that it has, and stays, idle.
cat >idle.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(sys.argv[2].encode() * 4096, 8192)
open("connected", "w").close()
try:
    while True:
        h.poll(-1)
except nbd.Error:
    pass
PY
# A client that connects and then neither says nor reads anything.
cat >mute.py <<'PY'
import socket, sys, time
if sys.argv[1].isdigit():
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
s.recv(8)
open("mute", "w").close()
time.sleep(1000)
PY
# A client that asks for much and reads no reply.
cat >stuck.py <<'PY'
import nbd, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for i in range(64):
    h.aio_pread(nbd.Buffer(1 << 20), 0)
time.sleep(0.3)
open("stuck", "w").close()
time.sleep(1000)
PY
# (Without nbd_python, a function, whose background process is not the one to stop.)
# clients SOCKET-OR-PORT URI BYTE: one of each, connected.
clients() {
    rm -f connected mute stuck
    /usr/bin/python3 mute.py "$1" & cleanup_fn stop $!
    /usr/bin/python3 stuck.py "$2" & cleanup_fn stop $!
    /usr/bin/python3 idle.py "$2" "$3" & idle=$!
    cleanup_fn stop $idle
    wait_for 20 test -e connected
    wait_for 20 test -e mute
    wait_for 20 test -e stuck
}
# ends SIGNAL: the server does, well, and leaves nothing open; and the idle client is let go.
ends() {
    local status=0
    kill "-$1" "$serve_pid"
    timeout 30 tail --pid="$serve_pid" -f /dev/null || fail "the server does not end on SIG$1"
    wait "$serve_pid" || status=$?
    [ $status = 0 ] || fail "the server ended with $status on SIG$1"
    wait "$idle" || fail "the idle client failed"
    [ -z "$(ls "$COWGATE_RUN" | grep '^map-')" ] || fail "the volume wasn't closed"
}

for signal in TERM INT; do
    start_serve "$tmp/s"
    clients "$tmp/s" "$(uri "$tmp/s" volumes/acme/web)" a
    ends $signal
    [ ! -e "$tmp/s" ] || fail "the socket is still there"
done

port=$((10000 + $$ % 20000 + 6))
cowgate serve --listen 127.0.0.1:$port 2>tcp.log &
serve_pid=$!
cleanup_fn stop "$serve_pid"
wait_for 30 grep -q 'serving on nbd://127.0.0.1' tcp.log
clients $port "nbd://127.0.0.1:$port/volumes/acme/web" b
ends TERM

# nbdkit by itself; its socket isn't the plugin's.
start_nbdkit "$tmp/n" "$COWGATE_ROOT"
clients "$tmp/n" "$(uri "$tmp/n" volumes/acme/web)" c
ends TERM
[ -S "$tmp/n" ] || fail "the plugin removed a socket that it wasn't given"
cowgate export volumes/acme/web - | cmp - <(head -c 8192 /dev/zero; head -c 4096 /dev/zero | tr '\0' c;
    head -c $((67108864 - 12288)) /dev/zero) || fail "a write is lost"

# Busy clients: what was acknowledged is there, and the only failure is a lost connection.
cat >busy.py <<'PY'
import errno, nbd, os, signal, sys, threading
pid, per = int(sys.argv[2]), 1 << 20
done = [set() for _ in range(8)]
wrong = []
def run(n):
    h = nbd.NBD()
    h.connect_uri(sys.argv[1])
    def completed(i, e):
        if e.value == 0:
            done[n].add(i)
        elif e.value != errno.ENOTCONN:
            wrong.append(e.value)
        return 1
    i = 0
    try:
        while True:
            while h.aio_in_flight() < 16 and i < per // 512:
                b = nbd.Buffer.from_bytearray(bytearray(bytes([i % 255 + 1]) * 512))
                h.aio_pwrite(b, n * per + i * 512, lambda e, i=i: completed(i, e))
                i += 1
            h.poll(-1)
            if sum(map(len, done)) > 2000:
                ending.set()
    except nbd.Error as e:
        if e.errnum == errno.ESHUTDOWN:
            wrong.append(e.errnum)
ending = threading.Event()
threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
for t in threads:
    t.start()
ending.wait()
os.kill(pid, signal.SIGTERM)
for t in threads:
    t.join()
assert not wrong, f"errors: {wrong}"
with open("acknowledged", "w") as f:
    for n in range(8):
        for i in done[n]:
            print(n * per + i * 512, i % 255 + 1, file=f)
PY
for i in 1 2 3 4 5; do
    start_serve "$tmp/b$i"
    nbd_python busy.py "$(uri "$tmp/b$i" volumes/acme/web)" "$serve_pid" || fail "round $i"
    wait "$serve_pid" || fail "the server ended with $?"
    cowgate --quiet export --force volumes/acme/web ./web.raw
    nbd_python - <<'PY'
data = open("web.raw", "rb").read()
for line in open("acknowledged"):
    off, byte = map(int, line.split())
    assert data[off:off + 512] == bytes([byte]) * 512, off
PY
done

# Told to end while it starts: it does.
for i in $(seq 10); do
    cowgate serve --socket "$tmp/e" 2>>early.log &
    serve_pid=$!
    sleep "0.0$i"
    kill "$serve_pid"
    timeout 30 tail --pid="$serve_pid" -f /dev/null || fail "a starting server does not end"
    wait "$serve_pid" || true
done
