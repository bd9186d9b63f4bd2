"""files of a mount against qemu-storage-daemon's FUSE export and nbdfuse

A point: the first and the second sequential read; both serve the same bytes, theirs as a qcow2 that
isn't compressed.  Before a first read the kernel's caches are dropped, those of repository and qcow2
with them.

A volume: a clone of a file, as a qcow2 overlay of the same file; nbdfuse shows nbdkit's file plugin,
which copies nothing on write.  What lies below is in the page cache.  fio's four threads go around
the cache of the mount (O_DIRECT).
"""

import os
import time

import content
import fio
import harness
import servers

OURS = "cowgate mount: a point"
QSD = "qemu-storage-daemon: a qcow2"
PLAIN = "limit: a plain file in the page cache"

VOLUME = "cowgate mount: a clone of a file"
OVERLAY = "qemu-storage-daemon: qcow2 over raw"
SUBCLUSTERS = "qemu-storage-daemon: extended_l2, io_uring"
NBDFUSE = "nbdfuse: nbdkit file"
FILE = PLAIN
THREADS = 4
WORKLOADS = [fio.READ_4K, fio.WRITE_4K]


def read_all(path):
    start = time.perf_counter()
    with open(path, "rb", buffering=0) as f:
        buf, size = bytearray(1 << 20), 0
        while n := f.readinto(buf):
            size += n
    return size / (1 << 20) / (time.perf_counter() - start)


def storage_daemon(bench, blockdev, writable):
    """qemu-storage-daemon with a file over the node `blockdev`; the file and its process."""
    export = bench.path("export")
    open(export, "wb").close()
    empty = os.stat(export).st_dev
    p = bench.start(["qemu-storage-daemon", "--blockdev", "node-name=n," + blockdev, "--export",
                     "type=fuse,id=e,node-name=n,mountpoint=%s,writable=%s" %
                     (export, "on" if writable else "off")],
                    lambda: os.stat(export).st_dev != empty, "qsd.log")
    bench.undo.append(lambda: bench.unmount(export))
    return export, p


def mounted(bench, *options):
    mount = bench.path("mnt")
    os.makedirs(mount, exist_ok=True)
    bench.command("cowgate", "mount", mount, *options)
    bench.undo.append(lambda: bench.unmount(mount))
    return mount


def points(bench, image):
    point = bench.cowgate("backup", image, "backups/bench/disk")
    bench.command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image, bench.path("q.qcow2"))
    first = bench.measure("first sequential read", "MiB/s", True, OURS, "1.5 x", digits=0)
    second = bench.measure("second sequential read", "MiB/s", True, OURS, "10 x", digits=0)

    def measure(name, path):
        harness.drop_caches()
        first.add(name, read_all(path))
        second.add(name, read_all(path))

    def cowgate():
        mount = mounted(bench, "--read-only")
        measure(OURS, os.path.join(mount, point))
        bench.command("cowgate", "umount", mount)

    def qsd():
        export, p = storage_daemon(
            bench, "driver=qcow2,read-only=on,file.driver=file,file.filename=" +
            bench.path("q.qcow2"), False)
        measure(QSD, export)
        bench.stop(p)

    def plain():
        read_all(image)
        second.add(PLAIN, read_all(image))

    contestants = {}
    for name, function, programs in [(OURS, cowgate, ["cowgate"]), (PLAIN, plain, []),
                                     (QSD, qsd, ["qemu-storage-daemon"])]:
        if bench.need(name, *programs):
            contestants[name] = function
    bench.rounds(contestants)


def volumes(bench, image, size):
    first = bench.measure("a volume's first sequential read", "MiB/s", True, VOLUME, "2 x", digits=0)
    tables = fio.measures(bench, VOLUME, {fio.READ_4K: "1.2 x qemu", fio.WRITE_4K: "5 x qemu"},
                          WORKLOADS)

    def measure(name, path, direct=1):
        content.warm(image)
        first.add(name, read_all(path))
        engine = ["--ioengine=psync", "--filename=" + path, "--direct=%d" % direct,
                  "--numjobs=%d" % THREADS, "--allow_file_create=0"]
        fio.run(bench, tables, name, engine, size, WORKLOADS)

    def cowgate():
        if os.path.exists(bench.path("root/pool/bench/disk")):
            bench.cowgate("delete", "volumes/bench/disk")
        bench.cowgate("clone", image, "volumes/bench/disk")
        mount = mounted(bench)
        measure(VOLUME, os.path.join(mount, "volumes/bench/disk"))
        bench.command("cowgate", "umount", mount)

    def qsd(name, create, node):
        def run():
            over = bench.path("over.qcow2")
            bench.remove("over.qcow2")
            bench.command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image,
                          *create, over)
            export, p = storage_daemon(
                bench, "driver=qcow2,file.driver=file,file.filename=" + over + node, True)
            measure(name, export)
            bench.stop(p)
        return run

    def copy():
        bench.command("cp", "--sparse=never", image, bench.path("copy.raw"))
        return bench.path("copy.raw")

    def nbdfuse():
        server = servers.serve(bench, "k", "nbdkit", "-f", "-U", "SOCKET", "file", copy())
        path = bench.path("nbdfuse")
        open(path, "wb").close()
        p = bench.start(["nbdfuse", path, "--unix", bench.path("k")],
                        lambda: os.path.ismount(path), "nbdfuse.log")
        bench.undo.append(lambda: bench.unmount(path))
        measure(NBDFUSE, path)
        bench.unmount(path)
        bench.stop(p)
        bench.stop(server)

    contestants = {}
    for name, function, programs in [
            (VOLUME, cowgate, ["cowgate"]),
            (OVERLAY, qsd(OVERLAY, [], ""), ["qemu-storage-daemon"]),
            (SUBCLUSTERS, qsd(SUBCLUSTERS, ["-o", "extended_l2=on,cluster_size=64k"],
                              ",file.aio=io_uring"), ["qemu-storage-daemon"]),
            (NBDFUSE, nbdfuse, ["nbdfuse", "nbdkit"]),
            (FILE, lambda: measure(FILE, copy(), direct=0), [])]:
        if bench.need(name, "fio", *programs):
            contestants[name] = function
    bench.rounds(contestants)


def run(bench):
    size = bench.size(2 << 30)
    image = content.image(bench, size)
    bench.cowgate("init")
    points(bench, image)
    volumes(bench, image, min(size, 1 << 30))
