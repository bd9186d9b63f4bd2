#!/bin/bash
# Encrypted images: their bytes are carried as they are, and the passphrase opens what comes out, for
# QEMU's LUKS and for librbd's.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
requires cryptsetup --version
start_ceph
begin_root
remember_root
echo -n 'correct horse' >key
echo -n 'wrong horse' >wrong

# librbd wants the data to begin at a multiple of the object size: LUKS 2 has it at 16 MiB, LUKS 1
# where --offset (in sectors) says.
truncate -s 96M luks1.raw luks2.raw
cryptsetup luksFormat --batch-mode --type luks1 --pbkdf-force-iterations 1000 --offset 8192 \
    --key-file key luks1.raw
cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
    --key-file key luks2.raw
inside() { # KEY IMAGE-OPTIONS QEMU-IO-COMMAND ...: in the clear
    local key=$1 image=$2 args=()
    shift 2
    for c in "$@"; do args+=(-c "$c"); done
    qemu-io --object "secret,id=key,file=$key" --image-opts "$image" "${args[@]}"
}
inside key driver=luks,file.filename=luks1.raw,key-secret=key \
    'write -P 21 0 3M' 'write -P 22 40M 70000' >qemu-io.log
cp --sparse=always luks1.raw source.raw

for n in 1 2; do
    start_moving ./luks$n.raw luks$n.raw
    use_it 10486272 # not in the header
    fill_it_in_use
    end_moving
    rbd export --no-progress moved out.raw
    [ "$(cryptsetup luksUUID out.raw)" = "$(cryptsetup luksUUID luks$n.raw)" ] || fail "another header"
    cryptsetup open --test-passphrase --key-file key out.raw
    must_fail 2 'No key available' cryptsetup open --test-passphrase --key-file wrong out.raw
    format=luks
    [ $n = 1 ] || format=luks2
    librbd=driver=rbd,pool=rbd,image=moved,encrypt.format=$format,encrypt.key-secret=key
    if [ $n = 1 ]; then
        inside key driver=luks,file.filename=out.raw,key-secret=key \
            'read -P 21 0 3M' 'read -P 22 40M 70000' >read.log
        inside key $librbd 'read -P 21 0 3M' 'read -P 22 40M 70000' >>read.log
        ! grep -i 'failed' read.log || fail "it was read wrongly"
    fi
    inside key $librbd 'write -P 23 5M 1M' 'read -P 23 5M 1M' >write.log
    inside key $librbd 'read -P 23 5M 1M' >>write.log
    ! grep -i 'failed' write.log || fail "it was written wrongly"
    must_fail 1 'passphrase|encryption|Operation not permitted|Invalid' inside wrong $librbd 'read 5M 1M'
    rm out.raw
    rbd rm --no-progress moved
done
same source.raw luks1.raw
