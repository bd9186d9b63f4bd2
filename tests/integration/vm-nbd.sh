# nbd-client and a real kernel over the gateway's NBD server, over TCP and four connections: a file
# system made in a virtual machine is whole, and what was trimmed in it is free here.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"

cowgate init
cowgate create volumes/p/disk --size 256M
port=$((10000 + $$ % 20000))
cowgate serve --listen "127.0.0.1:$port" >serve.log 2>&1 &
cleanup_fn stop $!
wait_for 30 grep -q "^serving on" serve.log

cat >script <<SH
set -euxo pipefail
nbd-client -N volumes/p/disk -connections 4 10.0.2.2 $port /dev/nbd0
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 /mnt
head -c 4m /dev/urandom >/mnt/kept
head -c 24m /dev/urandom >/mnt/gone
(cd /mnt && sha256sum kept) >/host/sums
sync
rm /mnt/gone
sync
fstrim /mnt
umount /mnt
nbd-client -d /dev/nbd0
SH
vm_modules+=(nbd ext4)
vm_programs+=(nbd-client mkfs.ext4 fstrim)
vm_run script

cowgate export volumes/p/disk ./disk.raw
e2fsck -fn disk.raw
debugfs -R 'dump kept kept' disk.raw
sha256sum -c host/sums
used=$(du -sk --exclude=.spare "$COWGATE_ROOT/pool" | cut -f 1)
[ "$used" -lt $((16 << 10)) ] || fail "$used KiB are used by 4 MiB of data"
