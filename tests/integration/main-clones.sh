# Clones of a sparse volume of 1 TiB, of a point, of a file and of another server's export: written by
# qemu-io and by fio over 4 connections, and through FUSE; the parent doesn't change; parents and
# children go in either order.
. "$abs_srcdir/tests/functions.sh"
requires test -c /dev/fuse

cowgate init
cowgate create volumes/acme/big --size 1T
start_serve "$tmp/s"
for at in 0 100G 777G 1048572M; do
    qemu-io -f raw -c "write -P 0x11 $at 4M" -c flush "$(uri "$tmp/s" volumes/acme/big)" >/dev/null
done
dd if=/dev/urandom of=file.raw bs=1M count=32 status=none
truncate -s 256M file.raw
cp file.raw remote.raw
nbdkit --unix "$tmp/remote" --foreground file remote.raw &
cleanup_fn stop $!
wait_for 10 nbdinfo "nbd+unix:///?socket=$tmp/remote"
cowgate --quiet import ./file.raw volumes/acme/backed
cowgate --quiet backup volumes/acme/backed >/dev/null

cowgate clone volumes/acme/big volumes/acme/c-volume
cowgate clone backups/acme/backed/latest volumes/acme/c-point
cowgate clone ./file.raw volumes/acme/c-file
cowgate clone "nbd+unix:///?socket=$tmp/remote" volumes/acme/c-nbd
cowgate clone volumes/acme/c-file volumes/acme/c-c-file
kinds="c-volume c-point c-file c-nbd" # all four, and a clone of a clone

mkdir mnt
cowgate mount mnt
cleanup_fn sh -c "cowgate umount $tmp/mnt 2>/dev/null"

# The clone of 1 TiB reads as its parent, takes writes anywhere, and the parent stays.
q() { qemu-io -f raw "$@" >qemu-io.log || fail "qemu-io: $(cat qemu-io.log)"; ! grep -q 'verification failed' qemu-io.log || fail "$(cat qemu-io.log)"; }
q -c 'read -P 0x11 777G 4M' -c 'write -P 0x22 778G 1M' -c 'write -P 0x33 777G 5K' \
    -c 'read -P 0x11 834297402368 3000' -c flush "$(uri "$tmp/s" volumes/acme/c-volume)"
q -c 'read -P 0x33 777G 5K' -c 'read -P 0x22 778G 1M' -c 'read -P 0x11 1048572M 4M' "$(uri "$tmp/s" volumes/acme/c-volume)"
q -c 'read -P 0x11 777G 4M' -c 'read -P 0 778G 1M' "$(uri "$tmp/s" volumes/acme/big)"

# fio with verification over 4 connections, and through FUSE.
fio_nbd() {
    fio --name=verify --ioengine=nbd --uri="$(uri "$tmp/s" "$1")" --rw=randwrite --bsrange=512-64k \
        --bs_unaligned=0 --blockalign=512 --size=32M --io_size=16M --numjobs=4 --offset_increment=32M --iodepth=8 \
        --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed="$RANDOM" --group_reporting --minimal >fio.log 2>&1 ||
        fail "fio on $1: $(cat fio.log)"
}
fio_file() {
    fio --name=verify --ioengine=psync --filename="$1" --rw=randwrite --bsrange=512-64k --blockalign=512 --size=32M \
        --io_size=8M --numjobs=2 --offset=64M --offset_increment=32M --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64 \
        --allow_file_create=0 --group_reporting --minimal >fio.log 2>&1 || fail "fio on $1: $(cat fio.log)"
}
for clone in $kinds c-c-file; do
    q -c 'write -P 0x44 1M 100K' -c 'write -z 2M 1M' -c 'discard 3M 1M' -c flush \
        -c 'read -P 0x44 1M 100K' -c 'read -P 0 2M 2M' "$(uri "$tmp/s" volumes/acme/$clone)"
done
for clone in $kinds c-c-file; do fio_nbd volumes/acme/$clone; done
stop "$serve_pid" # its writers end
for clone in $kinds c-c-file; do fio_file mnt/volumes/acme/$clone; done
cowgate umount mnt

# Parents have not changed.
same file.raw remote.raw
cowgate --quiet export volumes/acme/backed ./backed.raw
same file.raw backed.raw
cowgate --quiet export backups/acme/backed/latest ./point.raw
same file.raw point.raw

# A held point stays until the last clone lets go of it; parents and children go in any order.
stop "$serve_pid"
cowgate --quiet export volumes/acme/c-c-file ./before.raw
cowgate delete volumes/acme/c-file
cowgate --quiet export volumes/acme/c-c-file ./after.raw
same before.raw after.raw
cowgate delete volumes/acme/big
cowgate info volumes/acme/c-volume >/dev/null
start_serve "$tmp/s2"
q -c 'read -P 0x11 100G 4M' -c 'read -P 0x22 778G 1M' "$(uri "$tmp/s2" volumes/acme/c-volume)"
stop "$serve_pid"
cowgate delete volumes/acme/c-volume

# Both were written since the one was cloned from the other; what is left is as if nothing happened.
for first in parent child; do
    cowgate clone volumes/acme/backed volumes/acme/parent
    cowgate clone volumes/acme/parent volumes/acme/child
    start_serve "$tmp/s-$first"
    cp file.raw left.raw
    for side in parent child; do
        writes=(-c "write -P 0x5${#side} 1M 3M" -c 'discard 8M 2M' -c "write -P 0x6${#side} $((9 + ${#first}))M 5000" -c flush)
        q "${writes[@]}" "$(uri "$tmp/s-$first" volumes/acme/$side)"
        [ $side = $first ] || q "${writes[@]}" left.raw
    done
    stop "$serve_pid"
    cowgate delete volumes/acme/$first
    [ $first = parent ] && left=child || left=parent
    cowgate --quiet export volumes/acme/$left ./left2.raw --force
    same left.raw left2.raw
    cowgate delete volumes/acme/$left
done
cowgate --quiet export volumes/acme/backed ./backed2.raw
same file.raw backed2.raw
cowgate --quiet export volumes/acme/c-point ./c-point.raw
cowgate --quiet flatten volumes/acme/c-point
cowgate --quiet export volumes/acme/c-point ./c-point2.raw
same c-point.raw c-point2.raw
[ -z "$(ls root/repo/acme/holds)" ] || fail "a flattened clone still holds its point"
for v in c-point c-nbd c-c-file backed; do cowgate delete volumes/acme/$v; done

# Held points are released also if they can't be read any more; if their repository is away, later.
cowgate --quiet import ./file.raw volumes/acme/web
for i in 1 2; do point=$(cowgate --quiet backup volumes/acme/web backups/acme/held); done
for v in c d; do cowgate clone "$point" volumes/acme/$v; done
cowgate clone "$point.qcow2" volumes/acme/h
mv root/repo away
must_fail 1 'could not be deleted whole.*release' cowgate delete volumes/acme/c
mv away root/repo
sed -i 's/"sequence": [0-9]*/"sequence": 9/' root/repo/acme/points/held/*
must_fail 1 'MAC' cowgate info "$point"
must_fail 1 'is held' cowgate delete "$point"
for v in d h web; do cowgate delete volumes/acme/$v; done
[ -z "$(ls root/repo/acme/holds)" ] || fail "a deleted clone still holds its point"
cowgate delete "$point"
[ "$(cowgate --json list volumes)" = '[]' ] || fail "something is left: $(cowgate list volumes)"
