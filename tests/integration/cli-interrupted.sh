# Ctrl-C, as a signal to a real process: long work ends at once, fails, says so, and leaves nothing
# under a final name; also while it waits for a pipe that nobody reads or fills.
. "$abs_srcdir/tests/functions.sh"
requires nbd_python -c 'import nbd'
requires strace -V
requires nbdkit --filter=delay --dump-plugin memory

cowgate init
# A source and a target of which each request takes a while.
nbdkit --unix "$tmp/slow" --filter=delay -P "$tmp/slow.pid" memory 256M rdelay=1 wdelay=1 delay-zero=1
cleanup_fn eval 'kill "$(cat slow.pid)"'
slow="nbd+unix:///?socket=$tmp/slow"
/usr/bin/qemu-io -f raw -c 'write -P 7 0 64M' "$slow" >/dev/null
head -c 64M /dev/urandom >big.raw
cowgate --quiet import ./big.raw volumes/acme/big
point=$(cowgate --quiet backup volumes/acme/big)

# interrupt.py SIGNAL READY COMMAND ...: sends the signal when the file READY is there, or after a
# moment; shows what the command said and its exit status.  From a shell's background a command would
# ignore SIGINT.
cat >interrupt.py <<'PY'
import os, signal, subprocess, sys, time
sig, ready, command = getattr(signal, sys.argv[1]), sys.argv[2], sys.argv[3:]
signal.signal(sig, signal.SIG_DFL)  # as for a command of a person, however the tests were started
signal.pthread_sigmask(signal.SIG_UNBLOCK, {sig})
r, w = os.pipe()  # nobody reads it or writes to it
stdin = r if command[1:3] == ["import", "-"] else subprocess.DEVNULL
stdout = w if command[-1] == "-" else subprocess.DEVNULL
p = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True)
deadline = time.monotonic() + 20
while ready and not os.path.exists(ready) and p.poll() is None and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.5)
if p.poll() is not None:
    sys.exit(f"{command} ended by itself with {p.returncode}: {p.stderr.read()}")
p.send_signal(sig)
try:
    said = p.communicate(timeout=30)[1]
except subprocess.TimeoutExpired:
    p.kill()
    sys.exit(f"{command} did not end")
print(said)
sys.exit(f"{command} ended with {p.returncode}") if p.returncode != 1 else None
PY
interrupt() {
    nbd_python interrupt.py "$@" >said || fail "$(cat said)"
    grep -Eqi 'interrupted|cancelled' said || fail "'$*' did not say why: $(cat said)"
}

interrupt SIGINT root/pool/acme/.draft-new cowgate import "$slow" volumes/acme/new
interrupt SIGTERM root/pool/acme/.draft-new cowgate import "$slow" volumes/acme/new
interrupt SIGINT root/pool/acme/.draft-new cowgate import - volumes/acme/new --size 1G
must_fail 1 'volumes/acme/new' cowgate info volumes/acme/new
[ ! -e root/pool/acme/.draft-new ] || fail "an interrupted import left its draft"

interrupt SIGINT '' cowgate export volumes/acme/big "$slow"
interrupt SIGINT '' cowgate export volumes/acme/big -
interrupt SIGINT new.raw.cowgate-partial cowgate export "$slow" ./new.raw
[ ! -e new.raw ] && [ ! -e new.raw.cowgate-partial ] || fail "an interrupted export left something"

before=$(cowgate --json list backups)
interrupt SIGINT '' cowgate backup "$slow" backups/acme/new
[ "$(cowgate --json list backups)" = "$before" ] || fail "an interrupted backup made a point"
cowgate verify 2>/dev/null || fail "an interrupted backup left damage"

interrupt SIGINT '' cowgate restore "$point" "$slow"
# A restore keeps what it has, under its unfinished name, and goes on with it.
ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" interrupt SIGINT root/pool/acme/.draft-back strace -D -f -o trace -e trace=pwrite64 \
    -e inject=pwrite64:delay_enter=300000 cowgate restore "$point" volumes/acme/back
grep -q 'run the same command again' said || fail "$(cat said)"
must_fail 1 'volumes/acme/back' cowgate info volumes/acme/back
cowgate --quiet restore "$point" volumes/acme/back
cowgate export volumes/acme/back - | cmp - big.raw

interrupt SIGINT '' cowgate diff "$slow" volumes/acme/big

# Whoever ignores the signal goes on: nohup.
nbd_python - "$slow" <<'PY'
import signal, subprocess, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
p = subprocess.Popen(["cowgate", "--quiet", "import", sys.argv[1], "volumes/acme/nohup"])
time.sleep(0.5)
assert p.poll() is None
p.send_signal(signal.SIGHUP)
sys.exit(p.wait())
PY
cowgate info volumes/acme/nohup >/dev/null
