# The socket of a server: only its owner's, replaced when stale, never taken from somebody who
# serves, also by two that start at once; and nothing is said to be served that isn't.
. "$abs_srcdir/tests/functions.sh"
requires strace -V

cowgate init
cowgate create volumes/acme/web --size 1M

# The one in the run directory, when none is named.
cowgate serve volumes/acme/web 2>default.log &
serve_pid=$!
cleanup_fn stop "$serve_pid"
wait_for 30 grep -qF "serving on nbd+unix:///?socket=$COWGATE_RUN/nbd.sock" default.log
[ "$(stat -c %a "$COWGATE_RUN/nbd.sock")" = 600 ] || fail "the socket is $(stat -c %A "$COWGATE_RUN/nbd.sock")"
[ "$(nbdinfo --size "$(uri "$COWGATE_RUN/nbd.sock")")" = 1048576 ] || fail "the default export"
stop "$serve_pid"
[ ! -e "$COWGATE_RUN/nbd.sock" ] || fail "the socket is still there"

# Of a killed one, the socket stays, and the next replaces it.
start_serve "$tmp/s"
[ "$(stat -c %a s)" = 600 ] || fail "the socket is $(stat -c %A s)"
must_fail 1 "somebody serves on $tmp/s already" cowgate serve --socket "$tmp/s"
kill -9 "$serve_pid"
{ wait "$serve_pid" || true; } 2>/dev/null
[ -S s ] || fail "the test needs a stale socket"
start_serve "$tmp/s"
# ... but not one that isn't its own any more.
rm s
first=$serve_pid
start_serve "$tmp/s"
stop "$first"
nbd_answers s || fail "a server removed another's socket"
kill -9 "$serve_pid"
{ wait "$serve_pid" || true; } 2>/dev/null

# Two at once, where one has found the socket stale and is held up before it removes it.
env "ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0" strace -o trace -e trace=unlink \
    -e inject=unlink:delay_enter=2000000:when=1 cowgate serve --socket "$tmp/s" 2>held.log &
holder=$!
cleanup_fn stop $holder
wait_for 30 grep -q unlink trace
r=0
timeout 30 cowgate serve --socket "$tmp/s" 2>second.log || r=$?
[ $r = 1 ] || fail "the second ended with $r: $(cat second.log)"
grep -q 'somebody serves' second.log || fail "$(cat second.log)"
wait_for 30 nbd_answers s
pkill -TERM -P $holder
wait $holder || true

# What nbdkit can't use is found before anything is said, and leaves no socket.
must_fail 1 'read ./nothing: No such file' cowgate serve --socket t --tls-psk ./nothing
mkdir certificates
must_fail 1 'read certificates/ca-cert.pem: No such file' \
    cowgate serve --socket t --tls-certificates certificates
must_fail 1 'open ghost: No such file' cowgate serve --socket ghost/t
[ ! -e t ] || fail "a socket was left"
r=0
COWGATE_PLUGIN=$tmp/nothing.so cowgate serve --socket t 2>plugin.log || r=$?
[ $r = 1 ] && ! grep -q 'serving on' plugin.log || fail "$r: $(cat plugin.log)"

# --quiet says nothing.
cowgate --quiet serve --socket "$tmp/q" 2>quiet.log &
serve_pid=$!
cleanup_fn stop "$serve_pid"
wait_for 30 nbd_answers q
stop "$serve_pid"
[ ! -s quiet.log ] || fail "--quiet says $(cat quiet.log)"
