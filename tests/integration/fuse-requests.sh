# Requests of the size that is asked for; and with many of them under way, what is opened next still
# sees what others wrote meanwhile.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/fuse-functions.sh"
requires nbd_python -c 'import nbd'

cowgate init
cowgate create volumes/acme/data --size 32M
mkdir mnt
for wrong in 0 4095 x -1 4096x 99999999999; do
    must_fail 1 "max_read is a number of bytes from 4096 on, not '$wrong'" \
        cowgate-fuse "$COWGATE_ROOT" mnt -o max_read=$wrong
done

# While the kernel reads other files ahead, with all the requests that it makes at once, it still tells
# of a close before it tells of the open that follows.
cowgate create volumes/acme/other --size 64M
start_serve "$tmp/s"
for max in 4096 1048576; do
    start_mount max_read=$max
    grep "$tmp/mnt" /proc/self/mountinfo | grep -q "max_read=$max" || fail "$(grep "$tmp/mnt" /proc/self/mountinfo)"
    nbd_python - "$(uri "$tmp/s" volumes/acme/data)" $max <<'PY'
import nbd, os, sys, threading
h = nbd.NBD()
h.connect_uri(sys.argv[1])
done = False

def read_ahead():
    fd = os.open("mnt/volumes/acme/other", os.O_RDONLY)
    while not done:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)

def round(n):
    fd = os.open("mnt/volumes/acme/data", os.O_RDONLY)
    for off in range(0, h.get_size(), 1 << 20):
        h.pwrite(bytes([n]) * (1 << 20), off)
    os.close(fd)
    with open("mnt/volumes/acme/data", "rb") as f:
        got = f.read()
    if got.strip(bytes([n])):
        print(f"max_read={sys.argv[2]}: the file as opened after write {n} has {set(got)}")
        return False
    return True

others = [threading.Thread(target=read_ahead) for _ in range(3)]
for t in others:
    t.start()
ok = all(round(n) for n in range(1, 7))
done = True
for t in others:
    t.join()
h.shutdown()
sys.exit(not ok)
PY
    stop_mount
done
