"""fio's four workloads."""

import json

WORKLOADS = [
    ("4 KiB random read", "IOPS", "randread", "4k", 32),
    ("4 KiB random write", "IOPS", "randwrite", "4k", 32),
    ("1 MiB sequential read", "MiB/s", "read", "1M", 8),
    ("1 MiB sequential write", "MiB/s", "write", "1M", 8),
]


def measures(bench, ours, target=None):
    """A table for each workload."""
    return [bench.measure(name, unit, True, ours, target, digits=0)
            for name, unit, *_ in WORKLOADS]


def run(bench, tables, contestant, engine, size):
    """Each workload on what the options engine name, into its table."""
    for table, (_, _, mode, block, depth) in zip(tables, WORKLOADS):
        out = bench.command("fio", "--name=bench", *engine, "--rw=" + mode, "--bs=" + block,
                            "--iodepth=%d" % depth, "--size=%d" % size,
                            "--runtime=%d" % bench.seconds, "--time_based", "--randrepeat=1",
                            "--norandommap", "--output-format=json")
        job = json.loads(out[out.index("{"):])["jobs"][0]
        side = job["read" if "read" in mode else "write"]
        table.add(contestant, side["iops"] if block == "4k" else side["bw_bytes"] / (1 << 20))
