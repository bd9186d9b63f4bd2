"""fio over NBD against nbdkit memory, file and the cow filter, and qemu-nbd

Unix socket, one connection, page cache warm; 4 KiB requests at depth 32, 1 MiB ones at depth 8.
nbdkit memory is what the protocol alone costs.
"""

import glob
import os

import content
import fio
import servers

OURS = "cowgate: a clone of a file"

def run(bench):
    size = bench.size(1 << 30)
    raw = bench.path("image.raw")
    with open(raw, "wb") as f:
        for _ in range(size >> 20):
            f.write(os.urandom(1 << 20))
    measures = fio.measures(bench, OURS)
    bench.cowgate("init")
    bench.cowgate("import", raw, "volumes/bench/full")
    for path in glob.glob(bench.path("root/pool/bench/full/*.data")):
        content.warm(path)  # an import goes around the page cache

    def contestant(name, socket, export, start):
        def all_workloads():
            server = start()
            uri = servers.uri(bench, socket, export)
            fio.run(bench, measures, name, ["--ioengine=nbd", "--uri=" + uri], size)
            bench.stop(server)
        return all_workloads

    def volume():
        return servers.cowgate(bench, "s")

    def clone():
        bench.remove("s")
        if os.path.exists(bench.path("root/pool/bench/clone")):
            bench.cowgate("delete", "volumes/bench/clone")
        bench.cowgate("clone", raw, "volumes/bench/clone")
        return servers.cowgate(bench, "s")

    def nbdkit(*argv):
        return lambda: servers.serve(bench, "k", "nbdkit", "-f", "-U", "SOCKET", *argv)

    def qemu_nbd(*options):
        def start():
            bench.remove("over.qcow2")
            bench.command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw,
                          *options, bench.path("over.qcow2"))
            return servers.serve(bench, "q", "qemu-nbd", "-t", "-f", "qcow2", "-k", "SOCKET",
                                 "--cache=writeback", "--aio=io_uring", bench.path("over.qcow2"))
        return start

    def file_copy():
        if not os.path.exists(bench.path("copy.raw")):
            bench.command("cp", raw, bench.path("copy.raw"))
        return nbdkit("file", bench.path("copy.raw"))()

    servers_by_name = [
        (OURS, "s", "volumes/bench/clone", clone, ["cowgate"]),
        ("cowgate: a volume", "s", "volumes/bench/full", volume, ["cowgate"]),
        ("nbdkit memory", "k", "", nbdkit("memory", "%d" % size), ["nbdkit"]),
        ("nbdkit file", "k", "", file_copy, ["nbdkit"]),
        ("nbdkit file + cow filter", "k", "", nbdkit("--filter=cow", "file", raw), ["nbdkit"]),
        ("qemu-nbd, qcow2 over raw", "q", "", qemu_nbd(), ["qemu-nbd", "qemu-img"]),
        ("qemu-nbd, qcow2 extended_l2", "q", "", qemu_nbd("-o", "extended_l2=on,cluster_size=64k"),
         ["qemu-nbd", "qemu-img"]),
    ]
    contestants = {}
    for name, socket, export, start, programs in servers_by_name:
        if bench.need(name, "fio", *programs):
            contestants[name] = contestant(name, socket, export, start)
    bench.rounds(contestants)
