"""the first and the second sequential read of a point, against qemu-storage-daemon's FUSE export

Both serve the same bytes, theirs as a qcow2 that isn't compressed.  Before a first read the kernel's
caches are dropped, those of repository and qcow2 with them.
"""

import os
import time

import content
import harness

OURS = "cowgate mount: a point"
QSD = "qemu-storage-daemon: a qcow2"
PLAIN = "limit: a plain file in the page cache"


def read_all(path):
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as f:
        buf, size = bytearray(1 << 20), 0
        while n := f.readinto(buf):
            size += n
    return size / (1 << 20) / (time.perf_counter() - start)


def run(bench):
    size = bench.size(2 << 30)
    image = content.image(bench, size)
    bench.cowgate("init")
    point = bench.cowgate("backup", image, "backups/bench/disk")
    bench.command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, bench.path("q.qcow2"))
    first = bench.measure("first sequential read", "MiB/s", True, OURS, "1.5 x", digits=0)
    second = bench.measure("second sequential read", "MiB/s", True, OURS, "10 x", digits=0)
    mount, export = bench.path("mnt"), bench.path("export")
    os.mkdir(mount)

    def measure(name, path):
        harness.drop_caches()
        first.add(name, read_all(path))
        second.add(name, read_all(path))

    def cowgate():
        bench.command("cowgate", "mount", mount, "--read-only")
        bench.undo.append(lambda: bench.unmount(mount))
        measure(OURS, os.path.join(mount, point))
        bench.command("cowgate", "umount", mount)

    def qsd():
        open(export, "wb").close()
        empty = os.stat(export).st_dev
        p = bench.start(["qemu-storage-daemon", "--blockdev",
                         "driver=qcow2,node-name=n,read-only=on,file.driver=file,file.filename=" +
                         bench.path("q.qcow2"), "--export",
                         "type=fuse,id=e,node-name=n,mountpoint=" + export],
                        lambda: os.stat(export).st_dev != empty, "qsd.log")
        bench.undo.append(lambda: bench.unmount(export))
        measure(QSD, export)
        bench.stop(p)

    def plain():
        read_all(image)
        second.add(PLAIN, read_all(image))

    contestants = {OURS: cowgate, PLAIN: plain}
    if bench.need(QSD, "qemu-storage-daemon"):
        contestants[QSD] = qsd
    bench.rounds(contestants)
