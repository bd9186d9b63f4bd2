#!/bin/bash
# Many clients on one volume, by NBD over 8 connections and by files: some write and verify what is
# their own, others write and trim the same blocks; meanwhile the volume gets snapshots, clones, more
# room, and becomes independent of what it stood on.  No client sees an error or another's bytes.
. "$abs_srcdir/tests/functions.sh"
requires test -c /dev/fuse

cowgate init
dd if=/dev/urandom of=parent.raw bs=1M count=48 status=none
cat >clients.fio <<'FIO'
[global]
iodepth=8
allow_file_create=0
loops=2
fsync=32
[own]
numjobs=4
rw=randwrite
bsrange=512-64k
size=6m
offset_increment=6m
verify=crc32c
verify_fatal=1
[same]
numjobs=2
rw=randrw
bsrange=512-64k
offset=24m
size=8m
[trim]
numjobs=2
rw=randtrim
bs=4k
offset=24m
size=8m
FIO

clients() {
    until [ -e stop ]; do
        fio "$@" --randseed="$RANDOM" --output=fio.log clients.fio || return 1
    done
}

# load VOLUME FIO-OPTIONS ...: while the clients use it, what changes the volume's structure.
load() {
    local volume=$1 size=$((64 << 20)) i clients_pid flatten_pid
    shift
    cowgate clone ./parent.raw "$volume"
    cowgate resize "$volume" $size
    rm -f stop
    clients "$@" &
    clients_pid=$!
    cleanup_fn stop "$clients_pid"
    cowgate --quiet flatten "$volume" &
    flatten_pid=$!
    cleanup_fn stop "$flatten_pid"
    for i in 1 2 3 4; do
        size=$((size + (1 << 20)))
        cowgate snapshot "$volume@s$i"
        cowgate resize "$volume" $size
        cowgate clone "$volume@s$i" "$volume-$i"
        cowgate clone "$volume" "$volume-now-$i"
        cowgate --json info "$volume" >/dev/null
        cowgate --quiet export --force "$volume@s$i" ./a
        cowgate --quiet export --force "$volume-$i" ./b
        same a b
        [ $i = 1 ] || cowgate delete "$volume@s$((i - 1))"
        cowgate delete "$volume-$i"
        cowgate delete "$volume-now-$i"
    done
    wait "$flatten_pid" || fail "flatten failed"
    touch stop
    wait "$clients_pid" || fail "a client failed: $(cat fio.log)"
}

start_serve "$tmp/s" --threads 8
load volumes/acme/nbd --ioengine=nbd --uri="$(uri "$tmp/s" volumes/acme/nbd)"
stop "$serve_pid"

mkdir mnt
cowgate mount mnt
cleanup_fn sh -c "cowgate umount $tmp/mnt 2>/dev/null"
trims() { # fio trims only devices
    until [ -e done ]; do
        [ ! -e mnt/volumes/acme/file ] || fallocate --punch-hole \
            --offset $((24576 + RANDOM % 8192))K --length 40K mnt/volumes/acme/file || return 1
    done
}
trims &
trims_pid=$!
cleanup_fn stop "$trims_pid"
load volumes/acme/file --ioengine=psync --filename=mnt/volumes/acme/file --section=own --section=same
touch "done"
wait "$trims_pid" || fail "punching holes failed"
