"""What the sections share: a folder, commands, rounds, medians, tables."""

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


class Failure(Exception):
    pass


def drop_caches():
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


def have(*programs):
    return all(shutil.which(p) for p in programs)


class Measure:
    """One table: contestants by name, each with a value per round.  ours is the one that its peers
    are compared with; or base is the one that all others are compared with."""

    def __init__(self, name, unit, higher_is_better, ours=None, target=None, digits=2, base=None):
        self.name, self.unit, self.higher_is_better = name, unit, higher_is_better
        self.ours, self.target, self.digits, self.base = ours, target, digits, base
        self.values = {}

    def add(self, contestant, value):
        self.values.setdefault(contestant, []).append(value)

    def median(self, contestant):
        return statistics.median(self.values[contestant])

    def ratio(self, name):
        """How many times better ours is than name, or name than base; None if there's no such."""
        better, worse = (name, self.base) if self.base else (self.ours, name)
        if better == worse or better not in self.values or worse not in self.values:
            return None
        a, b = self.median(better), self.median(worse)
        if not a or not b:
            return None
        return a / b if self.higher_is_better else b / a

    def ratio_says(self, ratio):
        return "%.2f x %s" % (ratio, self.base) if self.base else "cowgate is %.2f x" % ratio

    def result(self):
        rows = []
        for name, values in self.values.items():
            ratio = self.ratio(name)
            rows.append({
                "name": name, "values": values, "median": self.median(name),
                "min": min(values), "max": max(values), "ratio": ratio,
                "ratio_says": None if ratio is None else self.ratio_says(ratio),
            })
        return {"name": self.name, "unit": self.unit, "target": self.target, "digits": self.digits,
                "higher_is_better": self.higher_is_better, "contestants": rows}

    def print_table(self):
        print("\n%s [%s, %s is better]%s" % (
            self.name, self.unit, "more" if self.higher_is_better else "less",
            "  target: " + self.target if self.target else ""))
        for row in self.result()["contestants"]:
            says = row["ratio_says"]
            print("  %-42s %10.*f   (%.*f to %.*f)%s" % (
                row["name"], self.digits, row["median"], self.digits, row["min"], self.digits,
                row["max"], "   " + says if says else ""))


class Bench:
    """One section's run, in a folder that goes with it."""

    def __init__(self, section, arguments):
        self.section, self.arguments = section, arguments
        self.repeat, self.seconds = arguments.repeat, arguments.seconds
        self.measures, self.missing, self.notes = [], [], []
        self.failure = None
        self.undo = []

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="cowgate-bench-", dir=self.arguments.dir)
        self.run_dir = tempfile.mkdtemp(prefix="cowgate-bench-", dir="/dev/shm")
        self.env = dict(os.environ, COWGATE_ROOT=self.path("root"), COWGATE_RUN=self.run_dir,
                        LC_ALL="C", BORG_BASE_DIR=self.path("borg-home"), BORG_PASSPHRASE="bench",
                        BORG_RELOCATED_REPO_ACCESS_IS_OK="yes", RESTIC_PASSWORD="bench",
                        RESTIC_CACHE_DIR=self.path("restic-cache"))
        return self

    def __exit__(self, *ignored):
        for function in reversed(self.undo):
            try:
                function()
            except (Failure, OSError) as e:
                self.say("cleaning up: %s" % e)
        shutil.rmtree(self.dir, ignore_errors=True)
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def size(self, default):
        return self.arguments.size or default

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def say(self, text):
        print("[%s] %s" % (self.section, text), file=sys.stderr, flush=True)

    def note(self, text):
        self.notes.append(text)
        self.say(text)

    def need(self, contestant, *programs):
        """False if the contestant isn't asked for, or, and it's named as left out, if one of its
        programs isn't installed."""
        if not re.search(self.arguments.only, contestant):
            return False
        lacking = [p for p in programs if not have(p)]
        if lacking:
            self.missing.append({"contestant": contestant, "programs": lacking})
            self.say("%s is left out: %s isn't installed" % (contestant, ", ".join(lacking)))
        return not lacking

    def measure(self, *args, **kwargs):
        measure = Measure(*args, **kwargs)
        self.measures.append(measure)
        return measure

    def result(self):
        return {"section": self.section, "rounds": self.repeat, "failure": self.failure,
                "notes": self.notes, "left_out": self.missing,
                "measures": [m.result() for m in self.measures]}

    def print_tables(self):
        print("\n== %s, %d rounds%s" % (self.section, self.repeat,
                                        ": FAILED: " + self.failure if self.failure else ""))
        for text in self.notes:
            print("  " + text)
        for lacking in self.missing:
            print("  left out: %s (%s isn't installed)" % (lacking["contestant"],
                                                           ", ".join(lacking["programs"])))
        for measure in self.measures:
            if measure.values:
                measure.print_table()
        sys.stdout.flush()

    # Commands

    def command(self, *argv, **kwargs):
        """Runs a command that must succeed; its standard output."""
        kwargs.setdefault("cwd", self.dir)
        r = subprocess.run(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, **kwargs)
        if r.returncode != 0:
            raise Failure("'%s' ended with %d: %s" % (" ".join(argv), r.returncode,
                                                      r.stderr.strip()[-2000:]))
        return r.stdout

    def timed(self, *argv, **kwargs):
        """The seconds that such a command takes."""
        start = time.perf_counter()
        self.command(*argv, **kwargs)
        return time.perf_counter() - start

    def cowgate(self, *argv):
        return self.command("cowgate", "--quiet", *argv).strip()

    def remove(self, *names):
        for name in names:
            path = self.path(name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.unlink(path)

    def rounds(self, contestants):
        """Calls each function once a round; the order turns, so that none is always the first."""
        names = list(contestants)
        for i in range(self.repeat if names else 0):
            k = i % len(names)
            for name in names[k:] + names[:k]:
                self.say("round %d of %d: %s" % (i + 1, self.repeat, name))
                contestants[name]()

    # Servers

    def start(self, argv, ready, log, seconds=30):
        """A process in the background, once ready() is true; it's ended with the section."""
        with open(self.path(log), "ab") as f:
            process = subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, stdout=f,
                                       stderr=f, cwd=self.dir)
        self.undo.append(lambda: self.stop(process))
        end = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                with open(self.path(log)) as f:
                    raise Failure("'%s' didn't start: %s" % (" ".join(argv), f.read()[-2000:]))
            time.sleep(0.002)
        return process

    @staticmethod
    def stop(process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def unmount(self, path):
        subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL)


def peak_memory(pid):
    """A process's peak resident memory in MiB."""
    with open("/proc/%d/status" % pid) as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise Failure("no memory figures for process %d" % pid)


def memory(pid):
    """A process's resident memory in MiB, shared memory of its own included, files not."""
    with open("/proc/%d/status" % pid) as f:
        return sum(int(line.split()[1]) for line in f
                   if line.startswith(("RssAnon:", "RssShmem:"))) / 1024


def children_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
