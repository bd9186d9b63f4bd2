# File systems on a volume through a loop device on its file: made, filled, checked; what they discard
# gives space back; and a file out of the latest backup by a loop mount.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"
requires mkfs.ext4 -V
requires mkfs.xfs -V

cowgate init
cowgate create volumes/acme/ext4 --size 400M
cowgate create volumes/acme/xfs --size 400M
start_mount
mkdir fs

check_ext4() { e2fsck -fn "$1" >check.log 2>&1 || fail "e2fsck: $(cat check.log)"; }
check_xfs() { xfs_repair -n "$1" >check.log 2>&1 || fail "xfs_repair: $(cat check.log)"; }
# The file system discards by and by, when what it freed is on disk.
shrunk() { sync -f fs && [ "$(data_kib "$1")" -lt "$2" ]; }
trimmed() { sync -f fs && fstrim fs && shrunk "$@"; }
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

sums /usr/include >sums
for kind in ext4 xfs; do
    file=mnt/volumes/acme/$kind
    loop_device "$file"
    mkfs.$kind -q "$loop"
    mount "$loop" fs
    cp -r /usr/include fs/
    dd if=/dev/urandom of=fs/noise bs=1M count=60 status=none
    umount fs
    losetup -d "$loop"
    check_$kind "$file"
    full=$(data_kib "volumes/acme/$kind")
    [ "$full" -gt 61440 ] || fail "$kind: the volume has only $full KiB"

    # Another daemon, thus another cache.
    stop_mount
    start_mount
    loop_device "$file"
    mount "$loop" fs
    sums fs/include >sums.now
    diff sums sums.now || fail "$kind: other contents after remounting"
    rm fs/noise
    # XFS frees what was removed in the background: fstrim finds it a little later.
    wait_for 60 trimmed "volumes/acme/$kind" $((full - 55000))
    sums fs/include >sums.now
    diff sums sums.now || fail "$kind: other contents after fstrim"
    umount fs
    check_$kind "$loop"

    # The mount's own discard, direct I/O below.
    losetup -d "$loop"
    loop_device --direct-io=on "$file"
    mount -o discard "$loop" fs
    dd if=/dev/urandom of=fs/noise bs=1M count=60 oflag=direct status=none
    sync -f fs
    full=$(data_kib "volumes/acme/$kind")
    rm fs/noise
    wait_for 60 shrunk "volumes/acme/$kind" $((full - 55000))
    umount fs
    losetup -d "$loop"
    check_$kind "$file"
done

# The backup of one, looked into.
cowgate --quiet backup volumes/acme/ext4 >/dev/null
cowgate --quiet backup volumes/acme/xfs >/dev/null
mount -o ro,loop,noload mnt/backups/acme/ext4/latest fs
cleanup_fn umount -lq "$tmp/fs"
sums fs/include >sums.now
umount fs
diff sums sums.now || fail "other contents in the backup"
mount -o ro,loop,norecovery mnt/backups/acme/xfs/latest fs
sums fs/include >sums.now
umount fs
diff sums sums.now || fail "other contents in the backup"
stop_mount
