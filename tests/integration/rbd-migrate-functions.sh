# Sourced, after tests/integration/ceph-functions.sh, by tests of what is migrated into Ceph.
#
#     start_moving SOURCE WANT OPTIONS ...   prepares rbd/rbd/moved, whose content has to be the file
#                                            WANT (a copy, want.raw, follows what is written)
#     use_it [OFFSET]                        reads and writes it before it is filled, at OFFSET
#                                            too (512)
#     fill_it_in_use                         executes while fio writes and verifies
#     end_moving                             commits, and compares all there is
#     move SOURCE WANT OPTIONS ...           all of these

requires fio --version

# The stream that the librbd here is expected to read: nbd came with 19.2.3.
ceph_version=$(rbd --version | sed -E 's/^ceph version ([0-9.]+).*/\1/')
stream=$(printf '19.2.3\n%s\n' "$ceph_version" | sort -CV && echo nbd || echo file)
echo "Ceph $ceph_version: by the stream $stream"

# begin_root: with all of the cluster served.
begin_root() {
    cowgate init
    jq '.rbd = {}' "$COWGATE_ROOT/cowgate.json" >new.json
    mv new.json "$COWGATE_ROOT/cowgate.json"
}

# begin_small: a root with a volume of 16 MiB, which is src.raw, and $point, a backup of it.
begin_small() {
    begin_root
    for at in 0 5 14; do
        dd if=/dev/urandom of=src.raw bs=1M seek=$at count=1 conv=notrunc status=none
    done
    truncate -s 16M src.raw
    cowgate --quiet import ./src.raw volumes/acme/web
    point=$(cowgate --quiet backup volumes/acme/web)
    remember_root
}

# remember_root: as it has to be again, but for the cluster's images.
list_root() { cowgate list | sed '/^rbd/d'; }
remember_root() { list_root >root.list; }

# nothing_left: of what migrations keep.
nothing_left() {
    list_root | diff root.list - || fail "something of a migration is left"
    [ -z "$(find root/migrations root/repo/*/holds -mindepth 1 2>/dev/null)" ] || fail "a record or a hold is left"
    ! grep -q "$COWGATE_RUN/migrate-" /proc/mounts || fail "a mount is left"
    [ -z "$(ls "$COWGATE_RUN" | grep migrate-)" ] || fail "$(ls "$COWGATE_RUN")"
}

# objects FILE: the bytes of those 4 MiB objects of it that aren't zeros.
objects() {
    python3 -c '
import sys
n, zeros = 0, bytes(4 << 20)
with open(sys.argv[1], "rb") as f:
    while b := f.read(4 << 20):
        n += b != zeros[:len(b)]
print(n << 22)' "$1"
}

# used IMAGE[@SNAPSHOT]: as rbd du says.
used() {
    rbd du --format json "$1" |
        jq --arg s "$(sed -n 's/.*@//p' <<<"$1")" '.images[] | select((.snapshot // "") == $s) | .used_size'
}

# wrote OFFSET LENGTH VALUE: to moved, and now to want.raw.
wrote() {
    head -c "$2" /dev/zero | tr '\0' "\\$(printf %o "$3")" |
        dd of=want.raw bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}
write_it() {
    qemu-io -f raw -c "write -P $3 $1 $2" "$(uri "$tmp/moved.sock" rbd/rbd/moved)" >>qemu-io.log
    wrote "$@"
}

start_moving() {
    local source=$1
    cp --sparse=always "$2" want.raw
    shift 2
    rm -f prepare.log
    cowgate migrate prepare "$source" rbd/rbd/moved --serve "$@" 2>prepare.log &
    prepare=$!
    cleanup_fn stop $prepare
    wait_for 60 grep -Eq 'usable now|^cowgate: [^w]' prepare.log
    grep -q "rbd/rbd/moved reads from $(realpath -q "$source" || echo "$source") by the stream $stream," prepare.log ||
        fail "$(cat prepare.log)"
    size=$(stat -c %s want.raw)
    [ "$(rbd info --format json moved | jq .size)" = "$size" ] || fail "$(rbd info moved)"
}

use_it() {
    rbd export --no-progress moved - | cmp - want.raw
    start_serve "$tmp/moved.sock"
    moved_pid=$serve_pid
    write_it "${1:-512}" 1024 7               # less than a block
    write_it $((size / 2 - 70000)) 140000 9     # over an object's end, or nearly
    write_it $((size - 512)) 512 11
    nbdcopy "$(uri "$tmp/moved.sock" rbd/rbd/moved)" - | cmp - want.raw
}

# The 8 MiB from 16 MiB on are fio's; it verifies what it wrote.
fill_it_in_use() {
    fio --name=fio --ioengine=rbd --clientname=admin --pool=rbd --rbdname=moved --offset=16M --size=8M \
        --rw=randwrite --rate=,4m --bsrange=4k-64k --iodepth=8 --verify=crc32c --verify_backlog=64 \
        --verify_fatal=1 --minimal >fio.log 2>&1 &
    fio=$!
    cowgate migrate execute rbd/rbd/moved
    wait $fio || fail "fio: $(cat fio.log)"
    rbd export --no-progress moved filled.raw
    dd if=filled.raw of=want.raw bs=1M skip=16 seek=16 count=8 conv=notrunc status=none
    rm filled.raw
    write_it 30000000 4096 12
    rbd export --no-progress moved - | cmp - want.raw
    stop "$moved_pid"
}

end_moving() {
    cowgate migrate commit rbd/rbd/moved
    wait $prepare
    rbd export --no-progress moved - | cmp - want.raw
    [ "$(used moved)" -le "$(objects want.raw)" ] ||
        fail "it isn't sparse: $(used moved), not $(objects want.raw)"
    nothing_left
}

move() {
    start_moving "$@"
    use_it
    fill_it_in_use
    end_moving
}
