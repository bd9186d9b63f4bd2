"""Measures cowgate beside its peers, side by side in one run.

Each section runs every contestant once per round, in turns, so that what else the machine does hits
all alike; it prints medians, the spread, and how many times better cowgate is than each peer.  A
ratio says something, a number alone says little: it is this machine's, today.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys

import harness
import plot
import section_backup
import section_clone
import section_first_byte
import section_fuse
import section_incremental
import section_migrate
import section_nbd
import section_rbd

SECTIONS = {
    "backup": section_backup,
    "incremental": section_incremental,
    "clone": section_clone,
    "first-byte": section_first_byte,
    "fuse": section_fuse,
    "nbd": section_nbd,
    "rbd": section_rbd,
    "migrate": section_migrate,
}


def parse_size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    try:
        if text[-1:].upper() in units:
            return int(float(text[:-1]) * units[text[-1].upper()])
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("'%s' is not a size (3G, 512M, ...)" % text)


def parse_arguments():
    lines = ["  %-12s %s" % (name, module.__doc__.strip().splitlines()[0])
             for name, module in SECTIONS.items()]
    parser = argparse.ArgumentParser(
        prog="bench/run", description=__doc__, epilog="sections:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", nargs="+", choices=[*SECTIONS, "all"], metavar="SECTION",
                        help="what to measure, or 'all'")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON document; the progress goes to standard error")
    parser.add_argument("--plot", metavar="DIR",
                        help="also draw each section's tables, into DIR/SECTION.svg")
    parser.add_argument("--only", metavar="REGEX", default="",
                        help="only contestants whose names match (in some sections)")
    parser.add_argument("--size", type=parse_size,
                        help="how much data (default: what the section's target is about)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds (default: 3)")
    parser.add_argument("--seconds", type=int, default=3, help="of each fio run (default: 3)")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR", "/tmp"),
                        help="where to work; all of it is removed again (default: /tmp)")
    arguments = parser.parse_args()
    if arguments.repeat < 1 or arguments.seconds < 1:
        parser.error("--repeat and --seconds are at least 1")
    return arguments


def machine():
    with open("/proc/cpuinfo") as f:
        models = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    version = subprocess.run(["cowgate", "--version"], capture_output=True, text=True)
    return {
        "kernel": platform.release(),
        "processors": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "cowgate": version.stdout.strip(),
    }


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started ends with it
    if not shutil.which("cowgate"):
        sys.exit("bench/run: there is no cowgate: build it, and run ./run bench/run from there")
    names = list(SECTIONS) if "all" in arguments.section else arguments.section
    document = {"machine": machine(), "sections": []}
    failed = False
    for name in names:
        with harness.Bench(name, arguments) as bench:
            try:
                SECTIONS[name].run(bench)
            except (harness.Failure, OSError) as e:
                bench.say("FAILED: %s" % e)
                bench.failure = str(e)
                failed = True
            document["sections"].append(bench.result())
            if arguments.plot:
                os.makedirs(arguments.plot, exist_ok=True)
                plot.section(bench.result(), os.path.join(arguments.plot, name + ".svg"))
            if not arguments.json:
                bench.print_tables()
    if arguments.json:
        json.dump(document, sys.stdout, indent=2)
        print()
    sys.exit(1 if failed else 0)


main()
