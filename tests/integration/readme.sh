# The recipes of the README, pasted in their order, and with what they promise.
. "$abs_srcdir/tests/functions.sh"
requires test -c /dev/fuse

mkdir files mnt quickstart.d
cp -r "$abs_srcdir/core" files/
truncate -s 30M part.img
mkfs.ext4 -q -F -d files part.img
truncate -s 32M quickstart.d/disk.raw
echo 'start=2048, type=linux' | sfdisk -q --label gpt quickstart.d/disk.raw
dd if=part.img of=quickstart.d/disk.raw bs=1M seek=1 conv=notrunc,sparse status=none

# The indented lines behind "Recipes", but those between fences; what was built is found already, and files go to our own folder.
paste_here() {
    sed -e "s#/tmp/#$tmp/#g" -e "s# /mnt# $tmp/mnt#g" -e 's#sleep 1#until nbdinfo --list "nbd+unix:///?socket='"$tmp"'/cowgate.sock" >/dev/null 2>\&1; do sleep 0.1; done#'
}
sed -n '/^## Recipes/,/^## More/{/^```/,/^```/d;s/^    //p}' "$abs_srcdir/README.md" |
    grep -v 'export .*build/plain' | paste_here >recipes
# ... and those for devices, which are loop devices here: one with data, one sparse and empty.
if [ "$(id -u)" = 0 ]; then
    cp quickstart.d/disk.raw lv.raw
    truncate -s 32M drbd.raw
    lv=$(losetup --find --show lv.raw)
    cleanup_fn losetup -d "$lv"
    drbd=$(losetup --find --show drbd.raw)
    cleanup_fn losetup -d "$drbd"
    sed -n '/^## LVM/,/^## Ceph/{/^```/,/^```/{/^```/!p}}' "$abs_srcdir/README.md" |
        sed -e "s#/dev/vg0/home#$lv#" -e "s#/dev/drbd1003#$drbd#" | paste_here >>recipes
fi
[ "$(wc -l <recipes)" -gt 25 ] || fail "the recipes weren't found"
cleanup_fn sh -c "cowgate umount $tmp/mnt 2>/dev/null; umount -l $tmp/files 2>/dev/null; pkill -f socket=$tmp 2>/dev/null"
rm -rf files
export TMPDIR=$tmp
bash -x -e -o pipefail -m recipes >recipes.log 2>&1 || fail "a recipe failed: $(tail -n 20 recipes.log)"
same quickstart.d/disk.raw copy.raw
same quickstart.d/disk.raw restored.raw
grep -q 'export="volumes/acme/test"' recipes.log || fail "no export was listed"
grep -q '^core$' recipes.log || fail "the file system in the backup wasn't listed"
grep -q ': 0 damaged' recipes.log || fail "verify said nothing"
if [ "$(id -u)" = 0 ]; then
    cmp quickstart.d/disk.raw "$drbd" || fail "the device was restored wrongly"
    sync drbd.raw
    [ "$(stat -c '%b' drbd.raw)" -lt $((2 * $(stat -c '%b' quickstart.d/disk.raw))) ] ||
        fail "the sparse device is full"
    grep -Eq ' 2 +zero' recipes.log || fail "no zeros were found in the device"
fi
