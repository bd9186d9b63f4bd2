# While NBD writes a volume, FUSE and export read it as of the moment they opened it; a second writer
# is refused, and the message names the holder.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

# held_by PID: what is said of a volume that this process writes.
held_by() { echo "volumes/acme/web is being written by process $1 [(]socket $COWGATE_RUN/[^ ]*[.]sock[)]"; }

cowgate init
cowgate create volumes/acme/web --size 64M
start_serve "$tmp/s"
at="$(uri "$tmp/s" volumes/acme/web)"

start_writer "$at"
write 1
start_mount
exec 5<mnt/volumes/acme/web
write 2
[ "$(head -c 67108864 <&5 | tr -d '\001' | wc -c)" = 0 ] || fail "FUSE doesn't see the moment of its open"
exec 5<&-
[ "$(tr -d '\002' <mnt/volumes/acme/web | wc -c)" = 0 ] || fail "a new open doesn't see what was written"
cowgate export volumes/acme/web - >live.raw
is_all live.raw 2
write 3
cowgate export volumes/acme/web - >live.raw
is_all live.raw 3

# The second writer is refused, and told which process has it and at which address.
point=$(cowgate --quiet backup volumes/acme/web)
cowgate snapshot volumes/acme/web@before
must_fail 1 'busy' dd if=/dev/zero of=mnt/volumes/acme/web bs=512 count=1 conv=notrunc
grep -q "^cowgate-fuse: open volumes/acme/web: $(held_by "$serve_pid")" fuse.log || fail "the log doesn't name the holder: $(cat fuse.log)"
refused() {
    must_fail 1 "$(held_by "$1")" cowgate --quiet restore "$point" volumes/acme/web
    must_fail 1 "$(held_by "$1")" cowgate rollback volumes/acme/web@before
    must_fail 1 "delete volumes/acme/web: it is being written by process $1: .*open in .*process $1 [(](nbdkit|cowgate-fuse)[)]" cowgate delete --snapshots volumes/acme/web
}
refused "$serve_pid"
cowgate snapshot volumes/acme/web@live
write 4
cowgate export volumes/acme/web@live - >live.raw
is_all live.raw 3
stop_writer
cowgate export volumes/acme/web - >live.raw
is_all live.raw 4
stop "$serve_pid"

# The other way round: FUSE has it.
start_serve "$tmp/s2"
exec 5<>mnt/volumes/acme/web
printf '\005' >&5
must_fail 1 'write failed' qemu-io -f raw -c 'write 0 512' "$(uri "$tmp/s2" volumes/acme/web)"
grep -q "$(held_by "$mount_pid")" "$tmp/s2.log" || fail "the log doesn't name the holder: $(cat "$tmp/s2.log")"
refused "$mount_pid"
exec 5>&-
stop_mount
cowgate export volumes/acme/web - >live.raw
cmp -n 1 live.raw <(printf '\005')
