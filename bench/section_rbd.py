"""Ceph images over NBD, and their backup, against fio's rbd engine, qemu-nbd and the tool rbd

One cluster with one OSD on this machine, without librbd's cache (which is what a served image has, so
that nothing acknowledged is lost with the server); unix socket, one connection.
"""

import json
import os

import ceph
import content
import fio
import servers

OURS = "cowgate"
FIO = "fio's rbd engine"
QEMU = "qemu-nbd rbd:"
EXPORT = "rbd export - | zstd -1 -T0"
EXPORT_DIFF = "rbd export-diff"
OBJECT = 4 << 20
CHANGED = 100  # objects


def new_root(bench):
    """An empty root that serves rbd/."""
    bench.remove("root")
    bench.cowgate("init")
    path = bench.path("root/cowgate.json")
    with open(path) as f:
        config = json.load(f)
    with open(path, "w") as f:
        json.dump(dict(config, rbd={}), f)


def image_io(bench, size):
    """The same image by all, one after the other."""
    tables = fio.measures(bench, OURS, "0.9 x fio's rbd engine, 1.2 x qemu-nbd")
    bench.command("rbd", "create", "rbd/io", "--size", "%dB" % size)
    bench.say("filling an image of %d MiB" % (size >> 20))
    engine = ["--ioengine=rbd", "--clientname=admin", "--pool=rbd", "--rbdname=io"]
    bench.command("fio", "--name=fill", *engine, "--rw=write", "--bs=4M", "--iodepth=4",
                  "--size=%d" % size, "--refill_buffers")

    def over_nbd(name, socket, export, start):
        def run():
            server = start()
            uri = servers.uri(bench, socket, export)
            fio.run(bench, tables, name, ["--ioengine=nbd", "--uri=" + uri], size)
            bench.stop(server)
        return run

    contestants = {
        OURS: over_nbd(OURS, "s", "rbd/rbd/io", lambda: servers.cowgate(bench, "s")),
        FIO: lambda: fio.run(bench, tables, FIO, engine, size),
    }
    if bench.need(QEMU, "qemu-nbd"):
        contestants[QEMU] = over_nbd(QEMU, "q", "", lambda: servers.serve(
            bench, "q", "qemu-nbd", "-t", "-f", "raw", "-k", "SOCKET", "--cache=none",
            "--discard=unmap", "rbd:rbd/io:conf=" + bench.env["CEPH_CONF"]))
    bench.rounds(contestants)
    bench.command("rbd", "rm", "--no-progress", "rbd/io")


def full_backup(bench, image, what):
    target = "2 x rbd export" if bench.need(EXPORT, "zstd") else None
    table = bench.measure("full backup of " + what, "s", False, OURS, target)

    def cowgate():
        new_root(bench)
        table.add(OURS, bench.timed("cowgate", "--quiet", "backup", "rbd/rbd/" + image,
                                    "backups/bench/" + image))

    def export():
        table.add(EXPORT, bench.timed(
            "bash", "-c", "set -o pipefail; rbd export --no-progress rbd/%s - | "
            "zstd -q -1 -T0 >out.zst" % image))
        bench.remove("out.zst")

    bench.rounds({OURS: cowgate, EXPORT: export} if target else {OURS: cowgate})


def incremental_backup(bench, image, size):
    table = bench.measure("backup after %d objects of it changed" % CHANGED, "s", False, OURS,
                          "1 / 1.5 x rbd export-diff")

    def cowgate():
        table.add(OURS, bench.timed("cowgate", "--quiet", "backup", "rbd/rbd/" + image,
                                    "backups/bench/" + image))

    def export_diff():
        bench.command("rbd", "snap", "create", "--no-progress", "rbd/%s@new" % image)
        table.add(EXPORT_DIFF, bench.timed("rbd", "export-diff", "--no-progress", "--from-snap",
                                           "old", "rbd/%s@new" % image, "out.diff"))
        bench.command("rbd", "snap", "rm", "--no-progress", "rbd/%s@old" % image)
        bench.command("rbd", "snap", "rename", "rbd/%s@new" % image, "rbd/%s@old" % image)
        bench.remove("out.diff")

    def change(seed):
        bench.command("fio", "--name=change", "--ioengine=rbd", "--clientname=admin", "--pool=rbd",
                      "--rbdname=" + image, "--rw=randwrite", "--bs=%d" % OBJECT, "--iodepth=4",
                      "--size=%d" % size, "--io_size=%d" % (CHANGED * OBJECT), "--refill_buffers",
                      "--randseed=%d" % seed)

    bench.command("rbd", "snap", "create", "--no-progress", "rbd/%s@old" % image)
    both = [cowgate, export_diff]
    for i in range(bench.repeat):
        change(i)
        bench.say("round %d of %d: incremental backup and export-diff" % (i + 1, bench.repeat))
        for function in both if i % 2 == 0 else reversed(both):
            function()


def run(bench):
    if not bench.need(OURS, "fio", "rbd", "ceph-osd", "ip"):
        return
    ceph.start(bench)
    new_root(bench)
    size = bench.size(1 << 30)
    image_io(bench, size)
    raw = content.image(bench, size)
    bench.command("rbd", "import", "--no-progress", raw, "rbd/full")
    bench.command("rbd", "import", "--no-progress", raw, "rbd/sparse")
    os.unlink(raw)
    bench.command("rbd", "resize", "--no-progress", "--size", "%dB" % (20 * size), "rbd/sparse")
    gib = size / (1 << 30)
    full_backup(bench, "full", "%g GiB full of data" % gib)
    full_backup(bench, "sparse", "%g GiB with %g GiB of data" % (20 * gib, gib))
    incremental_backup(bench, "sparse", 20 * size)
