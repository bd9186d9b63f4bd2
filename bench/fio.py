"""fio's workloads."""

import collections
import json

# share: how much of the size is written, each block once; None: any block, for the bench's seconds.
Workload = collections.namedtuple("Workload", "name unit mode block depth share")

READ_4K = Workload("4 KiB random read", "IOPS", "randread", "4k", 32, None)
WRITE_4K = Workload("4 KiB random write", "IOPS", "randwrite", "4k", 32, None)
READ_1M = Workload("1 MiB sequential read", "MiB/s", "read", "1M", 8, None)
WRITE_1M = Workload("1 MiB sequential write", "MiB/s", "write", "1M", 8, None)

# Of blocks that the image has from below only, and then of the same blocks in the same order.
FIRST_TOUCH = WRITE_4K._replace(name="4 KiB random write, first touch", share=1 / 3)
SECOND_TOUCH = WRITE_4K._replace(name="4 KiB random write, second touch", share=1 / 3)

WORKLOADS = [READ_4K, WRITE_4K, READ_1M, WRITE_1M]


def measures(bench, ours, target=None, workloads=WORKLOADS):
    """A table for each workload; target: for all of them, or by workload."""
    return [bench.measure(w.name, w.unit, True, ours,
                          target.get(w) if isinstance(target, dict) else target, digits=0)
            for w in workloads]


def one(bench, engine, workload, size):
    """One workload on what the options engine name: operations or MiB a second."""
    if workload.share:
        amount = ["--io_size=%d" % (int(size * workload.share) >> 20 << 20)]
    else:
        amount = ["--runtime=%d" % bench.seconds, "--time_based", "--norandommap"]
    out = bench.command("fio", "--name=bench", *engine, "--rw=" + workload.mode,
                        "--bs=" + workload.block, "--iodepth=%d" % workload.depth,
                        "--size=%d" % size, "--randrepeat=1", "--group_reporting",
                        "--output-format=json", *amount)
    job = json.loads(out[out.index("{"):])["jobs"][0]
    side = job["read" if "read" in workload.mode else "write"]
    return side["iops"] if workload.block == "4k" else side["bw_bytes"] / (1 << 20)


def run(bench, tables, contestant, engine, size, workloads=WORKLOADS):
    """Each workload, into its table."""
    for table, workload in zip(tables, workloads):
        table.add(contestant, one(bench, engine, workload, size))
