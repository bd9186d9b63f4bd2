# Sourced by the tests of the FUSE face, after tests/functions.sh.
requires test -c /dev/fuse
requires test "$(id -u)" = 0

# start_mount [OPTIONS]: mounts the root on $tmp/mnt by a cowgate-fuse in the foreground, whose
# messages (and a sanitizer's) go to fuse.log; its pid is in $mount_pid.
start_mount() {
    mkdir -p "$tmp/mnt"
    cowgate-fuse "$COWGATE_ROOT" "$tmp/mnt" -f -o "${1:-rw}" 2>>"$tmp/fuse.log" &
    mount_pid=$!
    cleanup_fn drop_mount "$mount_pid"
    wait_for 30 mountpoint -q "$tmp/mnt"
}

# stop_mount: unmounts; the daemon must end well.
stop_mount() {
    local r=0
    cowgate umount "$tmp/mnt" || fail "umount"
    wait "$mount_pid" || r=$?
    [ $r = 0 ] || fail "cowgate-fuse ended with $r: $(cat "$tmp/fuse.log")"
}

drop_mount() {
    umount -l "$tmp/mnt" 2>/dev/null
    stop "$1"
}

# loop_device OPTIONS FILE: attaches FILE, leaves the device in $loop.
loop_device() {
    loop=$(losetup --show -f "$@")
    cleanup_fn drop_loop "$loop"
}

drop_loop() {
    umount -l "$1" 2>/dev/null
    losetup -d "$1" 2>/dev/null
}

# data_kib VOLUME: how much its data files take.
data_kib() { du -ck "$COWGATE_ROOT/pool/${1#volumes/}"/*.data | tail -n 1 | cut -f1; }

# a_disk FILE: a GPT disk of 64 MiB with an ext4 partition of some real files and a second, empty
# partition.
a_disk() {
    mkdir -p files
    cp -r /usr/include/linux files/
    truncate -s 40M part.img
    mkfs.ext4 -q -F -d files part.img
    truncate -s 64M "$1"
    printf '%s\n' 'start=2048, size=81920, type=linux' 'start=83968, size=40960, type=linux' |
        sfdisk -q --label gpt "$1"
    dd if=part.img of="$1" bs=1M seek=1 conv=notrunc,sparse status=none
}
