"""Writes a volume over NBD without ever flushing, from several threads, while the server is killed;
then checks, over a new server, that every acknowledged write is there.

    nbd-kill-client.py write SOCKET NAME STATE PID ACKNOWLEDGED
    nbd-kill-client.py check SOCKET NAME STATE

With PID 0 it kills nobody, and writes until the server dies or so many writes were acknowledged.
The state file holds, for each sector, what it may be: after an acknowledged write exactly that, and
after one that was under way either of the two.
"""
import os
import pickle
import random
import signal
import sys
import threading

import nbd

SECTOR = 512
PART = 4096  # sectors of each thread
THREADS = 4


def connect(socket, name):
    h = nbd.NBD()
    h.set_export_name(name)
    h.connect_unix(socket)
    return h


def content(seq, sector):
    """What write number seq puts into a sector; 0 is what was there first, or zeros."""
    if seq == 0:
        return bytes(SECTOR)
    return b"%015d %015d " % (seq, sector) * (SECTOR // 32)


class Writer(threading.Thread):
    """One request at a time over one connection, in its own part of the volume."""

    enough = False

    def __init__(self, number, state, on_acknowledged):
        super().__init__()
        self.number = number
        self.state = state  # sector -> list of possible write numbers
        self.on_acknowledged = on_acknowledged
        self.nbd = connect(sys.argv[2], sys.argv[3])
        self.seq = 1 + max((max(v) for v in state.values()), default=0)
        self.random = random.Random(number * 1000003 + self.seq)

    def one(self, h):
        first = self.number * PART + self.random.randrange(PART)
        # Mostly small, at any sector; some large; most blocks are written in part.
        count = self.random.choice([1, 1, 2, 3, 7, 8, 8, 8, 16, 33, 300])
        count = min(count, (self.number + 1) * PART - first)
        seq = 0 if self.random.random() < 0.2 else self.seq
        self.seq += 1
        sectors = range(first, first + count)
        for s in sectors:
            self.state[s] = self.state.get(s, [0]) + [seq]
        if seq:
            h.pwrite(b"".join(content(seq, s) for s in sectors), first * SECTOR)
        else:
            h.zero(count * SECTOR, first * SECTOR, self.random.choice([0, nbd.CMD_FLAG_NO_HOLE]))
        for s in sectors:
            self.state[s] = [seq]
        self.on_acknowledged()

    def run(self):
        try:
            while not Writer.enough:
                self.one(self.nbd)
        except nbd.Error as e:
            self.error = str(e)


def load(path):
    if not os.path.exists(path):
        return [{} for _ in range(THREADS)]
    with open(path, "rb") as f:
        return pickle.load(f)


def write():
    pid, limit = int(sys.argv[5]), int(sys.argv[6])
    state = load(sys.argv[4])
    lock = threading.Lock()
    count = 0

    def on_acknowledged():
        nonlocal count
        with lock:
            count += 1
            if count == 1:
                open(sys.argv[4] + ".begun", "w").close()
            if count == limit and pid:
                os.kill(pid, signal.SIGKILL)
            Writer.enough = count >= limit and not pid

    writers = [Writer(i, state[i], on_acknowledged) for i in range(THREADS)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    print(count, "writes were acknowledged")
    if count < limit and pid:
        sys.exit(f"only {count} writes were acknowledged: {[w.error for w in writers]}")
    with open(sys.argv[4], "wb") as f:
        pickle.dump(state, f)


def check():
    h = connect(sys.argv[2], sys.argv[3])
    state = load(sys.argv[4])
    wrong = 0
    for part in state:
        for sector in sorted(part):
            got = bytes(h.pread(SECTOR, sector * SECTOR))
            found = [s for s in part[sector] if content(s, sector) == got]
            if not found:
                wrong += 1
                if wrong <= 5:
                    print(f"sector {sector}: {got[:32]!r}, not one of {part[sector]}")
            part[sector] = found[:1]
    print(sum(len(p) for p in state), "sectors looked at")
    if wrong:
        sys.exit(f"{wrong} sectors are wrong")
    with open(sys.argv[4], "wb") as f:
        pickle.dump(state, f)


write() if sys.argv[1] == "write" else check()
