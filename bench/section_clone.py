"""clones and snapshots of a 1 TiB and of a 1 GiB volume, and the memory that a 1 TiB map takes

As whole commands, against a qcow2 overlay; and inside a process, by a program of bench/ that times
the calls.  The snapshot's volume is being served.

Memory is what the server took more after it was asked for a block of each 64 MiB.  The fully
written volume has a map in which each block has data; its data file is a hole of 1 TiB, which
nothing of the map depends on.
"""

import glob
import os
import subprocess

import harness
import servers

OURS = "cowgate: 1 TiB"
SIZES = {"1 TiB": 1 << 40, "1 GiB": 1 << 30}
QCOW2 = "qemu-img create -b (qcow2 over qcow2), 1 TiB"
BLOCK, HEADER, WINDOW = 4096, 4096, 64 << 20


def name_of(size):
    return "volumes/bench/" + size.replace(" ", "")


def make(bench):
    """Volumes of which some is written, and a qcow2 like the larger one."""
    bench.command("qemu-img", "create", "-q", "-f", "qcow2", bench.path("base.qcow2"), "1T")
    server = servers.cowgate(bench, "s")
    for text, size in SIZES.items():
        fill = ["-c", "write -P 7 0 64M", "-c", "write -P 8 %d 64M" % (size // 2), "-c", "flush"]
        bench.cowgate("create", name_of(text), "--size", "%d" % size)
        bench.command("qemu-io", "-f", "raw", *fill, servers.uri(bench, "s", name_of(text)))
        if size == 1 << 40:
            bench.command("qemu-io", "-f", "qcow2", *fill, bench.path("base.qcow2"))
    bench.stop(server)


def hold(bench, volume, command):
    """A client that has done one command and keeps the volume open."""
    p = subprocess.Popen(["qemu-io", "-f", "raw", servers.uri(bench, "s", volume)], env=bench.env,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    bench.undo.append(lambda: bench.stop(p))
    p.stdin.write(command + "\n")
    p.stdin.flush()
    while "bytes at offset" not in (line := p.stdout.readline()):
        if not line:
            raise harness.Failure("qemu-io: '%s' failed on %s" % (command, volume))
    return p


def commands(bench):
    clone = bench.measure("clone, a whole command", "ms", False, OURS, "under 30 ms", digits=1)
    snapshot = bench.measure("snapshot of a volume that is served, a whole command", "ms", False,
                             OURS, "under 30 ms", digits=1)
    count = 0

    def cowgate(size):
        def run():
            nonlocal count
            count += 1
            new = "volumes/bench/c%d" % count
            clone.add("cowgate: " + size, 1000 * bench.timed("cowgate", "clone", name_of(size), new))
            bench.cowgate("delete", new)
            snapshot.add("cowgate: " + size, 1000 * bench.timed("cowgate", "snapshot", "%s@s%d" %
                                                                (name_of(size), count)))
        return run

    def qcow2():
        bench.remove("clone.qcow2")
        clone.add(QCOW2, 1000 * bench.timed("qemu-img", "create", "-q", "-f", "qcow2", "-F",
                                            "qcow2", "-b", bench.path("base.qcow2"),
                                            bench.path("clone.qcow2")))

    server = servers.cowgate(bench, "s")
    for size in SIZES:
        hold(bench, name_of(size), "write -P 9 0 4k")
    contestants = {"cowgate: " + size: cowgate(size) for size in SIZES}
    if bench.need(QCOW2, "qemu-img"):
        contestants[QCOW2] = qcow2
    bench.repeat *= 5
    bench.rounds(contestants)
    bench.repeat //= 5
    bench.stop(server)


def inside(bench):
    program = os.path.join(os.environ.get("abs_builddir", ""), "bench", "inside")
    clone = bench.measure("clone, inside a process", "ms", False, OURS, "under 10 ms")
    snapshot = bench.measure("snapshot of a written volume, inside a process", "ms", False, OURS,
                             "under 10 ms")
    count = 0

    def calls(size):
        def run():
            nonlocal count
            count += 1
            base = "volumes/bench/i%d" % count
            bench.cowgate("clone", name_of(size), base)
            for measure, arguments in (clone, ["clone", base, base + "x"]), (snapshot,
                                                                            ["snapshot", base]):
                for ms in bench.command(program, *arguments, "10").split():
                    measure.add("cowgate: " + size, float(ms))
        return run

    bench.rounds({"cowgate: " + size: calls(size) for size in SIZES})


def fill_map(bench, volume):
    """Says in the map of a new volume that each block has data (docs/format-volumes.md)."""
    path, = glob.glob(bench.path("root/pool", volume.split("/", 1)[1], "*.map"))
    with open(path, "r+b") as f:
        f.seek(HEADER)
        for _ in range(SIZES["1 TiB"] // BLOCK // 4 >> 20):
            f.write(b"\x55" * (1 << 20))


def touch(bench, volume, command):
    """A block of each window."""
    p = subprocess.run(["qemu-io", "-f", "raw", servers.uri(bench, "s", volume)], env=bench.env,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       input="".join(command % at + "\n"
                                     for at in range(0, SIZES["1 TiB"], WINDOW)))
    if p.returncode != 0 or "failed" in p.stdout:
        raise harness.Failure(p.stdout[-2000:])


def memory(bench):
    untouched = bench.measure("memory for an untouched 1 TiB volume", "MiB", False,
                              target="under 1 MiB")
    full = bench.measure("memory for the map of a 1 TiB volume", "MiB", False,
                         target="under 80 MiB", digits=1)
    empty, written = "volumes/bench/untouched", "volumes/bench/written"
    bench.cowgate("create", empty, "--size", "1T")
    bench.cowgate("create", written, "--size", "1T")
    fill_map(bench, written)

    def served(volume, *steps):
        """What a server's memory has grown by after each step: (measure, name, command)."""
        server = servers.cowgate(bench, "s")
        clients = [hold(bench, name_of("1 GiB"), "read 0 4k")]  # for what any volume takes
        before = harness.memory(server.pid)
        clients.append(hold(bench, volume, "read 0 4k"))
        for measure, name, command in steps:
            if command:
                touch(bench, volume, command)
            measure.add(name, harness.memory(server.pid) - before)
        for client in clients:
            bench.stop(client)
        bench.stop(server)

    def blank():
        served(empty, (untouched, "cowgate: opened", None),
               (untouched, "cowgate: a block of each 64 MiB read", "read %d 4k"))

    def read_and_written():
        served(written, (full, "cowgate: fully written, read", "read %d 4k"),
               (full, "cowgate: fully written, read, then written", "write -z -u %d 4k"))

    def fresh():
        fresh = "volumes/bench/fresh"
        bench.cowgate("create", fresh, "--size", "1T")
        served(fresh, (full, "cowgate: written block after block", "write -P 1 %d 4k"))
        bench.cowgate("delete", fresh)

    bench.rounds({"untouched": blank, "fully written": read_and_written, "written now": fresh})


def run(bench):
    bench.cowgate("init")
    make(bench)
    commands(bench)
    inside(bench)
    memory(bench)
