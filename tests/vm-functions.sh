# Virtual machines for tests: a real kernel of Debian, booted by QEMU without hardware's help (so
# that it works everywhere), from an initramfs with busybox and what the test asks for.  Sourced
# after tests/functions.sh.

# What the next vm_initramfs puts in: kernel modules with what they need, to be loaded at the boot or
# later; programs with their libraries, under the paths that they have here (a link's target too);
# other files, likewise; and names for them if those are to be others ("/bin/x=/here/x").
vm_modules=(virtio_pci virtio_net 9pnet_virtio 9p crc32c_generic)
vm_later=()
vm_programs=(bash kmod)
vm_files=()
vm_environment=() # NAME=VALUE, for the script

requires command -v qemu-system-x86_64 cpio busybox kmod
vm_kernel=$("$abs_srcdir/contrib/vm-kernel" 2>"$tmp/vm-kernel.log") ||
    { cat "$tmp/vm-kernel.log"; echo "$test_name: skipped: no kernel"; exit 77; }
vm_release=$(ls "$vm_kernel/lib/modules")

# _vm_put DIR FILE[=SOURCE]: copies it there, with the libraries that it loads by itself.
_vm_put() {
    local to=${2%%=*} from=${2#*=} lib
    mkdir -p "$1$(dirname "$to")"
    cp -L "$from" "$1$to"
    { ldd "$from" 2>/dev/null || true; } | sed -n 's/^\(.* => \)\?[[:space:]]*\(\/[^ ]*\) (0x.*/\2/p' |
        while read -r lib; do
            [ -e "$1$lib" ] || { mkdir -p "$1$(dirname "$lib")" && cp -L "$lib" "$1$lib"; }
        done
}

# vm_initramfs FILE SCRIPT: makes one in which bash runs SCRIPT as root with its output on the
# console, after which the machine is switched off.
vm_initramfs() {
    local dir=$1.d module file busybox
    busybox=$(type -P busybox)
    mkdir -p "$dir"/{busybox,dev,proc,sys,run,tmp,root,etc,host,mnt,var,usr/bin,usr/sbin,usr/lib,usr/lib64}
    for file in bin sbin lib lib64; do ln -s "usr/$file" "$dir/$file"; done
    _vm_put "$dir" "/busybox/busybox=$busybox"
    for file in "${vm_programs[@]}" "${vm_files[@]}"; do
        [[ $file = /* ]] || file=$(type -P "$file")
        _vm_put "$dir" "$file"
    done
    ln -s ../bin/kmod "$dir/sbin/modprobe"
    module=lib/modules/$vm_release
    mkdir -p "$dir/$module"
    cp "$vm_kernel/$module"/modules.* "$dir/$module/"
    modprobe -d "$vm_kernel" -S "$vm_release" -a --show-depends "${vm_modules[@]}" \
        "${vm_later[@]}" >"$dir.modules"
    sed -n 's/^insmod \([^ ]*\).*/\1/p' "$dir.modules" | sort -u | while read -r file; do
        mkdir -p "$dir$(dirname "${file#"$vm_kernel"}")"
        cp "$file" "$dir${file#"$vm_kernel"}"
    done
    cp "$2" "$dir/script"
    cat >"$dir/init" <<INIT
#!/busybox/busybox sh
/busybox/busybox --install -s /busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox
export HOME=/root LC_ALL=C TZ=UTC ${vm_environment[@]@Q}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
ln -s /proc/self/fd /dev/fd
ln -s /proc/mounts /etc/mtab
/sbin/modprobe -a ${vm_modules[*]}
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
    ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.2.2
fi
[ ! -d /sys/bus/virtio/drivers/9pnet_virtio/virtio* ] 2>/dev/null ||
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /host
cd /root
bash /script </dev/null
status=\$?
umount /host 2>/dev/null
echo "status \$status" >/dev/ttyS1
poweroff -f
INIT
    chmod +x "$dir/init"
    (cd "$dir" && find . | cpio --quiet -o -H newc) | gzip -1 >"$1"
    rm -rf "$dir" "$dir.modules"
}

# vm_cowgate: puts in what was built here, as sanitized as it is, and what scripts that use it share.
vm_cowgate() {
    vm_files+=("/guest.sh=$abs_srcdir/tests/vm-guest.sh")
    vm_programs+=(mkfs.ext4 "/usr/bin/cowgate=$abs_builddir/cli/cowgate" nbdkit
        "/usr/lib/cowgate-plugin.so=$COWGATE_PLUGIN")
    vm_environment+=(COWGATE_PLUGIN=/usr/lib/cowgate-plugin.so)
    [ -n "${SANITIZER-}" ] || return 0
    local runtime
    runtime=$(gcc -print-file-name=libasan.so)
    cat >"$tmp/nbdkit-sanitized" <<SANITIZED
#!/bin/bash
export ASAN_OPTIONS="\$ASAN_OPTIONS:detect_leaks=0"
LD_PRELOAD="/usr/lib/libasan.so /usr/lib/libstdc++.so /usr/lib/no-freelocale.so" exec nbdkit "\$@"
SANITIZED
    chmod +x "$tmp/nbdkit-sanitized"
    vm_programs+=("/usr/lib/libasan.so=$runtime"
        "/usr/lib/libstdc++.so=$(gcc -print-file-name=libstdc++.so.6)"
        "/usr/lib/no-freelocale.so=$abs_builddir/tests/.libs/no-freelocale.so")
    vm_files+=("/usr/bin/nbdkit-sanitized=$tmp/nbdkit-sanitized" "/lsan.supp=$abs_srcdir/tests/lsan.supp")
    vm_environment+=(COWGATE_NBDKIT=/usr/bin/nbdkit-sanitized "ASAN_OPTIONS=$ASAN_OPTIONS"
        "UBSAN_OPTIONS=$UBSAN_OPTIONS" LSAN_OPTIONS=suppressions=/lsan.supp:print_suppressions=0)
}

# vm_qemu INITRAMFS STATUS ARGS ...: becomes a machine with its console on standard output; the file
# STATUS has "status N" at the end if the script came to its end.  Ends after $vm_seconds at the
# latest.
vm_qemu() {
    local initramfs=$1 status=$2
    shift 2
    exec timeout --kill-after=10 "${vm_seconds:-600}" qemu-system-x86_64 -accel tcg -machine q35 -cpu max -m 1024 -nodefaults -display none \
        -no-reboot -kernel "$vm_kernel/vmlinuz" -initrd "$initramfs" \
        -append "console=ttyS0 panic=-1 no_timer_check mitigations=off quiet" -serial stdio -serial "file:$status" \
        -netdev user,id=net -device virtio-net-pci,netdev=net,romfile= "$@" </dev/null
}

# vm_run SCRIPT [QEMU-ARGS ...]: a machine runs it, with the folder $tmp/host as /host; the host's
# 127.0.0.1 is 10.0.2.2 there.  Fails if it doesn't end with 0, or hangs.
vm_run() {
    local script=$1
    shift
    mkdir -p "$tmp/host"
    vm_initramfs "$tmp/initramfs" "$script"
    rm -f "$tmp/vm.status"
    (vm_qemu "$tmp/initramfs" "$tmp/vm.status" \
        -virtfs "local,path=$tmp/host,mount_tag=host,security_model=none" "$@") >"$tmp/vm.console" 2>&1 &
    local qemu=$!
    cleanup_fn stop "$qemu"
    wait "$qemu" || echo "the machine ended with $?" >>"$tmp/vm.console"
    tr -d '\r' <"$tmp/vm.console" | tail -n "${vm_lines:-100}"
    grep -qx 'status 0' <(tr -d '\r' <"$tmp/vm.status") || fail "the machine's script: $(cat "$tmp/vm.status" 2>&1)"
}
