# kill -9 at twenty moments of a backup and of a restore: afterwards list, verify and the next run
# are clean, and nothing of the dead ones stays.
. "$abs_srcdir/tests/functions.sh"

requires qemu-io --version

# Ends COMMAND with kill -9 after so many milliseconds, if it lives so long.
killed_after() {
    local ms=$1 pid
    shift
    "$@" >/dev/null 2>&1 &
    pid=$!
    sleep "0.$(printf %03d "$ms")"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

cowgate init
cowgate create volumes/acme/web --size 64M
start_serve "$tmp/s"
web=$(uri "$tmp/s" volumes/acme/web)
for i in $(seq 1 20); do
    head -c 12M /dev/urandom >change
    qemu-io -f raw -c "write -s change $((i * 2))M 12M" "$web" >/dev/null
    killed_after $((i * 10)) cowgate --quiet backup volumes/acme/web
    cowgate list >list
    cowgate verify >/dev/null 2>&1 || fail "run $i: damage"
    cowgate --quiet backup volumes/acme/web >/dev/null
    [ "$(cowgate list volumes/acme | grep -c @cowgate-)" = 1 ] || fail "run $i: stray snapshots"
    [ -z "$(ls root/repo/acme/sessions)" ] || fail "run $i: stray sessions"
done
nbdcopy "$web" data
stop "$serve_pid"
cowgate --quiet export backups/acme/web/latest ./out
same out data

for i in $(seq 1 20); do
    head -c 64M /dev/urandom >target
    killed_after $((i * 5)) cowgate --quiet restore backups/acme/web/latest ./target
    cowgate --quiet restore backups/acme/web/latest ./target
    same target data
done
cowgate verify >/dev/null
