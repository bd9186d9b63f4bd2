#!/bin/bash
# What a migration reads from goes away, in its middle: its server is killed, the host starts anew, the
# repository is lost for a while, a chunk for ever.  That is an error wherever it's read, never other
# data, and when it's there again the same command goes on.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
requires strace -V
start_ceph
begin_root
cleanup_fn thaw_osd
rbd config pool set rbd rbd_concurrent_management_ops 1 # fills object by object

head -c 160M /dev/urandom >src.raw
truncate -s 192M src.raw
cowgate --quiet import ./src.raw volumes/acme/web
point=$(cowgate --quiet backup volumes/acme/web)
remember_root

state() { cowgate --json migrate status | jq -r '.[].state'; }
server_pid() { cat root/migrations/rbd+rbd+one/server; }
objects_there() { rados -p rbd ls | grep -c rbd_data || true; }
some_are_there() { [ "$(objects_there)" -ge "$1" ]; }

# What can be read is right, where it can be read.
never_wrong() {
    if timeout 60 rbd export --no-progress one out.raw 2>out.err; then same out.raw src.raw; fi
    rm -f out.raw
}

cant_be_read() {
    ! rbd export --no-progress one out.raw >out.err 2>&1 || fail "it can be read"
    rm -f out.raw
}

prepare() {
    rm -f prepare.log
    cowgate migrate prepare "$1" rbd/rbd/one --serve 2>prepare.log &
    prepare=$!
    cleanup_fn stop $prepare
    wait_for 60 grep -q 'usable now' prepare.log
}

# On a terminal, on which somebody types Ctrl-C once the file `type` is there.
cat >typed.py <<'PY'
import os, pty, select, signal, sys
pid, fd = pty.fork()
if pid == 0:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which newer shells ignore in the background
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    if os.path.exists("type"):
        os.unlink("type")
        os.write(fd, b"\x03")
    if select.select([fd], [], [], 0.1)[0]:
        try:
            os.write(1, os.read(fd, 4096))
        except OSError:  # nobody has the terminal any more
            break
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY

# execute_and COMMAND ...: begins to fill the image, each chunk read slowly, and runs the command in the
# middle of that, so that it fails.  It's filled by the array `execute_by`, if that has something.
execute_by=()
execute_and() {
    local r=0
    env strace -f -qq -o slow.trace -e trace=openat -e inject=openat:delay_enter=500000 -p "$(server_pid)" 2>strace.err &
    slow=$!
    wait_for 30 grep -q TracerPid:.*[1-9] "/proc/$(server_pid)/status"
    "${execute_by[@]}" cowgate migrate execute rbd/rbd/one >execute.log 2>&1 &
    execute=$!
    wait_for 60 some_are_there $(($(objects_there) + 1))
    freeze_osd
    "$@"
    kill -9 $slow # asked to let go of a process that is just dying, it may wait for that for ever
    wait $slow || true
    thaw_osd
    wait $execute || r=$?
    [ $r = 1 ] || fail "execute ended with $r: $(cat execute.log)"
    grep -q "'cowgate migrate execute rbd/rbd/one' goes on" execute.log || fail "$(cat execute.log)"
    [ "$(state)" = executing ] || fail "$(state)"
}

# The server dies before anything is copied.  What still has the image open reads errors.
prepare "$point"
kill -9 "$(server_pid)"
r=0
wait $prepare || r=$?
[ $r = 1 ] || fail "prepare --serve ended with $r"
grep -q "the migration's server ended" prepare.log || fail "$(cat prepare.log)"
cowgate migrate status | grep -q "its server doesn't run" || fail "$(cowgate migrate status)"
cant_be_read
# The same command goes on.
prepare "$point"

# It dies while it's read.
execute_and eval 'kill -9 "$(server_pid)"'
wait $prepare && fail "prepare --serve ended well"
never_wrong

# The host starts anew: nobody runs, and there is no run directory.
{ grep " $COWGATE_RUN" /proc/mounts || true; } | cut -d' ' -f2 | xargs -r umount -l
other_boot
[ "$(state)" = executing ] || fail "$(state)"
cowgate migrate execute rbd/rbd/one
[ "$(state)" = executed ] || fail "$(state)"
# From here on the source isn't needed.
kill -9 "$(server_pid)"
mv root/repo/acme/chunks away
rbd export --no-progress one - | cmp - src.raw
cowgate migrate commit rbd/rbd/one
mv away root/repo/acme/chunks
rbd export --no-progress one - | cmp - src.raw
rbd rm --no-progress one
nothing_left

# The repository goes away while it's read, and comes back.
prepare "$point"
execute_and mv root/repo/acme/chunks away
never_wrong
kill -9 "$(server_pid)" # and what it has in memory
must_fail 1 'goes on' cowgate migrate execute rbd/rbd/one
mv away root/repo/acme/chunks
rbd export --no-progress one - | cmp - src.raw
cowgate migrate execute rbd/rbd/one
cowgate migrate commit rbd/rbd/one
wait $prepare || true # it may have seen that its server had died
rbd export --no-progress one - | cmp - src.raw
rbd rm --no-progress one
nothing_left

# Asked to end in the middle it does, the image stays in use, and its server runs; of the bar nothing is
# left on the terminal.
interrupted='interrupted; it can be used as it is, its server runs on'
prepare "$point"
execute_and eval 'kill $execute'
grep -q "$interrupted" execute.log || fail "$(cat execute.log)"
server=$(server_pid)
execute_by=(nbd_python typed.py)
execute_and touch type
execute_by=()
tr -d '\r' <execute.log | sed 's/.*\x1b\[K//' >shown
grep -qx "cowgate: fill rbd/rbd/one: $interrupted: .*" shown && [ "$(wc -l <shown)" = 1 ] || fail "$(cat -v execute.log)"
[ "$(server_pid)" = $server ] && kill -0 $server
rbd export --no-progress one - | cmp - src.raw
cowgate migrate run "$point" rbd/rbd/one 2>run.log
wait $prepare
rbd export --no-progress one - | cmp - src.raw
rbd rm --no-progress one
nothing_left

# An error of a read isn't zeros, one of block status isn't a hole.
if [ "$stream" = nbd ]; then
    start_serve_with_errors() {
        nbdkit --foreground --unix "$tmp/e" --filter=error "$COWGATE_PLUGIN" root=root readonly=true \
            error-extents-rate=100% error-pread-rate=100% error-pread-file="$tmp/trigger" >errors.log 2>&1 &
        cleanup_fn stop $!
        wait_for 30 nbd_answers "$tmp/e"
    }
    start_serve_with_errors
    cowgate migrate prepare "$point" rbd/rbd/one --advertise "$(uri "$tmp/e")"
    touch trigger
    must_fail 1 'Input/output error.* goes on' cowgate migrate execute rbd/rbd/one
    never_wrong
    [ "$(state)" = executing ] || fail "$(state)"
    rm trigger
    rbd export --no-progress one - | cmp - src.raw
    cowgate migrate execute rbd/rbd/one
    cowgate migrate commit rbd/rbd/one
    rbd export --no-progress one - | cmp - src.raw
    rbd rm --no-progress one
    nothing_left
fi

# A chunk is lost for ever: the image never has zeros in its place.
chunk=$(find root/repo/acme/chunks -type f | shuf -n 1)
prepare "$point"
mv "$chunk" lost
kill -9 "$(server_pid)"
must_fail 1 'goes on' cowgate migrate execute rbd/rbd/one
cant_be_read
mv root/repo away
must_fail 1 'repo' cowgate migrate abort rbd/rbd/one
mv away root/repo
wait_for 60 cowgate migrate abort rbd/rbd/one
wait $prepare || true
[ -z "$(rbd ls)" ] || fail "$(rbd ls)"
mv lost "$chunk"
nothing_left
