"""a clone of a 1 TiB volume as a whole command, against a qcow2 overlay"""

import servers

OURS = "cowgate clone"
QCOW2 = "qemu-img create -b (qcow2 over qcow2)"


def run(bench):
    size = "%d" % bench.size(1 << 40)
    bench.cowgate("init")
    bench.cowgate("create", "volumes/bench/base", "--size", size)
    bench.command("qemu-img", "create", "-q", "-f", "qcow2", bench.path("base.qcow2"), size)
    server = servers.cowgate(bench, "s")
    fill = ["-c", "write -P 7 0 64M", "-c", "write -P 8 %d 64M" % (int(size) // 2), "-c", "flush"]
    bench.command("qemu-io", "-f", "raw", *fill, servers.uri(bench, "s", "volumes/bench/base"))
    bench.stop(server)
    bench.command("qemu-io", "-f", "qcow2", *fill, bench.path("base.qcow2"))
    measure = bench.measure("clone", "ms", False, OURS, "under 30 ms", digits=1)
    bench.repeat *= 5
    count = 0

    def cowgate():
        nonlocal count
        count += 1
        measure.add(OURS, 1000 * bench.timed("cowgate", "clone", "volumes/bench/base",
                                             "volumes/bench/c%d" % count))

    def qcow2():
        bench.remove("clone.qcow2")
        measure.add(QCOW2, 1000 * bench.timed("qemu-img", "create", "-q", "-f", "qcow2", "-F",
                                              "qcow2", "-b", bench.path("base.qcow2"),
                                              bench.path("clone.qcow2")))

    contestants = {OURS: cowgate}
    if bench.need(QCOW2, "qemu-img"):
        contestants[QCOW2] = qcow2
    bench.rounds(contestants)
