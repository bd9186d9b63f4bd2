"""the first 4 KiB out of a 16 TiB point: time, and peak memory of who serves it

Of a server that has just started and has read nothing, with the caches of the kernel dropped.
"""

import os
import subprocess
import sys
import time

import harness
import servers

NBD = "NBD: connect, read 4 KiB"
FUSE = "FUSE: open, read 4 KiB"
COMMAND = "cowgate export to a pipe (whole command)"


CLIENT = """
import nbd, sys, time
start = time.perf_counter()
h = nbd.NBD()
h.connect_uri(sys.argv[1])
block = h.pread(4096, 0)
print(time.perf_counter() - start)
with open(sys.argv[2], "wb") as f:
    f.write(block)
h.shutdown()
"""


def python_with_libnbd():
    """libnbd's module belongs to the system's Python, which may not be the one that runs this."""
    for python in sys.executable, "/usr/bin/python3":
        if subprocess.run([python, "-c", "import nbd"], stderr=subprocess.DEVNULL).returncode == 0:
            return python
    return None


def run(bench):
    size = bench.size(16 << 40)
    bench.cowgate("init")
    # Not every file system has files of that size; nbdkit's memory has.
    server = servers.serve(bench, "source", "nbdkit", "-f", "-U", "SOCKET", "memory", "%d" % size)
    writes = []
    for i in range(16):
        writes += ["-c", "write -P %d %d 8M" % (i + 1, size // 16 * i)]
    source = servers.uri(bench, "source")
    bench.command("qemu-io", "-f", "raw", *writes, source)
    point = bench.cowgate("backup", source, "backups/bench/big")
    bench.stop(server)
    latency = bench.measure("first 4 KiB", "ms", False, target="under 50 ms", digits=1)
    memory = bench.measure("peak memory", "MiB", False, target="under 64 MiB", digits=1)

    def check(data):
        if data != b"\1" * 4096:
            raise harness.Failure("wrong bytes")

    def nbd():
        harness.drop_caches()
        s = servers.cowgate(bench, "s", "--read-only")
        out = bench.path("block")
        latency.add(NBD, 1000 * float(bench.command(python, "-c", CLIENT,
                                                    servers.uri(bench, "s", point), out)))
        memory.add(NBD, harness.peak_memory(s.pid))
        bench.stop(s)
        with open(out, "rb") as f:
            check(f.read())

    def fuse():
        mount = bench.path("mnt")
        os.makedirs(mount, exist_ok=True)
        harness.drop_caches()
        s = bench.start(["cowgate", "mount", "--foreground", mount],
                        lambda: os.path.ismount(mount), "fuse.log")
        bench.undo.append(lambda: bench.unmount(mount))
        start = time.perf_counter()
        with open(os.path.join(mount, point), "rb", buffering=0) as f:
            data = f.read(4096)
        latency.add(FUSE, 1000 * (time.perf_counter() - start))
        check(data)
        memory.add(FUSE, harness.peak_memory(s.pid))
        bench.command("cowgate", "umount", mount)
        s.wait()

    def command():
        harness.drop_caches()
        start = time.perf_counter()
        p = subprocess.Popen(["cowgate", "--quiet", "export", point, "-"], env=bench.env,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        check(p.stdout.read(4096))
        latency.add(COMMAND, 1000 * (time.perf_counter() - start))
        memory.add(COMMAND, harness.peak_memory(p.pid))
        p.stdout.close()
        p.kill()
        p.wait()

    contestants = {FUSE: fuse, COMMAND: command}
    python = python_with_libnbd()
    if python:
        contestants = {NBD: nbd, **contestants}
    else:
        bench.need(NBD, "nbdsh (libnbd for Python)")
    bench.rounds(contestants)
