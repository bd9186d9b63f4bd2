#!/bin/bash
# The README's recipes for migrations, pasted in their order.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
requires losetup --version
requires cryptsetup --version
start_ceph
COWGATE_ROOT=$tmp/there begin_root
begin_root

# What they begin with.
for at in 0 9 21; do
    dd if=/dev/urandom of=disk.raw bs=1M seek=$at count=2 conv=notrunc status=none
done
truncate -s 32M disk.raw
cp disk.raw lv.raw
cp disk.raw drbd.raw
lv=$(losetup --find --show lv.raw)
cleanup_fn losetup -d "$lv"
drbd=$(losetup --find --show drbd.raw)
cleanup_fn losetup -d "$drbd"
qemu-img convert -f raw -O qcow2 disk.raw vm.qcow2
echo -n horse >key
truncate -s 40M luks.raw
cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file key luks.raw
cowgate --quiet import ./disk.raw volumes/acme/site
cowgate snapshot volumes/acme/site@one
cowgate snapshot volumes/acme/site@two
cowgate --quiet backup volumes/acme/site
cowgate --quiet backup volumes/acme/site
rbd import --no-progress disk.raw web
rbd snap create --no-progress web@now
remember_root

sed -n '/^## Migration/,/^## More/{/^```/,/^```/{/^```/!p}}' "$abs_srcdir/README.md" |
    sed -e "s#/dev/vg0/home#$lv#" -e "s#/dev/drbd1003#$drbd#" -e "s#/tmp/#$tmp/#g" \
        -e 's#sleep 9#until cowgate migrate status | grep -q "vm  prepared"; do sleep 0.1; done#' \
        -e 's#sleep 1$#until nbdinfo --size "nbd+unix:///?socket='"$tmp"'/there.sock" >/dev/null 2>\&1; do sleep 0.1; done#' >recipes
[ "$(wc -l <recipes)" -gt 15 ] || fail "the recipes weren't found"
cleanup_fn sh -c '[ ! -e vm.pid ] || kill $(cat vm.pid)'
bash -x -e -o pipefail -m recipes >recipes.log 2>&1 || fail "a recipe failed: $(tail -n 20 recipes.log)"
rm -f vm.pid
nothing_left
for image in home vm from-qcow2 site site@one site@two site-history moved; do
    rbd export --no-progress $image - | cmp - disk.raw
done
rbd export --no-progress secret - | cmp - luks.raw
[ "$(rbd snap ls --format json site-history | jq length)" = 2 ] || fail "$(rbd snap ls site-history)"
grep -q 'vm  executed' recipes.log || fail "no status was printed"
grep -q 'virtual size: 24 MiB' recipes.log || fail "the passphrase opened nothing"
