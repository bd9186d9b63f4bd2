# Who may have what open beside whom, and what a reader sees while another process writes.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

a_disk disk.raw
cowgate init
cowgate --quiet import ./disk.raw volumes/acme/web
cowgate snapshot volumes/acme/web@s1
cowgate create volumes/acme/data --size 32M
start_mount
v=mnt/volumes/acme

# A volume and its partitions.
exec 5<>$v/web
must_fail 1 'busy' dd if=$v/web.p1 of=/dev/null count=1
must_fail 1 'busy' dd if=/dev/zero of=$v/web.p2 count=1 conv=notrunc
grep -q 'open volumes/acme/web.p1: volumes/acme/web is open for writing' fuse.log || fail "the log doesn't say why"
cat $v/web@s1.p1 | cmp - part.img # another image
exec 5>&-
wait_for 10 dd if=$v/web.p1 of=/dev/null count=1
exec 5<>$v/web.p1 6<>$v/web.p2
must_fail 1 'busy' dd if=$v/web of=/dev/null count=1
must_fail 1 'busy' dd if=/dev/zero of=$v/web count=1 conv=notrunc
printf 'one' >&5
printf 'two' >&6
exec 5>&- 6>&-
wait_for 10 dd if=$v/web of=/dev/null count=1
[ "$(dd if=$v/web bs=512 skip=2048 count=1 status=none | head -c 3)" = one ] || fail "p1 isn't in the volume"
[ "$(dd if=$v/web bs=512 skip=83968 count=1 status=none | head -c 3)" = two ] || fail "p2 isn't in the volume"
exec 5<$v/web 6<$v/web.p1 # two readers
must_fail 1 'busy' dd if=/dev/zero of=$v/web.p1 count=1 conv=notrunc
exec 5>&- 6>&-

# Another process writes: a second writer is refused at open, and the log names the holder.
start_serve "$tmp/s"
at=$(uri "$tmp/s" volumes/acme/data)
start_writer "$at"
write 1
must_fail 1 'busy' dd if=/dev/zero of=$v/data count=1 conv=notrunc
grep "open volumes/acme/data" fuse.log | grep -q "$serve_pid" || fail "the log doesn't name the holder: $(tail -n 1 fuse.log)"

# A reader sees the moment of its open, whatever it reads when; the next sees what is new.
for n in 2 3 4 5; do
    exec 5<$v/data
    head -c 1000000 <&5 | tr -d "\\00$((n - 1))" | cmp - /dev/null
    write $n
    tail -c +1 <&5 | tr -d "\\00$((n - 1))" | cmp - /dev/null || fail "the open file changed"
    exec 5<&-
    is_all $v/data $n
done

# Readers at the same time share the first's moment, whatever one of them makes the kernel read again,
# a loop device too.
exec 5<$v/data
head -c 10000000 <&5 >first.raw
write 6
exec 6<$v/data
head -c 20000000 <&6 >second.raw
is_all second.raw 5
loop_device -r $v/data
write 7
blockdev --flushbufs "$loop"
cat "$loop" >loop.raw
is_all loop.raw 5
is_all $v/data 5
cat <&5 >>first.raw
cat <&6 >>second.raw
is_all first.raw 5
is_all second.raw 5
[ "$(stat -c %s first.raw second.raw loop.raw | sort -u)" = $((32 << 20)) ] || fail "the readers didn't see all"
exec 5<&- 6<&-
is_all $v/data 5 # the loop device has it open
must_fail 1 'busy' dd if=/dev/zero of=$v/data count=1 conv=notrunc

# Also when the other writer has gone: here it's written only when nobody reads the earlier moment.
stop_writer
stop "$serve_pid"
must_fail 1 'busy' dd if=/dev/zero of=$v/data count=1 conv=notrunc
grep -q 'open volumes/acme/data: volumes/acme/data is still open here as it was before' fuse.log || fail "the log doesn't say why"
cat "$loop" >loop.raw
is_all loop.raw 5
losetup -d "$loop" # lets go of the file in a moment
printf '\007' >seven
wait_for 10 cmp -n 1 $v/data seven
is_all $v/data 7

# When it's gone this mount may write, and the server then not.
dd if=/dev/zero of=$v/data bs=1M count=32 conv=notrunc status=none
cmp -n $((32 << 20)) $v/data /dev/zero
start_serve "$tmp/s2"
exec 5<>$v/data
printf x >&5
qemu-io -f raw -c 'write 0 512' "$(uri "$tmp/s2" volumes/acme/data)" >io.log 2>&1 && fail "NBD could write too"
grep -q "$mount_pid" "$tmp/s2.log" || fail "the server's log doesn't name the holder"
exec 5>&-
stop_mount
