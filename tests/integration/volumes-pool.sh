#!/bin/bash
# A pool that fills up: what volumes take and could take, a warning in time, and when it's full errors
# for all who write, by NBD and by the mount, which go away with room; nothing acknowledged is lost.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

mkdir small
mount -t tmpfs -o size=64M tmpfs small
cleanup_fn umount -l "$tmp/small"
export COWGATE_ROOT=$tmp/small/root
cowgate init
jq '.pool = {"warn": 70, "interval": 1}' "$COWGATE_ROOT/cowgate.json" >new
cp new "$COWGATE_ROOT/cowgate.json"

info() { cowgate --json info ${2-} >info.json && jq -e "$1" info.json >/dev/null || fail "not $1: $(cat info.json)"; }
mib() { echo $(($1 << 20)); }

for wrong in '{"warn": 0}' '{"warn": "90"}' '{"interval": 0}' '[]'; do
    jq --argjson p "$wrong" '.pool = $p' new >"$COWGATE_ROOT/cowgate.json"
    must_fail 1 'cowgate.json: pool(.warn|.interval)? is ' cowgate list
done
cp new "$COWGATE_ROOT/cowgate.json"

# What volumes take.
for v in a b filler; do cowgate create volumes/acme/$v --size 1G; done
start_serve "$tmp/s"
a=$(uri "$tmp/s" volumes/acme/a)
qemu-io -f raw -c 'write -P 1 0 8M' -c flush "$a" >io.log
info ".used >= $(mib 8) and .used < $(mib 9) and .shared == 0 and .reserve == $(mib 1016)" volumes/acme/a
cowgate clone volumes/acme/a volumes/acme/clone
info ".shared >= $(mib 8) and .used < $(mib 1) and .reserve == $(mib 1024)" volumes/acme/clone
info ".shared >= $(mib 8) and .used < $(mib 1) and .reserve == $(mib 1024)" volumes/acme/a
info ".allocated == .used + .shared" volumes/acme/a
qemu-io -f raw -c 'write -P 2 0 4M' -c flush "$a" >io.log
info ".used >= $(mib 4) and .shared >= $(mib 8) and .reserve == $(mib 1020)" volumes/acme/a
info ".pool | .volumes == 4 and .reserve == $(mib $((4 * 1024 - 4))) and .size == $(mib 64) and
      .overcommitted_bytes == .reserve - .free_bytes and .percent < 40 and .warn == 70 and (.full | not)"
cowgate list --long volumes/acme >list 2>said
grep -Eq 'volumes/acme/a .* 4\.[0-9]+ MiB +8\.[0-9]+ MiB +1.00 GiB ' list || fail "$(cat list)"
cowgate --json list volumes/acme >list.json
jq -e ".[] | select(.name == \"volumes/acme/clone\") | .reserve == $(mib 1024)" list.json >/dev/null || fail "$(cat list.json)"
[ ! -s said ] || fail "a warning too early: $(cat said)"

# The warning.
start_mount
dd if=/dev/zero bs=1M count=34 conv=notrunc status=none | tr '\0' '\3' |
    dd of="$tmp/mnt/volumes/acme/filler" bs=1M iflag=fullblock conv=notrunc,fsync status=none
wait_for 60 grep -q "warning: the pool's file system is 7. % full" s.log
wait_for 60 grep -q "warning: the pool's file system is 7. % full" fuse.log
cowgate list >list 2>said
grep -q "warning: the pool's file system is 7. % full: .* of 64.0 MiB are free" said || fail "$(cat said)"
cowgate --quiet list >list 2>said
[ ! -s said ] || fail "not quiet: $(cat said)"
info '.pool.full and .pool.percent >= 70'

# Full: for both at once.
cat >fill.py <<'PY'
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
done = 0
try:
    while done < 120:
        os.pwrite(fd, b"\6" * (1 << 18), done << 18)
        done += 1
        open("begun", "w")
except OSError as e:
    assert e.errno == errno.ENOSPC, e
assert 0 < done < 120
print(done)
try:
    os.close(fd)
except OSError as e: # it flushes
    assert e.errno == errno.ENOSPC, e
PY
nbd_python fill.py "$tmp/mnt/volumes/acme/b" >blocks &
fill=$!
wait_for 60 test -e begun
qemu-io -f raw -c 'write -P 5 500M 30M' "$a" >io.log 2>&1 || true
wait $fill || fail "the mount's writer saw another error"
blocks=$(cat blocks)
qemu-io -f raw -c 'write -P 5 600M 30M' "$a" >io.log 2>&1 || true
grep -q 'No space left' io.log || fail "no ENOSPC: $(cat io.log)"
check_b() {
    [ "$(head -c $((blocks << 18)) "$1" | tr -d '\6' | wc -c)" = 0 ] || fail "what was acknowledged is gone"
}
check_b "$tmp/mnt/volumes/acme/b"
qemu-io -r -f raw -c 'read -P 2 0 4M' -c 'read -P 1 4M 4M' "$a" >io.log || fail "$(cat io.log)"
wait_for 60 grep -q 'is 100 % full' s.log

# With room all go on.
stop_mount
cowgate delete volumes/acme/filler
start_mount
printf '\7' | dd of="$tmp/mnt/volumes/acme/b" bs=1M seek=700 conv=notrunc,fsync status=none
qemu-io -f raw -c 'write -P 5 600M 2M' -c flush "$a" >io.log || fail "$(cat io.log)"
wait_for 60 grep -q 'has room again' s.log
stop_mount
cowgate --quiet export volumes/acme/b - | head -c $((blocks << 18)) >b.raw || true
check_b b.raw
stop "$serve_pid"

# The working map has no room, in a mount.
mkdir run
mount -t tmpfs -o size=128k,mode=0700 tmpfs run
cleanup_fn umount -l "$tmp/run"
export COWGATE_RUN=$tmp/run
start_mount
b=$tmp/mnt/volumes/acme/b
printf '\10' | dd of="$b" bs=1M seek=2 conv=notrunc,fsync status=none
exec 5<>"$b" # so that its writer doesn't end
printf '\11' | dd of=/dev/fd/5 bs=1M seek=2 conv=notrunc status=none
head -c 128k /dev/zero >run/fill 2>/dev/null || true
r=0
for at in 100 200 300 400 500 600 800 900 950 1000; do # a window each
    printf '\12' | dd of="$b" bs=1M seek=$at conv=notrunc status=none 2>dd.log || r=$?
done
[ $r != 0 ] && grep -q 'No space left' dd.log || fail "$r: $(cat dd.log)"
rm run/fill
printf '\13' | dd of="$b" bs=1M seek=1000 conv=notrunc,fsync status=none
exec 5>&-
stop_mount
start_mount
byte() { dd if="$b" bs=1M skip="$1" count=1 status=none | head -c 1 | od -An -t o1 | tr -d ' '; }
[ "$(byte 2)$(byte 1000)$(byte 700)" = 011013007 ] || fail "$(byte 2) $(byte 1000) $(byte 700)"
stop_mount
