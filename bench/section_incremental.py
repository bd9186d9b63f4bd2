"""the second backup of a 1 TiB and of a 10 GiB volume with 64 MiB changed"""

import os

import servers

CHANGED = 64 << 20
SIZES = {"1 TiB": "1T", "10 GiB": "10G"}


def run(bench):
    bench.cowgate("init")
    measure = bench.measure("second backup, 64 MiB changed", "s", False,
                            target="under 2 s, and 1 TiB as 10 GiB")
    with open(bench.path("piece"), "wb") as f:
        for _ in range(CHANGED >> 20):
            f.write(os.urandom(1 << 20))

    def write(volume, offset):
        server = servers.cowgate(bench, "s")
        bench.command("qemu-io", "-f", "raw", "-c",
                      "write -s %s %d %d" % (bench.path("piece"), offset, CHANGED), "-c", "flush",
                      servers.uri(bench, "s", volume))
        bench.stop(server)

    def piece_again():
        """New bytes: what is stored already wouldn't be stored again."""
        with open(bench.path("piece"), "r+b") as f:
            for i in range(CHANGED >> 12):
                f.seek(i << 12)
                f.write(os.urandom(16))

    def contestant(name, volume):
        def second():
            piece_again()
            write(volume, 1 << 30)
            measure.add(name, bench.timed("cowgate", "--quiet", "backup", volume))
        return second

    contestants = {}
    for name, size in SIZES.items():
        volume = "volumes/bench/v" + size
        bench.cowgate("create", volume, "--size", size)
        for offset in 0, 1 << 30, 5 << 30:
            piece_again()
            write(volume, offset)
        bench.cowgate("backup", volume)
        contestants[name] = contestant(name, volume)
    bench.rounds(contestants)
    bench.note("1 TiB takes %.2f times as long as 10 GiB" % (measure.median("1 TiB") /
                                                             measure.median("10 GiB")))
