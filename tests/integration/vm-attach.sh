# attach and detach with a real kernel's NBD client: file systems on a volume whose server and watcher
# are killed, and of which snapshots and backups are made, while they are written; what's refused; and
# servers that stay away.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"

cat >script <<'SH'
. /guest.sh
begin_root
cowgate create volumes/p/disk --size 1G

say "the module is loaded, and a free device found"
[ ! -e /sys/module/nbd ]
exec 9>/lock
flock 9
dev=$(cd /mnt && cowgate attach --request-timeout 15 volumes/p/disk)
exec 9>&-
flock -n /lock true
[ "$(readlink /proc/$(server volumes/p/disk)/cwd)" = / ]
[ "$dev" = /dev/nbd0 ]
must_fail 'is volumes/p/disk already' cowgate attach volumes/p/disk $dev
must_fail 'is /dev/nbd0 already' cowgate attach volumes/p/disk
must_fail 'no device' cowgate detach /dev/vda
must_fail "isn't attached" cowgate detach /dev/nbd7
must_fail 'there is no volume' cowgate attach volumes/p/none
must_fail 'has no project' cowgate attach backups/p/disk/latest
must_fail '/run/none' cowgate attach 'nbd+unix:///?socket=/run/none'
[ "$(ls /run/cowgate/attach | wc -l)" = 3 ] # of the one that is there
cowgate attach --list | grep -q "^$dev .*volumes/p/disk"
cowgate --json attach --list | grep -q '"watched": true'

log=$(ls /run/cowgate/attach/*.log)
head -c 2000000 /dev/zero >>$log
wait_for 60 eval '[ $(stat -c %s $log) -lt 100000 ]'

say "partitions, ext4 and XFS"
printf 'size=400M\nsize=500M\n' | sfdisk -q $dev
mkfs.ext4 -q ${dev}p1
mkfs.xfs -q ${dev}p2
mkdir -p /ext4 /xfs /look
mount ${dev}p1 /ext4
mount ${dev}p2 /xfs
must_fail 'mounted on /ext4' cowgate detach $dev
must_fail 'is /dev/nbd0 already' cowgate attach volumes/p/disk.p1
dd if=/dev/urandom of=/ext4/kept bs=1M count=4 2>/dev/null
(cd /ext4 && sha256sum kept) >/sums

say "fstrim gives space back"
dd if=/dev/zero bs=1M count=48 2>/dev/null | tr '\0' x >/ext4/gone
sync
before=$(du -sk /mnt/root/pool | cut -f 1)
rm /ext4/gone
sync
fstrim /ext4
after=$(du -sk /mnt/root/pool | cut -f 1)
[ $((before - after)) -gt 40000 ] || fail "$before KiB before fstrim, $after after"
umount /ext4
mount ${dev}p1 /ext4
cowgate --quiet backup volumes/p/disk

# write DIR: small files, each with its sum once it is stable, until /stop is there.
write() {
    local i=0
    while [ ! -e /stop ]; do
        i=$((i + 1))
        dd if=/dev/urandom of=$1/$i bs=16k count=$((i % 8 + 1)) conv=fsync 2>/dev/null || exit 1
        (cd $1 && sha256sum $i) >>/sums$1
    done
}
check() { # DIR SUMS ...
    (cd $1 && cat "${@:2}" | sha256sum -c) >/checked || { grep -v ': OK' /checked; false; }
}
goes_on() { # [DIR ...]: each gets 3 files more
    local dir want=true
    for dir in ${*:-/ext4 /xfs}; do
        want+=" && [ \$(wc -l </sums$dir) -ge $(($(wc -l </sums$dir) + 3)) ]"
    done
    wait_for 300 eval "$want"
}
mv /sums /sum
mkdir /sums
touch /sums/ext4 /sums/xfs
write /ext4 & write1=$!
write /xfs & write2=$!
goes_on

say "the server is killed"
old=$(server volumes/p/disk)
kill -9 $old
goes_on
[ "$(server volumes/p/disk)" != $old ]

say "the server ends, and another takes its place"
old=$(server volumes/p/disk)
kill $old
goes_on
[ "$(server volumes/p/disk)" != $old ]

say "the server hangs"
old=$(server volumes/p/disk)
kill -STOP $old
goes_on
[ "$(server volumes/p/disk)" != $old ] && ! kill -0 $old 2>/dev/null

say "the watcher and the server are killed"
kill -9 $(watcher $dev)
kill -9 $(server volumes/p/disk)
cowgate attach --list | grep -q 'not watched'
[ "$(cowgate attach volumes/p/disk $dev)" = $dev ]
goes_on
kill -9 $(server volumes/p/disk)
goes_on

say "a snapshot while it writes, and its clone"
cp /sums/ext4 /sums/ext4.before
cowgate snapshot volumes/p/disk@live
cowgate clone volumes/p/disk@live volumes/p/look
look=$(cowgate attach volumes/p/look)
mount ${look}p1 /look
check /look /sum /sums/ext4.before
umount /look
cowgate detach $look
[ -z "$(server volumes/p/look)" ]

say "a file out of a backup"
look=$(cowgate attach backups/p/disk/latest) # which is read-only by itself
[ "$(cat /sys/block/${look#/dev/}/ro)" = 1 ]
must_fail 'dd: ' dd if=/dev/zero of=$look bs=4k count=1 conv=fsync
mount -o ro,noload ${look}p1 /look
cp /look/kept /recovered
umount /look
cowgate detach $look
[ "$(sha256sum </recovered)" = "$(sha256sum </ext4/kept)" ]

say "nothing is lost"
touch /stop
wait $write1 $write2
wc -l /sums/*
umount /ext4 /xfs
kill -9 $(watcher $dev) # detach does without
cowgate detach $dev
[ -z "$(server volumes/p/disk)" ]
[ -z "$(ls /run/cowgate/attach)" ]

say "by a server that runs already"
serve() {
    cowgate --quiet serve volumes/p/disk --socket /run/s 2>>/serve.log &
    serve=$!
    wait_for 60 test -S /run/s
}
serve
cowgate --json attach --connections 2 --request-timeout 15 'nbd+unix:///?socket=/run/s' /dev/nbd5 >/json
grep -q '"device": "/dev/nbd5"' /json && grep -q '"connections": 2' /json
dev=/dev/nbd5
e2fsck -fn ${dev}p1
xfs_repair -n ${dev}p2 >/xfs.log 2>&1 || { cat /xfs.log; false; }
mount ${dev}p1 /ext4
mount ${dev}p2 /xfs
check /ext4 /sum /sums/ext4
check /xfs /sums/xfs

say "another takes its place while it's written"
rm /stop /xfs/*
: >/sums/xfs
write /xfs & write2=$!
goes_on /xfs
must_fail 'is being written by process' cowgate attach volumes/p/disk
look=$(cowgate attach --read-only volumes/p/disk)
[ "$(cat /sys/block/${look#/dev/}/ro)" = 1 ]
cowgate detach $look
kill $serve
wait $serve
serve
goes_on /xfs
touch /stop
wait $write2
umount /ext4 /xfs
mount ${dev}p2 /xfs
check /xfs /sums/xfs
umount /xfs
cowgate detach $dev
kill $serve
wait $serve
if dmesg | grep 'I/O error'; then fail "somebody saw an error"; fi

say "in the foreground, until SIGTERM"
dd if=/dev/urandom of=/blob bs=1M count=4 2>/dev/null
cowgate attach --foreground volumes/p/look >/out 2>/err & watch=$!
wait_for 60 grep -q . /out
dev=$(cat /out)
exec 9<$dev
must_fail "process $$ (bash) has it open" cowgate detach $dev
exec 9<&-
mount ${dev}p1 /look
kill $watch
wait_for 60 grep -q 'in use: .*mounted on /look' /err
kill -0 $watch
check /look /sum
umount /look
dd if=/blob of=$dev bs=1M seek=960 2>/dev/null # and no fsync
kill $watch
wait $watch
[ ! -e /sys/block/${dev#/dev/}/pid ] && [ -z "$(server volumes/p/look)" ]
[ -z "$(ls /run/cowgate/attach)" ]
dev=$(cowgate attach --timeout 3 --request-timeout 15 volumes/p/look)
dd if=$dev bs=1M skip=960 count=4 2>/dev/null | cmp - /blob

say "the server stays away for longer than --timeout"
read_at() { dd if=$dev of=/dev/null bs=4k skip=$1 count=1; } # what wasn't read before
go_away() {
    mv /mnt/root /mnt/away
    kill -9 $(server volumes/p/look)
}
go_away
must_fail 'Input/output error' read_at 100000
must_fail 'stays attached' cowgate detach $dev
mv /mnt/away /mnt/root
wait_for 120 read_at 100000
kill -9 $(server volumes/p/look)
wait_for 120 read_at 110000

say "a larger size is seen when a server is connected to again"
cowgate resize volumes/p/look 2G
[ "$(blockdev --getsize64 $dev)" = $((1 << 30)) ]
kill $(server volumes/p/look)
wait_for 120 eval '[ "$(blockdev --getsize64 $dev)" = $((2 << 30)) ]'
read_at 500000
mkswap $dev >/dev/null
swapon $dev
must_fail 'is swap space' cowgate detach $dev
swapoff $dev

say "by force, when the server doesn't come back"
go_away
must_fail 'stays attached' cowgate detach $dev
cowgate detach --force $dev
[ ! -e /sys/block/${dev#/dev/}/pid ] && [ -z "$(server volumes/p/look)" ]
[ -z "$(ls /run/cowgate/attach)" ]
mv /mnt/away /mnt/root

say "the watcher is told to end when the server has died"
dev=$(cowgate attach volumes/p/look)
watcher=$(watcher $dev)
kill -STOP $watcher
kill -9 $(server volumes/p/look)
kill -TERM $watcher
kill -CONT $watcher
wait_for 100 test ! -e /sys/block/${dev#/dev/}/pid
wait_for 100 eval '! kill -0 $watcher'
[ -z "$(server volumes/p/look)" ]
[ -z "$(ls /run/cowgate/attach)" ]

say "a volume that has become smaller while nobody watched"
cowgate create volumes/p/small --size 16M
cowgate snapshot volumes/p/small@16
cowgate resize volumes/p/small 32M
dev=$(cowgate attach volumes/p/small)
kill -9 $(watcher $dev)
kill -9 $(server volumes/p/small)
must_fail 'is /dev/nbd' cowgate rollback volumes/p/small@16
mv /run/cowgate/attach /run/kept # as nobody could do it else
cowgate rollback volumes/p/small@16
mv /run/kept /run/cowgate/attach
must_fail 'fewer than /dev/nbd' cowgate attach volumes/p/small $dev
[ "$(cat /sys/block/${dev#/dev/}/size)" = 65536 ]
cowgate resize volumes/p/small 32M
[ "$(cowgate attach volumes/p/small $dev)" = $dev ]
cowgate detach $dev

say "by force, when there's nobody left"
dev=$(cowgate attach volumes/p/look)
kill -9 $(watcher $dev)
kill -9 $(server volumes/p/look)
cowgate detach --force $dev
[ ! -e /sys/block/${dev#/dev/}/pid ]
[ -z "$(ls /run/cowgate/attach)" ]
cowgate --json info volumes/p/look >/dev/null
SH
truncate -s 3G disk.raw
vm_modules+=(virtio_blk ext4 xfs)
vm_later=(nbd)
vm_programs+=(flock e2fsck mkfs.xfs xfs_repair sfdisk pgrep)
vm_cowgate
vm_seconds=1200 vm_run script -drive file=disk.raw,format=raw,if=virtio,cache=unsafe
