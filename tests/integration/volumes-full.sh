# A full disk, and a full run directory: writes fail with ENOSPC, what was acknowledged stays, and it
# goes on when there is room.
. "$abs_srcdir/tests/functions.sh"
requires test "$(id -u)" = 0

# begin_on DIR SIZE SOCKET: a volume, served, on a file system of that size.
begin_on() {
    mkdir "$1"
    mount -t tmpfs -o size="$2" tmpfs "$1"
    cleanup_fn umount -l "$tmp/$1"
    export COWGATE_ROOT=$tmp/$1/root
    cowgate init
    cowgate create volumes/acme/v --size 1G
    start_serve "$tmp/$3"
    v=$(uri "$tmp/$3" volumes/acme/v)
}
q() { qemu-io -f raw "$@" "$v" >qemu-io.log 2>&1; }
good() { q "$@" && ! grep -Eq 'failed|error' qemu-io.log || fail "qemu-io $*: $(cat qemu-io.log)"; }

begin_on small 16M s
good -c 'write -P 1 0 8M' -c 'write -P 2 100M 2000' -c flush
q -c 'write -P 3 200M 30M' || true
grep -q 'No space left' qemu-io.log || fail "no ENOSPC: $(cat qemu-io.log)"
good -r -c 'read -P 1 0 8M' -c 'read -P 2 100M 2000'
must_fail 1 'No space left' cowgate snapshot volumes/acme/v@s
cowgate --json info volumes/acme/v >info
[ "$(jq '.snapshots | length' info)" = 0 ] || fail "half a snapshot: $(cat info)"
good -c 'discard 200M 30M' -c 'discard 4M 4M' -c 'write -P 4 300M 3M' -c flush
good -r -c 'read -P 1 0 4M' -c 'read -P 0 4M 4M' -c 'read -P 4 300M 3M' -c 'read -P 0 200M 30M'
cowgate snapshot volumes/acme/v@s
stop "$serve_pid"

# The working map has no room: nothing is lost, nothing crashes.
mkdir run
mount -t tmpfs -o size=64k,mode=0700 tmpfs run
cleanup_fn umount -l "$tmp/run"
own_run=$COWGATE_RUN
export COWGATE_RUN=$tmp/run
start_serve "$tmp/s2"
v=$(uri "$tmp/s2" volumes/acme/v)
good -c 'write -P 5 1M 64k'
wait_for 10 eval '! ls run/map-*' # its writer has ended: nothing gives room back any more
head -c 64k /dev/zero >run/filler 2>/dev/null || true
q -c 'write -P 6 600M 64k' || true
grep -q 'No space left' qemu-io.log || fail "no ENOSPC: $(cat qemu-io.log)"
good -r -c 'read -P 5 1M 64k' -c 'read -P 0 600M 64k' -c 'read -P 4 300M 3M'
rm run/filler
good -c 'write -P 6 600M 64k' -c flush -c 'read -P 6 600M 64k'
stop "$serve_pid"
start_serve "$tmp/s3"
v=$(uri "$tmp/s3" volumes/acme/v)
good -r -c 'read -P 5 1M 64k' -c 'read -P 6 600M 64k' -c 'read -P 4 300M 3M'
stop "$serve_pid"

# A snapshot can be deleted in a full pool, and gives room back.
export COWGATE_RUN=$own_run
begin_on larger 160M s4
good -c 'write -P 1 0 30M'
wait_for 10 test -s larger/root/pool/.spare
cowgate snapshot volumes/acme/v@s
good -c 'write -P 2 0 30M' -c flush
head -c 200M /dev/zero >larger/filler 2>/dev/null || true
q -c 'write -P 3 200M 4M' || true
grep -q 'No space left' qemu-io.log || fail "no ENOSPC: $(cat qemu-io.log)"
stop "$serve_pid"
start_serve "$tmp/s5" # whose client gives room back
v=$(uri "$tmp/s5" volumes/acme/v)
good -c 'discard 20M 8M' -c flush -c 'write -P 4 200M 1M' -c 'write -P 2 20M 1M' -c flush
q -c 'write -P 3 300M 30M' || true
grep -q 'No space left' qemu-io.log || fail "no ENOSPC: $(cat qemu-io.log)"
cowgate delete volumes/acme/v@s
good -c 'write -P 3 200M 16M' -c flush
good -r -c 'read -P 2 0 21M' -c 'read -P 0 21M 7M' -c 'read -P 2 28M 2M' -c 'read -P 3 200M 16M'
