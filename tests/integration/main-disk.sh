# A GPT disk with an ext4 partition of real files: imported, shown by every face, backed up, and a
# file taken out of the backup by a loop mount and over NBD.
. "$abs_srcdir/tests/functions.sh"
requires test -c /dev/fuse
requires test -b /dev/loop0 -o -c /dev/loop-control

mkdir files
tar -C /usr -c --exclude=share/fonts share/perl include 2>/dev/null | tar -x -C files
[ "$(find files -type f | wc -l)" -gt 2000 ] || tar -C /usr/share -c doc 2>/dev/null | tar -x -C files
[ "$(find files -type f | wc -l)" -gt 2000 ] || fail "too few files to test with"
truncate -s 600M part.img
mkfs.ext4 -q -F -d files part.img
truncate -s 700M disk.raw
echo 'start=2048, size=1228800, type=linux' | sfdisk -q --label gpt disk.raw
dd if=part.img of=disk.raw bs=1M seek=1 conv=notrunc,sparse status=none

cowgate init
cowgate --quiet import ./disk.raw volumes/acme/web
cowgate snapshot volumes/acme/web@s1
point=$(cowgate --quiet backup volumes/acme/web)
[[ $point =~ ^backups/acme/web/[0-9]{8}T[0-9]{6}Z$ ]] || fail "backup printed '$point'"

# Every face gives the bytes of the original.
start_serve "$tmp/s"
nbdinfo --list --json "nbd+unix:///?socket=$tmp/s" | jq -r '.exports[]."export-name"' | grep -v @cowgate- | sort >names
printf '%s\n' backups/acme/web/latest "$point" volumes/acme/web volumes/acme/web@s1 | sort >expected
diff expected names || fail "nbdinfo --list shows other names"
nbdcopy "$(uri "$tmp/s" volumes/acme/web)" copy.raw
same copy.raw disk.raw
nbdcopy "$(uri "$tmp/s" backups/acme/web/latest)" copy2.raw
same copy2.raw disk.raw
cowgate --quiet export volumes/acme/web ./export.raw
same export.raw disk.raw
cowgate --quiet export "$point" ./export2.raw
same export2.raw disk.raw
mkdir mnt fs
cowgate mount mnt
cleanup_fn sh -c "cowgate umount $tmp/mnt 2>/dev/null"
cp mnt/volumes/acme/web cp.raw
same cp.raw disk.raw
cp mnt/backups/acme/web/latest cp.raw
same cp.raw disk.raw
rm -f copy.raw copy2.raw export2.raw cp.raw

# The holes show: of a volume every block of zeros, of a backup every chunk of them.
blocks() { # blocks FILE SIZE: runs of blocks that are all zeros or not, as qemu-img map has them
    python3 - "$1" "$2" <<'PY'
import itertools, json, sys
size = int(sys.argv[2])
zeros = bytes(size)
with open(sys.argv[1], "rb") as f:
    kinds = [b == zeros[:len(b)] for b in iter(lambda: f.read(size), b"")]
    end = f.tell()
at = 0
for zero, run in itertools.groupby(kinds):
    n = min(len(list(run)) * size, end - at)
    print(json.dumps([at, n, zero]))
    at += n
PY
}
for name in volumes/acme/web:4096 backups/acme/web/latest:4194304; do
    blocks disk.raw "${name#*:}" | jq -c . >expected
    qemu-img map -f raw --output=json "$(uri "$tmp/s" "${name%:*}")" >map.json
    jq -c '.[] | [.start, .length, .zero]' map.json >shown
    [ "$(wc -l <expected)" -ge 3 ] || fail "the disk has too few holes to test with"
    diff expected shown >&2 || fail "the map of ${name%:*} isn't that of the disk"
    jq -e 'all(.[]; .data != .zero)' map.json >/dev/null || fail "zeros that aren't holes, or holes that are data"
done

# A file out of the backup, by loop mount on the FUSE file and from the partition over NBD.
loop_mount() { mount -o ro,loop,noload "$1" fs; }
loop_mount mnt/backups/acme/web/latest.p1
cleanup_fn sh -c "umount -l $tmp/fs 2>/dev/null"
(cd files && find . -type f | sort | sed -n '1~97p') >some
while read -r file; do cmp "files/$file" "fs/$file" || fail "$file differs"; done <some
touch fs/new 2>/dev/null && fail "the backup could be written"
umount fs
nbdcopy "$(uri "$tmp/s" backups/acme/web/latest.p1)" p1.raw
[ "$(stat -c %s p1.raw)" = $((1228800 * 512)) ] || fail "wrong size of the partition"
same p1.raw part.img
e2fsck -fn p1.raw >/dev/null
file=$(tail -n 1 some)
debugfs -R "dump /$file out" p1.raw 2>/dev/null
same out "files/$file"
must_fail 1 'p2' cowgate info "$point.p2"
