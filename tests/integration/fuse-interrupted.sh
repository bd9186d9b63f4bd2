# Programs that are killed in the midst of reading and writing hold nobody up and break nothing, and
# who has a file open when its mount is taken away goes on with it.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

cowgate init
cowgate create volumes/acme/web --size 64M
head -c 64M /dev/urandom >disk.raw
cowgate --quiet import ./disk.raw volumes/acme/disk
cowgate --quiet backup volumes/acme/disk >/dev/null

start_mount
for i in {1..40}; do
    # timeout's children, since a shell that is killed before it becomes a program runs our cleanups
    end="timeout --signal $((i % 2 ? 9 : 15)) 0.0$((i % 10))1"
    $end dd if=mnt/backups/acme/disk/latest of=/dev/null bs=4M iflag=nocache status=none 2>/dev/null &
    reader=$!
    $end dd if=disk.raw of=mnt/volumes/acme/web bs=1M conv=notrunc,fsync status=none 2>/dev/null &
    writer=$!
    $end ls -lR mnt >/dev/null 2>&1 || true
    { wait $reader $writer || true; } 2>/dev/null
done
dd if=disk.raw of=mnt/volumes/acme/web bs=1M conv=notrunc status=none
cmp mnt/volumes/acme/web disk.raw
cmp mnt/backups/acme/disk/latest disk.raw

# Unmounted lazily: who has a file open goes on with it, and with the last of them the daemon ends well.
exec 5<>mnt/volumes/acme/web
umount -l mnt
[ -z "$(ls mnt)" ] || fail "still mounted"
printf 'behind the mount' >&5
kill -0 "$mount_pid" || fail "the daemon has ended"
exec 5>&-
wait "$mount_pid" || fail "the daemon ended with $?"
cowgate --quiet export volumes/acme/web ./web.raw
[ "$(head -c 16 web.raw)" = 'behind the mount' ] || fail "lost"
[ ! -s fuse.log ] || fail "it complained"
[ -z "$(ls "$COWGATE_RUN" | grep mount-)" ] || fail "the lock is left"
