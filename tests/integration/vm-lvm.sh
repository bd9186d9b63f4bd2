# A thin logical volume of LVM, of a real device mapper: what is imported from it is what was in it,
# what is exported to one leaves it thin; and a volume group on an attached volume.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"
requires type -P lvm thin_check

cat >script <<'SH'
. /guest.sh
mkdir -p /etc/lvm /run/lock /thin /imported
# There is no udev here.
cat >/etc/lvm/lvm.conf <<'CONF'
activation { udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=1 }
devices { obtain_device_list_from_udev=0 global_filter=["a|.*|"] types=["nbd",16] }
CONF
lvm() { command lvm "$@" 2>/lvm.log || { cat /lvm.log >&2; return 1; }; }
begin_root

say "a thin volume"
lvm pvcreate -qq -y /dev/vdb
lvm vgcreate -qq vg0 /dev/vdb
lvm lvcreate -qq -y --type thin-pool -L 128M -n pool vg0
for name in home back; do lvm lvcreate -qq -y -V 96M --thinpool vg0/pool -n $name; done
mkfs.ext4 -q /dev/vg0/home
mount /dev/vg0/home /thin
dd if=/dev/urandom of=/thin/a bs=1M count=8 2>/dev/null
(cd /thin && sha256sum a) >/sums
umount /thin

say "imported, and attached"
cowgate --quiet import /dev/vg0/home volumes/p/home
used=$(du -sk /mnt/root/pool | cut -f 1)
[ $used -lt 32768 ] || fail "$used KiB for 8 MiB of files"
dev=$(cowgate attach volumes/p/home)
cmp /dev/vg0/home $dev
mount -o ro,noload $dev /imported
(cd /imported && sha256sum -c /sums)
umount /imported
cowgate detach $dev

say "exported to another, which stays thin"
cowgate --quiet export volumes/p/home /dev/vg0/back
cmp /dev/vg0/home /dev/vg0/back
percent=$(lvm lvs --noheadings -o data_percent vg0/back | tr -d ' ')
[ "${percent%.*}" -lt 50 ] || fail "$percent % of the target are allocated"

say "a volume group on a volume"
cowgate create volumes/p/disk --size 256M
dev=$(cowgate attach volumes/p/disk)
lvm pvcreate -qq -y $dev
lvm vgcreate -qq vg1 $dev
lvm lvcreate -qq -y -L 64M -n data vg1
out=$(cowgate detach $dev 2>&1) && fail "detached under a volume group"
grep -q 'the device vg1-data stands on it' <<<"$out" || fail "$out"
lvm vgchange -qq -an vg1
cowgate detach $dev
SH
truncate -s 1G disk.raw
truncate -s 512M lvm.raw
vm_modules+=(virtio_blk ext4 dm_thin_pool)
vm_later=(nbd)
vm_programs+=(lvm thin_check)
vm_cowgate
vm_run script -drive file=disk.raw,format=raw,if=virtio,cache=unsafe \
    -drive file=lvm.raw,format=raw,if=virtio,cache=unsafe
