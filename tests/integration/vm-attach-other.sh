# A device of the kernel's NBD client whose server and watcher died never gets to show another image:
# one that was made by the same name, a partition that moved; and what is attached isn't rolled back,
# restored or deleted.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"

cat >script <<'SH'
. /guest.sh
everything_dies() {
    kill -9 $(watcher /dev/nbd0)
    kill -9 $(server $1)
}
replaced() {
    cowgate rename volumes/p/web volumes/p/old
    cowgate --quiet import /dev/vdb volumes/p/web
}
# unwritten VOLUME: nothing of what is on its way to the device was written to the other volume.
unwritten() {
    wait_for 60 eval "[ -z \"\$(server volumes/p/web)\" ]"
    cowgate --quiet export $1 - | cmp - /dev/vdb
}

begin_root
mkdir /other /ext4
mount --bind /mnt/root /other
cowgate create volumes/p/web --size 32M
cowgate snapshot volumes/p/web@empty
point=$(cowgate --quiet backup volumes/p/web)

say "what is attached stays as it is"
dev=$(cowgate attach volumes/p/web)
[ $dev = /dev/nbd0 ]
mkfs.ext4 -q $dev
mount $dev /ext4
echo kept >/ext4/kept
sync
everything_dies volumes/p/web
must_fail 'is /dev/nbd0: detach that first' cowgate rollback volumes/p/web@empty
must_fail 'is /dev/nbd0: detach that first' cowgate restore $point volumes/p/web
must_fail 'is /dev/nbd0: detach that first' cowgate delete --snapshots volumes/p/web
cowgate delete volumes/p/web@empty

say "another volume of the name isn't taken for it"
replaced
{ echo more >/ext4/more && sync; } & # which waits
must_fail 'is another image.*detach --force /dev/nbd0' cowgate attach volumes/p/web $dev
must_fail 'stays attached.*is another image' cowgate detach $dev
unwritten volumes/p/web

say "the volume itself is, when it's back"
cowgate delete volumes/p/web
cowgate rename volumes/p/old volumes/p/web
[ "$(cowgate attach volumes/p/web $dev)" = $dev ]
wait
[ "$(cat /ext4/more)" = more ]

say "nor does the watcher take it for that"
watcher=$(watcher /dev/nbd0)
kill -STOP $watcher
kill -9 $(server volumes/p/web)
replaced
{ echo third >/ext4/third && sync; } &
kill -CONT $watcher
wait_for 100 grep -q 'is another image' /run/cowgate/attach/*.log
wait_for 60 cowgate rename volumes/p/web volumes/p/other
unwritten volumes/p/other
cowgate rename volumes/p/old volumes/p/web
wait
[ "$(cat /ext4/third)" = third ]
umount /ext4
cowgate detach $dev

say "a partition that moved"
partitions() { printf "size=$1\nsize=8M\n" | sfdisk -q $dev; }
dev=$(cowgate attach volumes/p/other)
partitions 8M
cowgate detach $dev
dev=$(cowgate attach volumes/p/other.p2)
everything_dies volumes/p/other.p2
must_fail 'is /dev/nbd0 already' cowgate attach volumes/p/other
dev=$(COWGATE_ROOT=/other cowgate attach volumes/p/other)
partitions 4M
cowgate detach $dev
must_fail 'is another image' cowgate attach volumes/p/other.p2 /dev/nbd0
cowgate detach --force /dev/nbd0
dev=$(cowgate attach volumes/p/other.p2)
cowgate detach $dev
[ -z "$(ls /run/cowgate/attach)" ]
SH
truncate -s 512M disk.raw
head -c 32M /dev/urandom >other.raw
vm_modules+=(virtio_blk ext4)
vm_later=(nbd)
vm_programs+=(sfdisk pgrep)
vm_cowgate
vm_run script -drive file=disk.raw,format=raw,if=virtio,cache=unsafe -drive file=other.raw,format=raw,if=virtio,cache=unsafe
