# A guest whose disk is an export is migrated live to another QEMU on the same export while it writes
# files and syncs them: all that it wrote on either side is there, and the file system is whole.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"
requires command -v socat

cowgate init
cowgate create volumes/p/disk --size 256M
start_serve "$tmp/s"

# Until it's told to stop, the guest says on the console what is on its disk.
cat >script <<'SH'
set -euo pipefail
mkfs.ext4 -q /dev/vda
mount /dev/vda /mnt
cd /mnt
exec 3<>/dev/ttyS2
for i in $(seq 100000); do
    head -c $((RANDOM * 20)) /dev/urandom >"file-$((i % 100))"
    sha256sum "file-$((i % 100))" >"sum-$((i % 100))"
    sync "file-$((i % 100))" "sum-$((i % 100))" .
    echo "wrote $i"
    if read -r -t 0.01 word <&3 && [ "$word" = stop ]; then
        break
    fi
done
echo 3 >/proc/sys/vm/drop_caches
sha256sum --quiet -c sum-*
echo "$i" >last
cd /
umount /mnt
echo all is right
SH
vm_modules+=(virtio_blk ext4)
vm_programs+=(mkfs.ext4 sha256sum seq sync)
vm_initramfs "$tmp/initramfs" script

# guest NAME ARGS ...: a machine with the export as its disk and its monitor at NAME.mon.
guest() {
    local name=$1
    shift
    (vm_qemu "$tmp/initramfs" "$tmp/$name.status" -serial "unix:$tmp/$name.tty,server=on,wait=off" \
        -monitor "unix:$tmp/$name.mon,server=on,wait=off" \
        -blockdev "driver=nbd,node-name=disk,server.type=unix,server.path=$tmp/s,export=volumes/p/disk" \
        -device virtio-blk-pci,drive=disk "$@") >"$name.log" 2>&1 &
    guest_pid=$!
    cleanup_fn stop "$guest_pid"
}
monitor() { echo "$2" | socat -t 5 - "UNIX-CONNECT:$tmp/$1.mon" | tr -d '\r'; }
wrote() { tr -d '\r' <"$1.log" | sed -n 's/^wrote \([0-9]*\)$/\1/p'; } # one a line
has_written() { [ "$(wrote "$1" | wc -l)" -ge "$2" ]; }
has_moved() { monitor here 'info migrate' | grep -q '^Migration status: completed'; }

guest here
here_pid=$guest_pid
wait_for 300 has_written here 5
guest there -incoming "unix:$tmp/incoming"
there_pid=$guest_pid
wait_for 60 test -S incoming
# Also where little is left of the processors.
monitor here 'migrate_set_parameter downtime-limit 20000' >monitor.log
monitor here "migrate -d unix:$tmp/incoming" >>monitor.log
wait_for 300 has_moved
wait_for 300 has_written there 5
monitor here quit >>monitor.log
wait "$here_pid" || fail "the first QEMU failed"
echo stop | socat - "UNIX-CONNECT:$tmp/there.tty"
wait "$there_pid" || fail "the second QEMU failed"
grep -q 'status 0' there.status && grep -q '^all is right' there.log || fail "the guest failed"

# Here, too: the file system, and what was there when the guest ended.
cowgate export volumes/p/disk ./disk.raw
e2fsck -fn disk.raw
mkdir files
debugfs -R 'rdump / files' disk.raw 2>/dev/null
[ "$(cat files/last)" = "$(wrote there | tail -n 1)" ] || fail "the last is $(cat files/last)"
(cd files && sha256sum --quiet -c sum-*)
cat here.log there.log >both.log
diff <(wrote both) <(seq "$(cat files/last)") || fail "the guest didn't write one after the other"
