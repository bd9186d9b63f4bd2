# Holes: found, kept by copying, punched and zeroed; and the ends of a file that can't grow.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"

# Data in [0, 1M), [10M, 11M) and [63M, 64M).
truncate -s 64M sparse.raw
for at in 0 10 63; do
    dd if=/dev/urandom of=sparse.raw bs=1M count=1 seek=$at conv=notrunc status=none
done
cowgate init
cowgate --quiet import ./sparse.raw volumes/acme/web
point=$(cowgate --quiet backup volumes/acme/web)
cowgate --quiet import ./sparse.raw volumes/acme/alone
cowgate create volumes/acme/empty --size 64M
cowgate create volumes/acme/full --size 64M
start_mount

cat >seek.py <<'PY'
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
end, at, data = os.fstat(fd).st_size, 0, []
while at < end:
    try:
        at = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as e:
        assert e.errno == errno.ENXIO, e
        break
    hole = os.lseek(fd, at, os.SEEK_HOLE)
    assert at < hole <= end
    data.append((at, hole))
    at = hole
for whence in os.SEEK_DATA, os.SEEK_HOLE:
    try:
        os.lseek(fd, end, whence)
        assert False, "beyond the end"
    except OSError as e:
        assert e.errno == errno.ENXIO, e
for start, hole in data:
    print(start >> 20, hole >> 20)
PY
map() { /usr/bin/python3 seek.py "$1" | tr '\n' ','; }
[ "$(map mnt/volumes/acme/web)" = "0 1,10 11,63 64," ] || fail "volume: $(map mnt/volumes/acme/web)"
[ "$(map "mnt/$point")" = "0 4,8 12,60 64," ] || fail "point: $(map "mnt/$point")" # whole chunks
[ "$(map mnt/volumes/acme/empty)" = "" ] || fail "an empty volume has data"
data=$(qemu-img map -f raw --output=json mnt/volumes/acme/web | jq -c '[.[] | select(.data) | .length]')
[ "$data" = "[1048576,1048576,1048576]" ] || fail "qemu-img map: $data"

# cp sees them without being told, and reads a TiB of nothing in no time.
for name in volumes/acme/web "$point"; do
    cp "mnt/$name" copy.raw
    same copy.raw sparse.raw
    [ "$(du -k copy.raw | cut -f1)" -lt 16384 ] || fail "the copy of $name isn't sparse"
    tar -C mnt -cSf copy.tar "$name"
    [ "$(du -k copy.tar | cut -f1)" -lt 16384 ] || fail "the archive of $name isn't sparse"
done

# Punching makes the data file smaller, zeroing what is to be zero zero; nothing else changes.
cp sparse.raw expected.raw
before=$(data_kib volumes/acme/alone)
for file in mnt/volumes/acme/alone expected.raw; do
    fallocate --punch-hole --offset 10M --length 1M $file
    fallocate --zero-range --keep-size --offset $((63 << 20)) --length 300001 $file
    fallocate --zero-range --keep-size --offset 4099 --length 10 $file
done
same mnt/volumes/acme/alone expected.raw
[ $((before - $(data_kib volumes/acme/alone))) -ge 1024 ] || fail "punching gave no space back"
must_fail 1 'not supported' fallocate --length 1M mnt/volumes/acme/alone
must_fail 1 'not supported' fallocate --collapse-range --offset 0 --length 1M mnt/volumes/acme/alone
[ "$(map mnt/volumes/acme/alone)" != "0 1,10 11,63 64," ] || fail "the hole doesn't show"

# The end.
cat >end.py <<'PY'
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
size = os.fstat(fd).st_size
assert os.pwrite(fd, b"x" * 1000, size - 500) == 500
assert os.pread(fd, 1000, size - 500) == b"x" * 500
for at in size, size + 4096:
    try:
        os.pwrite(fd, b"x", at)
        assert False, "written behind the end"
    except OSError as e:
        assert e.errno == errno.ENOSPC, e
os.ftruncate(fd, size)
for other in 0, size - 512, size + 512:
    try:
        os.ftruncate(fd, other)
        assert False, "truncated"
    except OSError as e:
        assert e.errno == errno.EPERM, e
assert os.fstat(fd).st_size == size
os.fsync(fd)
os.close(fd)
PY
/usr/bin/python3 end.py mnt/volumes/acme/web

# cp to a volume that has no data; to one that has it would leave old bytes in the holes.
cp sparse.raw mnt/volumes/acme/empty
same mnt/volumes/acme/empty sparse.raw
head -c $((64 << 20)) /dev/zero | tr '\0' x >pattern
dd if=pattern of=mnt/volumes/acme/full bs=1M conv=notrunc status=none
must_fail 1 'not permitted' cp sparse.raw mnt/volumes/acme/full
grep -q "truncate volumes/acme/full: .*dd conv=notrunc" fuse.log || fail "the log doesn't say why"
same mnt/volumes/acme/full pattern
qemu-img convert -n -f raw -O raw sparse.raw mnt/volumes/acme/full
same mnt/volumes/acme/full sparse.raw
dd if=expected.raw of=mnt/volumes/acme/full bs=1M conv=notrunc status=none
same mnt/volumes/acme/full expected.raw
stop_mount
cowgate --quiet export volumes/acme/full ./out.raw
same out.raw expected.raw
