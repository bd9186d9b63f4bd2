# DRBD devices, as LINSTOR and Ganeti make them, of a real drbd.ko: what is imported from one is what
# was in it; what is exported and restored to one is that and nothing else, and stays thin below.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"
requires type -P drbdmeta
requires test -x /lib/drbd/drbdsetup-84

cat >script <<'SH'
. /guest.sh
mkdir -p /run/lock /var/lib/drbd /files
ln -s ../run/lock /var/lock
begin_root

# drbd MINOR DISK: one whose peer isn't there.
drbd() {
    drbdmeta --force "$1" v08 "$2" internal create-md >/drbdmeta.log 2>&1 || { cat /drbdmeta.log; return 1; }
    /lib/drbd/drbdsetup-84 new-resource "r$1"
    /lib/drbd/drbdsetup-84 new-minor "r$1" "$1" 0
    /lib/drbd/drbdsetup-84 attach "$1" "$2" "$2" internal
    /lib/drbd/drbdsetup-84 primary --force "$1"
    [ -b "/dev/drbd$1" ] || mknod "/dev/drbd$1" b 147 "$1"
}

say "two devices"
modprobe drbd
drbd 1003 /dev/vdb
drbd 1004 /dev/vdc
mkfs.ext4 -q /dev/drbd1003
mount /dev/drbd1003 /files
dd if=/dev/urandom of=/files/a bs=1M count=8 2>/dev/null
(cd /files && sha256sum a) >/sums
umount /files

say "imported, and cloned"
cowgate --quiet import /dev/drbd1003 volumes/p/home
used=$(du -sk /mnt/root/pool | cut -f 1)
[ $used -lt 32768 ] || fail "$used KiB for 8 MiB of files"
cowgate --quiet export volumes/p/home - | cmp - /dev/drbd1003
cowgate clone /dev/drbd1003 volumes/p/clone
cowgate --quiet export volumes/p/clone - | cmp - /dev/drbd1003

say "exported to another, of what was there before nothing is left"
dd if=/dev/urandom of=/dev/drbd1004 bs=1M seek=48 count=4 conv=fsync 2>/dev/null
cowgate --quiet export volumes/p/home /dev/drbd1004
cmp /dev/drbd1003 /dev/drbd1004
mount -o ro,noload /dev/drbd1004 /files
(cd /files && sha256sum -c /sums)
umount /files

say "restored to it"
point=$(cowgate --quiet backup volumes/p/home)
dd if=/dev/urandom of=/dev/drbd1004 bs=1M seek=20 count=4 conv=fsync 2>/dev/null
cowgate --quiet restore "$point" /dev/drbd1004
cmp /dev/drbd1003 /dev/drbd1004
sync
SH
truncate -s 1G disk.raw
truncate -s 97M from.raw to.raw
vm_modules+=(virtio_blk ext4)
vm_later=(drbd)
vm_programs+=(drbdmeta /lib/drbd/drbdsetup-84)
vm_cowgate
vm_run script -drive file=disk.raw,format=raw,if=virtio,cache=unsafe \
    -drive file=from.raw,format=raw,if=virtio,cache=unsafe,discard=unmap \
    -drive file=to.raw,format=raw,if=virtio,cache=unsafe,discard=unmap

# The target was written where the source has data, and where it had other data itself.
used=$(($(stat -c %b to.raw) / 2048))
[ "$used" -lt 40 ] || fail "$used MiB of the target are allocated"
