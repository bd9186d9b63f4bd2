# An RBD image is usable at once and filled from its point meanwhile: written and read on before, while
# and after the command is killed again and again; then it needs the point no more.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
requires fio --version
start_ceph

cowgate init
jq '.rbd = {}' root/cowgate.json >new.json
mv new.json root/cowgate.json
truncate -s 20G src.raw
for at in 0 300 700 980 20400; do
    dd if=/dev/urandom of=src.raw bs=1M seek=$at count=40 conv=notrunc status=none
done
cowgate --quiet import ./src.raw volumes/acme/web
point=$(cowgate --quiet backup volumes/acme/web)
cowgate list | grep -v '^rbd' >before
cp src.raw want.raw
moved=rbd/rbd/moved

live() {
    cowgate restore --live "$point" $moved 2>live.log &
    live_pid=$!
    cleanup_fn stop $live_pid
    wait_for 60 grep "^$moved is usable now; filling it from $point" live.log
}
nothing_left() {
    cowgate list | grep -v '^rbd' | diff before - || fail "something is left"
    [ -z "$(find root/migrations root/repo/acme/holds -mindepth 1 2>/dev/null)" ] || fail "$(find root/migrations root/repo/acme/holds)"
    ! grep -q "$COWGATE_RUN/migrate-" /proc/mounts || fail "a mount is left"
}
use() { # OFFSET VALUE: by Ceph's own client, and in want.raw
    fio --name=use --ioengine=rbd --clientname=admin --pool=rbd --rbdname=moved --offset="$1" --size=64k --bs=64k \
        --rw=write --buffer_pattern="0x$2" --minimal >fio.log 2>&1 || fail "fio: $(cat fio.log)"
    head -c 65536 /dev/zero | tr '\0' "\\$(printf %o "0x$2")" |
        dd of=want.raw bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}
cat >compare.py <<'PY'
import nbd, random, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
size, piece = h.get_size(), 1 << 20
spots = [*range(0, 1100), *range(20400, 20480), *random.sample(range(1100, 20400), 200)]
with open("want.raw", "rb") as f:
    for spot in spots:
        f.seek(spot * piece)
        assert h.pread(piece, spot * piece) == f.read(piece), f"MiB {spot} differs"
PY
parts() { # of the image, where there is something and where not, are what they should be
    start_serve "$tmp/s"
    nbd_python compare.py "$(uri "$tmp/s" $moved)"
    stop "$serve_pid"
}
whole() { # the image is what it should be
    rm -f have.raw
    cowgate --quiet export $moved ./have.raw
    qemu-img compare -f raw -F raw have.raw want.raw >compare.log || fail "$(cat compare.log)"
}

must_fail 2 'is for volumes' cowgate restore --live --rate 1M "$point" $moved
live
use 1048576 61 # before it's filled there, or just after
for i in 1 2 3; do
    kill -9 $live_pid || true
    wait $live_pid || true
    use $(((300 + 10 * i) << 20)) 6$i
    use $(((500 + i) << 20)) 7$i # where the point has nothing
    [ $i != 2 ] || parts
    live
    sleep 0.$i
done
use $((990 << 20)) 68
use $((20440 << 20)) 69
wait $live_pid || fail "$(cat live.log)"
grep -q "^$moved has everything" live.log || fail "$(cat live.log)"
whole
nothing_left
mv root/repo root/away
parts
mv root/away root/repo
must_fail 1 'exists already' cowgate restore --live "$point" $moved
parts
