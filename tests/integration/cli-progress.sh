# Progress: a bar on a terminal, which goes away at the end; a line now and then elsewhere; nothing of
# either with --quiet, and nothing on standard output.
. "$abs_srcdir/tests/functions.sh"
requires nbdkit --filter=delay --dump-plugin memory
requires script --version

cowgate init
nbdkit --unix "$tmp/slow" --filter=delay -P "$tmp/slow.pid" memory 1G rdelay=400ms
cleanup_fn eval 'kill "$(cat "$tmp/slow.pid")"'
slow="nbd+unix:///?socket=$tmp/slow"
qemu-io -f raw -c 'write -P 7 0 32M' "$slow" >/dev/null

# tty COMMAND ...: on a terminal, whose output is in tty.out.
tty() { script -qec "$(printf '%q ' "$@")" /dev/null </dev/null >tty.out; }

tty cowgate import "$slow" volumes/acme/a
grep -aEq 'import \[=* *\] +[0-9]+ %  [0-9.]+ [KMG]iB of 1.00 GiB  [0-9.]+ [KMG]?i?B/s  ([0-9:]+|-) left' tty.out ||
    fail "no bar: $(cat -v tty.out)"
[ "$(tr -d '\r\n' <tty.out | tail -c 3)" = $'\033[K' ] || fail "the bar stays: $(tail -c 20 tty.out | cat -v)"
tty cowgate --quiet import "$slow" volumes/acme/b
[ ! -s tty.out ] || fail "--quiet shows $(cat -v tty.out)"

# Elsewhere: nothing on what is over soon, a line for what takes long.
cowgate import "$slow" volumes/acme/c >out 2>err
[ ! -s out ] && [ ! -s err ] || fail "a short import says $(cat out err)"
nbdkit --unix "$tmp/slower" --filter=delay -P "$tmp/slower.pid" memory 1G rdelay=2
cleanup_fn eval 'kill "$(cat "$tmp/slower.pid")"'
slow="nbd+unix:///?socket=$tmp/slower"
qemu-io -f raw -c 'write -P 7 0 512M' "$slow" >/dev/null
cowgate import "$slow" volumes/acme/d >out 2>err &
importer=$!
cleanup_fn stop $importer
wait_for 60 grep -q . err
grep -Eqx 'import: [0-9.]+ [KMG]iB of 1.00 GiB \([0-9]+ %\), [0-9.]+ [KMG]?i?B/s, ([0-9:]+|-) left' err ||
    fail "no line: $(cat -v err)"
stop $importer
[ ! -s out ] || fail "progress is on standard output"

# The summaries too.
cowgate backup volumes/acme/a >out 2>err
grep -q '^full, ' err && grep -qx 'backups/acme/a/[0-9TZ]*' out || fail "backup says $(cat out err)"
cowgate --quiet backup volumes/acme/a >out 2>err
[ ! -s err ] && grep -qx 'backups/acme/a/[0-9TZ-]*' out || fail "backup --quiet says $(cat out err)"
cowgate restore backups/acme/a/latest ./r.raw >out 2>err
[ ! -s out ] && grep -q 'fetched' err || fail "restore says $(cat out err)"
cowgate --quiet restore backups/acme/a/latest ./r2.raw >out 2>err
[ ! -s out ] && [ ! -s err ] || fail "restore --quiet says $(cat out err)"
cowgate verify >out 2>err
[ ! -s out ] && grep -q '0 damaged' err || fail "verify says $(cat out err)"
cowgate --quiet verify >out 2>err
[ ! -s out ] && [ ! -s err ] || fail "verify --quiet says $(cat out err)"
