# Sourced by every integration test, after nbdkit's tests/functions.sh.in.  The test runs in a fresh
# folder $tmp of its own, with a root $COWGATE_ROOT below it and its own run directory; both go when
# it ends.  A test passes if it ends with 0, is skipped with 77, fails with anything else.

# What a test mounts is its own: in somebody else's copy of the mounts (unshare --mount) it would stay
# mounted after umount, with what was not written yet.
if [ "$(id -u)" = 0 ] && [ -z "${COWGATE_TEST_MOUNTS-}" ] && unshare --mount true 2>/dev/null; then
    export COWGATE_TEST_MOUNTS=own
    exec unshare --mount bash "$0" "$@"
fi

set -euo pipefail
export LC_ALL=C TZ=UTC

test_name=$(basename "$0" .sh)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/cowgate-$test_name.XXXXXX")
COWGATE_RUN=$(mktemp -d "/dev/shm/cowgate-$test_name.XXXXXX")
export COWGATE_RUN COWGATE_ROOT=$tmp/root
cd "$tmp"

# Whichever process it is that ThreadSanitizer has something to say of: the test fails.
[[ ${SANITIZER-} != *thread* ]] || export TSAN_OPTIONS="${TSAN_OPTIONS-}:log_path=$tmp/tsan"

cleanups=()
# cleanup_fn COMMAND ...: run it when the test ends, in reverse order.
cleanup_fn() { cleanups+=("$(printf '%q ' "$@")"); }

_run_cleanups() {
    local status=$? i
    set +e
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do eval "${cleanups[i]}"; done
    cd /
    for i in "$tmp"/tsan.*; do [ ! -e "$i" ] || { cat "$i"; status=1; }; done
    if [ $status != 0 ] && [ $status != 77 ]; then
        echo "$test_name: failed with status $status"
        for i in "$tmp"/*.log; do [ -e "$i" ] && { echo "--- $i"; tail -n 50 "$i"; }; done
    fi
    rm -rf "$tmp" "$COWGATE_RUN"
    exit $status
}
trap _run_cleanups EXIT
trap 'echo "$test_name: line $LINENO: $BASH_COMMAND"' ERR

fail() { echo "$test_name: $*" >&2; exit 1; }

# requires COMMAND ...: skip the test if it fails.  CI fails on a skip.
requires() { "$@" >/dev/null 2>&1 || { echo "$test_name: skipped: '$*' failed"; exit 77; }; }

# must_fail STATUS TEXT COMMAND ...: it ends with this status and says TEXT (a regular expression).
must_fail() {
    local status=$1 text=$2 out r=0
    shift 2
    out=$("$@" 2>&1) || r=$?
    [ $r = "$status" ] || fail "'$*' ended with $r, not $status: $out"
    grep -Eq -- "$text" <<<"$out" || fail "'$*' did not say '$text': $out"
}

# The leak sanitizer can't work under ptrace, and says so by aborting.
strace() { ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" command strace "$@"; }

# same A B: the bytes are the same.
same() { cmp -- "$1" "$2" || fail "$1 and $2 differ"; }

# wait_for SECONDS COMMAND ...: until it succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "'$*' did not come true"
        sleep 0.05
    done
}

# start_serve SOCKET ARGS ...: cowgate serve in the background, ready when this returns; its pid is
# in $serve_pid, its log in SOCKET.log.
start_serve() {
    local socket=$1
    shift
    cowgate serve --socket "$socket" "$@" >>"$socket.log" 2>&1 &
    serve_pid=$!
    cleanup_fn stop "$serve_pid"
    wait_for 30 nbd_answers "$socket"
}

# start_nbdkit SOCKET ARGS ...: nbdkit with the plugin, as start_serve.
start_nbdkit() {
    local socket=$1
    shift
    "${COWGATE_NBDKIT:-nbdkit}" --foreground --unix "$socket" "$COWGATE_PLUGIN" "$@" \
        >>"$socket.log" 2>&1 &
    serve_pid=$!
    cleanup_fn stop "$serve_pid"
    wait_for 30 nbd_answers "$socket"
}

# python-nbd is installed for the system's python, which need not be the first in PATH.
nbd_python() { /usr/bin/python3 "$@"; }

nbd_answers() {
    nbd_python -c '
import nbd, sys
h = nbd.NBD()
h.set_opt_mode(True)
h.connect_unix(sys.argv[1])
h.opt_abort()' "$1"
}

# nbd_try SOCKET NAME: opens an export by any name, which need not fit into a URI.
nbd_try() {
    nbd_python -c '
import nbd, sys
h = nbd.NBD()
h.set_export_name(sys.argv[2])
h.connect_unix(sys.argv[1])
h.shutdown()' "$1" "$2"
}

# start_writer URI: a client that stays connected.  write N makes the whole export bytes of value N,
# stop_writer ends it.
start_writer() {
    cat >"$tmp/writer.py" <<'PY'
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for line in sys.stdin:
    for off in range(0, h.get_size(), 1 << 20):
        h.pwrite(bytes([int(line)]) * (1 << 20), off)
    print("done", line, end="", flush=True)
h.shutdown()
PY
    coproc WRITER { nbd_python "$tmp/writer.py" "$1"; }
    writer_pid=$WRITER_PID # bash forgets it when the process ends
    cleanup_fn stop "$writer_pid" # before its server, which waits for it
}
write() {
    local answer
    echo "$1" >&"${WRITER[1]}"
    read -r answer <&"${WRITER[0]}"
    [ "$answer" = "done $1" ] || fail "writer: $answer"
}
stop_writer() {
    exec {WRITER[1]}>&-
    wait "$writer_pid" || fail "the writer saw an error"
}

# is_all FILE N: every byte has the value N.
is_all() { [ -s "$1" ] && [ "$(tr -d "\\$(printf %03o "$2")" <"$1" | wc -c)" = 0 ] || fail "$1 isn't all $2"; }

# uri SOCKET [NAME]: the URI of an export, or of the server.
uri() { echo "nbd+unix:///${2-}?socket=$1"; }

# other_boot: what is on tmpfs is gone and the boot's id is another; nothing may run.
other_boot() {
    find "$COWGATE_RUN" -mindepth 1 -delete
    find "$COWGATE_ROOT/pool" -name lock -size +0 -exec sed -i 's/"boot":"......../"boot":"ffffffff/' {} +
}

# stop PID: ends it with SIGTERM and waits.
stop() {
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}
