# Mounting and unmounting: when they return, what they refuse, and what becomes of a dead mount.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"
cleanup_fn umount -lq "$tmp/mnt"

cowgate init
cowgate create volumes/acme/web --size 64M
mkdir mnt

# Clear errors, status 1, nothing mounted.
must_fail 1 'no root at' cowgate-fuse "$tmp/none" mnt
must_fail 1 'is not a root' cowgate-fuse "$tmp/mnt" mnt
must_fail 1 'No such file' cowgate-fuse "$COWGATE_ROOT" "$tmp/none"
touch file
must_fail 1 'Not a directory' cowgate-fuse "$COWGATE_ROOT" file
must_fail 1 'unknown option.*nonsense' cowgate-fuse "$COWGATE_ROOT" mnt -o nonsense
must_fail 1 'Usage' cowgate-fuse
must_fail 1 'ROOT and DIR are needed' cowgate-fuse "$COWGATE_ROOT"
must_fail 1 "too many: 'third'" cowgate-fuse "$COWGATE_ROOT" mnt third
must_fail 1 'not the name of a project' cowgate-fuse "$COWGATE_ROOT" mnt -o project=../x
mountpoint -q mnt && fail "mounted after all"
cowgate-fuse --help | grep -q '^Usage'
cowgate-fuse --version | grep -q '^cowgate-fuse '

# Usable when it returns; not twice.
cowgate-fuse "$COWGATE_ROOT" mnt -o rw,nofail,_netdev,noauto,user,x-systemd.automount,allow_other,default_permissions
[ -f mnt/volumes/acme/web ] || fail "not usable"
grep "$tmp/mnt" /proc/self/mountinfo | grep -q -- "- fuse.cowgate-fuse $COWGATE_ROOT rw" || fail "$(grep mnt /proc/self/mountinfo)"
must_fail 1 'mounted already' cowgate-fuse "$COWGATE_ROOT" mnt

# Unmounting is refused while a file is open, waits until all is flushed, and the lock is gone.
head -c $((64 << 20)) /dev/zero | tr '\0' x >pattern
dd if=pattern of=mnt/volumes/acme/web bs=1M conv=notrunc status=none
exec 5<mnt/volumes/acme/web
must_fail 1 'busy' cowgate umount mnt
exec 5<&-
cowgate umount mnt
[ -z "$(ls mnt)" ] || fail "still mounted"
[ -z "$(ls "$COWGATE_RUN" | grep mount-)" ] || fail "the lock is left"
cowgate --quiet export volumes/acme/web - | cmp - pattern
must_fail 1 'nothing of cowgate' cowgate umount mnt

# As mount(8) does it for fstab (but that it looks for the program where programs are installed).
mount.fuse3 "$COWGATE_ROOT" "$tmp/mnt" -t fuse.cowgate-fuse -o ro,nofail,x-systemd.device-timeout=1,project=acme
[ "$(ls mnt/volumes)" = acme ] || fail "mount(8)"
must_fail 1 'Read-only' touch mnt/volumes/acme/new
umount mnt

# SIGTERM unmounts and ends well, with what an open file was given.
start_mount
exec 5<>mnt/volumes/acme/web
printf 'before the end' >&5
kill "$mount_pid"
wait "$mount_pid" || fail "SIGTERM: status $?"
exec 5>&-
mountpoint -q mnt && fail "still mounted"
cowgate --quiet export volumes/acme/web ./web.raw
[ "$(head -c 14 web.raw)" = 'before the end' ] || fail "lost"

# A dead mount is replaced, whoever is still in it.
start_mount
exec 5<mnt/volumes/acme/web
kill -9 "$mount_pid"
wait "$mount_pid" 2>/dev/null || true
must_fail 2 'not connected' ls mnt
cowgate mount mnt --read-only
[ -f mnt/volumes/acme/web ] || fail "not usable"
exec 5<&-
cowgate umount mnt
start_mount
kill -9 "$mount_pid"
wait "$mount_pid" 2>/dev/null || true
cowgate umount mnt
mountpoint -q mnt && fail "the dead mount is left"
true
