# A guest whose disk is an export is migrated live to another QEMU on the same export while it writes
# files and syncs them, as the README does it between hosts, over TLS: all that it wrote on either side is
# there, and the file system is whole.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/vm-functions.sh"
requires command -v socat
requires certtool --version

cowgate init
cowgate create volumes/acme/web --size 256M

# Ports that were free a moment ago.
read -r port incoming_port < <(nbd_python -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))')

# readme N HOST: what is between the N-th pair of fences in the README's section, on that host, all of which
# are this one.
readme() {
    sed -n '/^### A virtual machine/,/^### Back up/p' "$abs_srcdir/README.md" |
        awk -v n="$1" '/^```/ { fences++; next } fences == 2 * n - 1' |
        sed -e "s#/etc/pki/[a-z]*#$tmp/${2-}#; s#/run/#$tmp/#" \
            -e "s#10809#$port#; s#10810#$incoming_port#" \
            -e 's#server.host=store#server.host=127.0.0.1,tls-hostname=store#; s#tcp:there:#tcp:127.0.0.1:#' >"readme-$1"
    [ -s "readme-$1" ] || fail "the README has no part $1"
}
readme 1
bash -e readme-1 >certificates.log 2>&1 || fail "$(cat certificates.log)"
readme 2 store
. ./readme-2 2>serve.log
cleanup_fn stop $!
wait_for 60 grep -q '^serving on nbds' serve.log

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

# For the README: the machine $guest.
qemu-system-x86_64() {
    vm_qemu "$tmp/initramfs" "$tmp/$guest.status" -serial "unix:$tmp/$guest.tty,server=on,wait=off" "$@" >"$guest.log" 2>&1
}
monitor() { echo "$2" | socat -t 5 - "UNIX-CONNECT:$tmp/$1.mon" | tr -d '\r'; }
wrote() { tr -d '\r' <"$1.log" | sed -n 's/^wrote \([0-9]*\)$/\1/p'; } # one a line
has_written() { [ "$(wrote "$1" | wc -l)" -ge "$2" ]; }
has_moved() { monitor here 'info migrate' | grep -q '^Migration status: completed'; }

guest=here
readme 3 here
. ./readme-3
here_pid=$!
cleanup_fn stop "$here_pid"
wait_for 300 has_written here 5
guest=there
readme 4 there
. ./readme-4
there_pid=$!
cleanup_fn stop "$there_pid"
wait_for 60 test -S there.mon
readme 5
. ./readme-5 >monitor.log
# Also where little is left of the processors; and there is no name for this host.
monitor here 'migrate_set_parameter downtime-limit 20000' >>monitor.log
monitor here 'migrate_set_parameter tls-hostname there' >>monitor.log
readme 6
. ./readme-6 >>monitor.log
wait_for 300 has_moved
wait_for 300 has_written there 5
monitor here quit >>monitor.log
wait "$here_pid" || fail "the first QEMU failed"
while kill -0 "$there_pid" 2>/dev/null; do # it may have read only half a word in its time
    echo stop | socat - "UNIX-CONNECT:$tmp/there.tty" 2>>socat.log || true
    sleep 1
done
wait "$there_pid" || fail "the second QEMU failed"
grep -q 'status 0' there.status && grep -q '^all is right' there.log || fail "the guest failed"

# Here, too: the file system, and what was there when the guest ended.
cowgate export volumes/acme/web ./disk.raw
e2fsck -fn disk.raw
mkdir files
debugfs -R 'rdump / files' disk.raw 2>/dev/null
[ "$(cat files/last)" = "$(wrote there | tail -n 1)" ] || fail "the last is $(cat files/last)"
(cd files && sha256sum --quiet -c sum-*)
cat here.log there.log >both.log
diff <(wrote both) <(seq "$(cat files/last)") || fail "the guest didn't write one after the other"
