#!/bin/bash
# What is done to a volume that is in use: clients that stay connected go on with the size they know,
# those who come see the new one; what can't be done says who is in the way, by process and program.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

cowgate init
cowgate create volumes/acme/v --size 16M
start_serve "$tmp/s"
s_pid=$serve_pid
v=$(uri "$tmp/s" volumes/acme/v)
size() { nbdinfo --size "$v"; }
[ "$(size)" = $((16 << 20)) ]

# A writer that stays; the volume grows under it, and is snapshotted.
start_writer "$v"
write 1
cowgate snapshot volumes/acme/v@one
cowgate resize volumes/acme/v 24M
[ "$(size)" = $((24 << 20)) ] || fail "who connects now sees $(size)"
write 2 # all that it knows of
cowgate export volumes/acme/v - >now.raw
head -c 16M now.raw >low.raw
is_all low.raw 2
tail -c 8M now.raw >high.raw
is_all high.raw 0
cowgate export volumes/acme/v@one - >one.raw
[ "$(stat -c %s one.raw)" = $((16 << 20)) ]
is_all one.raw 1
qemu-io -f raw -c 'write -P 3 20M 64k' "$v" >io.log || fail "$(cat io.log)"

# Not under a writer: its guest would see the past under its feet.
must_fail 1 "being written by process $s_pid" cowgate rollback volumes/acme/v@one
must_fail 1 "being written by process $s_pid: disconnect its clients.*process $s_pid [(]nbdkit[)]" \
    cowgate delete --snapshots volumes/acme/v
write 4
stop_writer

# Readers are named too: one that another process reads meanwhile can't be deleted, but its snapshot.
start_mount
exec 5<"$tmp/mnt/volumes/acme/v"
must_fail 1 "delete volumes/acme/v: it is (being written|open for reading) .*process $mount_pid [(]cowgate-fuse[)]" \
    cowgate delete --snapshots volumes/acme/v
must_fail 1 "has snapshots: delete them first" cowgate delete volumes/acme/v
exec 5<&-
stop_mount

# When nobody writes any more.
cowgate snapshot volumes/acme/v@two
wait_for 60 cowgate rollback volumes/acme/v@one # its server may not have ended with it yet
[ "$(size)" = $((16 << 20)) ] || fail "after the rollback it has $(size)"
qemu-io -f raw -c 'read -P 1 0 16M' -c 'write -P 5 0 64k' -c 'read -P 5 0 64k' "$v" >io.log 2>&1 || fail "$(cat io.log)"
cowgate export volumes/acme/v@two - >two.raw
[ "$(stat -c %s two.raw)" = $((24 << 20)) ]
head -c 16M two.raw >low.raw
is_all low.raw 4
wait_for 60 cowgate delete --snapshots volumes/acme/v
must_fail 1 'nbd' nbdinfo --size "$v"
