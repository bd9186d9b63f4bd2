"""a full backup of an image of real files, and its restore, against borg, restic and the limit

The limit is what one must do: zstd -1 on all cores, written to a file, plus HMAC-SHA256 of the same
bytes on all cores.  All read the image from the page cache and write to the same file system.
cowgate's restore ends with what it wrote on the disk, borg's and restic's in the page cache.
"""

import os
import subprocess
import time

import content
from harness import Failure

OURS = "cowgate"
BORG = "borg (zstd,1, keyed ids, not encrypted)"
RESTIC = "restic (encrypts always)"
LIMIT = "limit: zstd -1 -T0 plus HMAC-SHA256"


def hmac_all(bench, path, size):
    """HMAC-SHA256 of the bytes, in as many pieces as there are processors."""
    count = len(os.sched_getaffinity(0))
    piece = -(-size // count)
    piece += -piece % (1 << 20)
    start = time.perf_counter()
    running = []
    for i in range(count):
        dd = subprocess.Popen(["dd", "if=" + path, "bs=1M", "skip=%d" % (i * (piece >> 20)),
                               "count=%d" % (piece >> 20), "status=none"], stdout=subprocess.PIPE)
        openssl = subprocess.Popen(["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt",
                                    "hexkey:" + "00" * 32], stdin=dd.stdout,
                                   stdout=subprocess.DEVNULL)
        dd.stdout.close()
        running += [dd, openssl]
    if any([p.wait() for p in running]):
        raise Failure("openssl dgst failed")
    return time.perf_counter() - start


def run(bench):
    size = bench.size(3 << 30)
    image = content.image(bench, size)
    content.warm(image)
    backup = bench.measure("full backup", "s", False, OURS,
                           "2 x borg, 2.5 x restic, 0.85 x the limit")
    restore = bench.measure("restore into an empty file", "s", False, OURS, "2 x borg")
    stored = bench.measure("stored", "MiB", False, OURS, digits=0)

    def check(path):
        bench.command("cmp", path, image)

    def du(name):
        return int(bench.command("du", "-sk", bench.path(name)).split()[0]) / 1024

    def cowgate():
        bench.remove("root", "out.raw")
        bench.cowgate("init")
        backup.add(OURS, bench.timed("cowgate", "--quiet", "backup", image, "backups/bench/disk"))
        stored.add(OURS, du("root/repo"))
        restore.add(OURS, bench.timed("cowgate", "--quiet", "restore", "backups/bench/disk/latest",
                                      bench.path("out.raw")))
        check("out.raw")
        bench.remove("root", "out.raw")

    def borg():
        bench.remove("borg", "borg-home", "borg-out")
        bench.command("borg", "init", "-e", "authenticated", bench.path("borg"))
        backup.add(BORG, bench.timed("borg", "create", "--compression", "zstd,1",
                                     bench.path("borg") + "::a", "image.raw"))
        stored.add(BORG, du("borg"))
        os.mkdir(bench.path("borg-out"))
        restore.add(BORG, bench.timed("borg", "extract", bench.path("borg") + "::a",
                                      cwd=bench.path("borg-out")))
        check("borg-out/image.raw")
        bench.remove("borg", "borg-home", "borg-out")

    def restic():
        bench.remove("restic", "restic-cache", "restic-out")
        bench.command("restic", "init", "-r", bench.path("restic"))
        backup.add(RESTIC, bench.timed("restic", "backup", "-r", bench.path("restic"), image))
        stored.add(RESTIC, du("restic"))
        restore.add(RESTIC, bench.timed("restic", "restore", "-r", bench.path("restic"), "latest",
                                        "--target", bench.path("restic-out")))
        check("restic-out" + image)
        bench.remove("restic", "restic-cache", "restic-out")

    def limit():
        zstd = bench.timed("zstd", "-q", "-1", "-T0", "-f", image, "-o", bench.path("out.zst"))
        backup.add(LIMIT, zstd + hmac_all(bench, image, size))
        stored.add(LIMIT, du("out.zst"))
        bench.remove("out.zst")

    contestants = {OURS: cowgate}
    if bench.need(BORG, "borg"):
        contestants[BORG] = borg
    if bench.need(RESTIC, "restic"):
        contestants[RESTIC] = restic
    if bench.need(LIMIT, "zstd", "openssl"):
        contestants[LIMIT] = limit
    bench.rounds(contestants)
