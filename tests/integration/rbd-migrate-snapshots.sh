#!/bin/bash
# A volume, and an image in Ceph, with all their snapshots: each comes out as it is, by its name.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
start_ceph
begin_root

cowgate create volumes/acme/web --size 64M
truncate -s 64M now.raw
# write_web VALUE OFFSET LENGTH ...: then a snapshot, vVALUE, its content kept in vVALUE.raw.
write_web() {
    local value=$1
    shift
    start_serve "$tmp/web.sock"
    while [ $# != 0 ]; do
        qemu-io -f raw -c "write -P $value $1 $2" "$(uri "$tmp/web.sock" volumes/acme/web)" >>qemu-io.log
        head -c "$2" /dev/zero | tr '\0' "\\$(printf %o "$value")" |
            dd of=now.raw bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
        shift 2
    done
    stop "$serve_pid"
    cowgate snapshot "volumes/acme/web@v$value"
    cp --sparse=always now.raw "v$value.raw"
}
write_web 9 0 10M 41943040 512
write_web 8 1000000 70000 62914560 1048576
# librbd before 19.2.3 can't take snapshots of other sizes than multiples of 4 MiB along.
[ $stream = nbd ] && size=83886592 || size=80M
cowgate resize volumes/acme/web $size
truncate -s $size now.raw
write_web 7 75497472 65536 0 4096
write_web 10 0 100
remember_root

# snapshots_are IMAGE FILE ...: and nothing else.
snapshots_are() {
    local image=$1 name
    shift
    [ "$(rbd snap ls --format json "$image" | jq -r '.[].name' | xargs)" = "$*" ] || fail "$(rbd snap ls "$image")"
    for name; do
        rbd export --no-progress "$image@$name" - | cmp - "$name.raw"
    done
}

if [ $stream = file ]; then
    cowgate create volumes/acme/odd --size 8389120
    cowgate snapshot volumes/acme/odd@s
    cowgate resize volumes/acme/odd 12M
    remember_root
    must_fail 1 'volumes/acme/odd@s has 8389120 bytes' \
        cowgate migrate run --snapshots volumes/acme/odd rbd/rbd/odd
    nothing_left
fi

start_moving volumes/acme/web now.raw --snapshots
if [ $stream = file ]; then
    grep -q 'each snapshot takes the whole size' prepare.log || fail "$(cat prepare.log)"
fi
snapshots_are moved v9 v8 v7 v10
use_it
fill_it_in_use
snapshots_are moved v9 v8 v7 v10
end_moving
snapshots_are moved v9 v8 v7 v10
for n in 9 8 7 10; do
    # A file has no holes for librbd, and what a snapshot has can't be made sparse afterwards.
    [ $stream = file ] && break
    [ "$(used moved@v$n)" -le "$(objects v$n.raw)" ] || fail "moved@v$n isn't sparse: $(used moved@v$n)"
done

# From Ceph to Ceph.
rbd export --no-progress moved old.raw
rbd rename moved old
start_moving rbd/rbd/old old.raw --snapshots
snapshots_are moved v9 v8 v7 v10
cowgate migrate execute rbd/rbd/moved
end_moving
snapshots_are moved v9 v8 v7 v10
snapshots_are old v9 v8 v7 v10
[ "$(rbd snap ls --all --format json old | jq -c 'map(.protected)|unique')" = '["false"]' ] || fail "$(rbd snap ls --all old)"
! rbd image-meta ls old | grep cowgate || fail "$(rbd image-meta ls old)"
