"""fio and nbdcopy over NBD against nbdkit memory, file and the cow filter, and qemu-nbd

Unix socket, page cache warm.  fio has one connection, 4 KiB requests at depth 32 and 1 MiB ones at
depth 8; nbdcopy has four connections.  nbdkit memory is what the protocol alone costs.  Then what
layers cost: random reads through many of them, beside a volume with one.
"""

import glob
import os

import content
import fio
import servers

OURS = "cowgate: a clone of a file"
WORKLOADS = [fio.READ_4K, fio.READ_1M, fio.FIRST_TOUCH, fio.SECOND_TOUCH, fio.WRITE_1M]
TARGETS = {
    fio.READ_4K: "1.15 x qemu-nbd, 0.85 x nbdkit memory",
    fio.FIRST_TOUCH: "2 x qemu-nbd, 0.75 x nbdkit memory",
    fio.READ_1M: "2.5 x qemu-nbd",
    fio.WRITE_1M: "1.5 x qemu-nbd",
}

ONE = "cowgate: a volume with one layer"
FRESH = "cowgate: a fresh clone of it"
FRAGMENTED = "cowgate: a clone, every other 4 KiB its own"
CLONES, SNAPSHOTS = 16, 100
CHAIN = "qemu-nbd: %d qcow2 overlays" % CLONES
QEMU_ONE = "qemu-nbd: one qcow2"


def qemu_nbd(bench, socket, path, *options):
    return servers.serve(bench, socket, "qemu-nbd", "-t", "-f", "qcow2", "-k", "SOCKET", *options,
                         path)


def make_raw(bench, size):
    raw = bench.path("image.raw")
    with open(raw, "wb") as f:
        for _ in range(size >> 20):
            f.write(os.urandom(1 << 20))
    return raw


def warm_layers(bench):
    for path in glob.glob(bench.path("root/pool/bench/*/*.data")):
        content.warm(path)  # an import goes around the page cache


def one_layer(bench, size, raw):
    measures = fio.measures(bench, OURS, TARGETS, WORKLOADS)
    copy = bench.measure("nbdcopy to nowhere, 4 connections", "MiB/s", True, OURS, digits=0)

    def contestant(name, socket, export, start):
        def all_workloads():
            server = start()
            uri = servers.uri(bench, socket, export)
            fio.run(bench, measures, name, ["--ioengine=nbd", "--uri=" + uri], size, WORKLOADS)
            seconds = bench.timed("nbdcopy", "--connections=4", uri, "null:")
            copy.add(name, (size >> 20) / seconds)
            bench.stop(server)
        return all_workloads

    def cowgate_with(volume, *make):
        def start():
            if os.path.exists(bench.path("root/pool/bench", volume)):
                bench.cowgate("delete", "volumes/bench/" + volume)
            bench.cowgate(*make, "volumes/bench/" + volume)
            warm_layers(bench)
            return servers.cowgate(bench, "s")
        return start

    def nbdkit(*argv):
        return lambda: servers.serve(bench, "k", "nbdkit", "-f", "-U", "SOCKET", *argv)

    def qcow2(create, *options):
        def start():
            bench.remove("over.qcow2")
            bench.command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw,
                          *create, bench.path("over.qcow2"))
            return qemu_nbd(bench, "q", bench.path("over.qcow2"), *options)
        return start

    def file_copy():
        bench.command("cp", "--sparse=never", raw, bench.path("copy.raw"))
        return nbdkit("file", bench.path("copy.raw"))()

    qemu = ["qemu-nbd", "qemu-img"]
    servers_by_name = [
        (OURS, "s", "volumes/bench/a", cowgate_with("a", "clone", raw), ["cowgate"]),
        ("cowgate: a clone of a volume", "s", "volumes/bench/b",
         cowgate_with("b", "clone", "volumes/bench/full"), ["cowgate"]),
        ("cowgate: an imported volume", "s", "volumes/bench/c", cowgate_with("c", "import", raw),
         ["cowgate"]),
        ("nbdkit memory", "k", "", nbdkit("memory", "%d" % size), ["nbdkit"]),
        ("nbdkit file", "k", "", file_copy, ["nbdkit"]),
        ("nbdkit file + cow filter", "k", "", nbdkit("--filter=cow", "file", raw), ["nbdkit"]),
        ("qemu-nbd, qcow2 over raw", "q", "", qcow2([]), qemu),
        ("qemu-nbd, extended_l2, io_uring", "q", "",
         qcow2(["-o", "extended_l2=on,cluster_size=64k"], "--aio=io_uring", "--cache=writeback"),
         qemu),
    ]
    contestants = {}
    for name, socket, export, start, programs in servers_by_name:
        if bench.need(name, "fio", "nbdcopy", *programs):
            contestants[name] = contestant(name, socket, export, start)
    bench.rounds(contestants)


def write_some(bench, uri, size, seed, parts):
    """4 KiB blocks here and there, one in so many parts of all."""
    bench.command("fio", "--name=some", "--ioengine=nbd", "--uri=" + uri, "--rw=randwrite",
                  "--bs=4k", "--iodepth=32", "--size=%d" % size, "--randseed=%d" % seed,
                  "--io_size=%d" % (size // parts >> 12 << 12))


def make_depth(bench, size, raw):
    """The volumes; returns their names by contestant."""
    server = servers.cowgate(bench, "s")

    def volume(name):
        return "volumes/bench/" + name

    def uri(name):
        return servers.uri(bench, "s", volume(name))

    bench.say("making %d clones of clones" % CLONES)
    bench.cowgate("clone", volume("full"), volume("fresh"))
    for i in range(CLONES):
        bench.cowgate("clone", volume("g%d" % (i - 1) if i else "full"), volume("g%d" % i))
        write_some(bench, uri("g%d" % i), size, i + 1, 2 * CLONES)
    bench.say("making %d snapshots" % SNAPSHOTS)
    bench.cowgate("import", raw, volume("snapshots"))
    for i in range(SNAPSHOTS):
        bench.cowgate("snapshot", volume("snapshots@%d" % i))
        write_some(bench, uri("snapshots"), size, i + 1, 2 * SNAPSHOTS)
    bench.cowgate("clone", volume("full"), volume("fragmented"))
    bench.command("fio", "--name=every-other", "--ioengine=nbd", "--uri=" + uri("fragmented"),
                  "--rw=write:4k", "--bs=4k", "--iodepth=32", "--size=%d" % size)
    bench.stop(server)
    return {ONE: volume("full"), FRESH: volume("fresh"), FRAGMENTED: volume("fragmented"),
            "cowgate: %d clones deep" % CLONES: volume("g%d" % (CLONES - 1)),
            "cowgate: %d snapshots" % SNAPSHOTS: volume("snapshots")}


def make_qcow2_chain(bench, size, raw):
    bench.say("making %d qcow2 overlays" % CLONES)
    bench.command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, bench.path("0.qcow2"))
    for i in range(CLONES):
        path = bench.path("%d.qcow2" % (i + 1))
        bench.command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
                      bench.path("%d.qcow2" % i), path)
        server = qemu_nbd(bench, "q", path)
        write_some(bench, servers.uri(bench, "q"), size, i + 1, 2 * CLONES)
        bench.stop(server)
    return {QEMU_ONE: bench.path("0.qcow2"), CHAIN: bench.path("%d.qcow2" % CLONES)}


def depth(bench, size, raw):
    workloads = [fio.READ_4K, fio.READ_1M]
    measures = [bench.measure(w.name + " through layers", w.unit, True, target=target, digits=0,
                              base=ONE)
                for w, target in zip(workloads, ["0.9 x, fragmented 0.8 x", None])]

    def contestant(name, socket, export, start):
        def read():
            server = start()
            uri = servers.uri(bench, socket, export)
            fio.run(bench, measures, name, ["--ioengine=nbd", "--uri=" + uri], size, workloads)
            bench.stop(server)
        return read

    contestants = {}
    if bench.need("cowgate: layers", "fio", "cowgate"):
        for name, volume in make_depth(bench, size, raw).items():
            contestants[name] = contestant(name, "s", volume, lambda: servers.cowgate(bench, "s"))
        warm_layers(bench)
    if bench.need(CHAIN, "fio", "qemu-nbd", "qemu-img"):
        for name, path in make_qcow2_chain(bench, size, raw).items():
            contestants[name] = contestant(name, "q", "",
                                           lambda path=path: qemu_nbd(bench, "q", path))
    bench.rounds(contestants)


def run(bench):
    size = bench.size(1 << 30)
    raw = make_raw(bench, size)
    bench.cowgate("init")
    bench.cowgate("import", raw, "volumes/bench/full")
    one_layer(bench, size, raw)
    depth(bench, size, raw)
