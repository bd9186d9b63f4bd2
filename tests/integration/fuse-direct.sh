#!/bin/bash
# O_DIRECT through a mount: many writers of one file at once, and what other handles read meanwhile.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"
requires fio --version

cowgate init
cowgate create volumes/acme/data --size 64M
mkdir mnt
start_mount
file=mnt/volumes/acme/data

for engine in psync libaio; do
    fio --name=direct --filename=$file --allow_file_create=0 --rw=randwrite --bsrange=4k-64k --direct=1 \
        --ioengine=$engine --iodepth=8 --numjobs=4 --size=16M --offset_increment=16M --verify=crc32c \
        --verify_fatal=1 --do_verify=1 --group_reporting --output=fio.log || fail "$(cat fio.log)"
done

# Whoever is first, whether his pages are cached or not: what was written is what others read, also if
# they read while it is written.
/usr/bin/python3 - $file <<'P'
import concurrent.futures, errno, mmap, os, random, sys
path, size, block = sys.argv[1], 64 << 20, 4096

def read_all(fd):
    while not done:
        os.pread(fd, 1 << 20, random.randrange(size >> 20) << 20)

def write_some(fd, seed):
    buf = mmap.mmap(-1, block)
    for _ in range(400):
        at = random.randrange(64) * (size // block // 64) + seed
        buf[:] = random.randbytes(block)
        os.pwrite(fd, buf, at * block)
        last[at] = bytes(buf)

def can_be_shared(fd):
    try:
        mmap.mmap(fd, block, mmap.MAP_SHARED, mmap.PROT_READ).close()
        return True
    except OSError as e:
        if e.errno != errno.ENODEV:
            raise
        return False

for order in ("writer first", "reader first"):
    opens = [lambda: os.open(path, os.O_RDWR | os.O_DIRECT), lambda: os.open(path, os.O_RDONLY)]
    if order == "writer first":
        direct = opens[0]()
        cached = opens[1]()
    else:
        cached = opens[1]()
        direct = opens[0]()
    if can_be_shared(cached) != (order == "reader first"):
        sys.exit(f"{order}: both don't go the way of the first")
    os.pread(cached, 1 << 20, 0)
    last, done = {}, False
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read_all, cached)
        writers = [pool.submit(write_some, direct, i) for i in range(4)]
        concurrent.futures.wait(writers)
        done = True
    for thread in writers + [reader]:
        thread.result()
    for at, want in last.items():
        if os.pread(cached, block, at * block) != want:
            sys.exit(f"{order}: the other handle reads something else at block {at}")
    os.close(direct)
    os.close(cached)
    fd = os.open(path, os.O_RDONLY)
    for at, want in last.items():
        if os.pread(fd, block, at * block) != want:
            sys.exit(f"{order}: opened again, it has something else at block {at}")
    os.close(fd)
P
stop_mount
