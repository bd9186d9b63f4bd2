"""write URI SEED SIZE: random writes, trims and zeroes.
check URI DIFF.json EXPORT: the extents of the export cover it once; a hole reads as zeros in the
image that rbd exported, which may end within its last sector; the data is where `rbd diff --format json` says it is."""
import json
import random
import sys

import nbd


def extents(h):
    """[[start, end, type]...], asked for in requests of odd sizes; equal neighbours joined."""
    found = []
    size, at = h.get_size(), 0
    while at < size:
        count = min(size - at, random.choice(((1 << 32) - 512, (1 << 22) + 1536, 9 << 22)))
        got = []

        def fn(metacontext, offset, entries, err):
            assert offset == at
            got.extend(zip(entries[::2], entries[1::2]))

        h.block_status(count, at, fn)
        told = 0
        for length, kind in got:
            length = min(length, count - told)
            if found and found[-1][2] == kind:
                found[-1][1] += length
            else:
                found.append([at + told, at + told + length, kind])
            told += length
        assert 0 < told <= count, (at, got)
        at += told
    return found


def write(h, seed, size):
    rnd = random.Random(int(seed))
    size = int(size)
    assert h.get_size() == (size + 511) // 512 * 512
    for _ in range(60):
        length = min(size, rnd.choice((512, 4096, 65536, 1 << 20, 5 << 20)))
        at = rnd.randrange(size - length + 1)
        if length >= 4096:
            at -= at % 4096
        what = rnd.random()
        if what < 0.5:
            h.pwrite(rnd.randbytes(length), at)
        elif what < 0.8:
            h.trim(length, at)
        else:
            h.zero(length, at, rnd.choice((0, nbd.CMD_FLAG_NO_HOLE)))


def check(h, diff, exported):
    want = []
    for d in sorted(json.load(open(diff)), key=lambda d: int(d["offset"])):
        if d["exists"] != "true":
            continue
        start, end = int(d["offset"]), int(d["offset"]) + int(d["length"])
        if want and want[-1][1] >= start:
            want[-1][1] = max(end, want[-1][1])
        else:
            want.append([start, end])
    told = extents(h)
    with open(exported, "r+b") as f:
        f.truncate(h.get_size())
        for start, end, kind in told:
            f.seek(start)
            while kind and start < end:
                piece = f.read(min(end - start, 1 << 22))
                assert piece.count(0) == len(piece) > 0, f"no zeros in the hole at {start}"
                start += len(piece)
    data = [[start, end] for start, end, kind in told if not kind]
    assert data == want, f"{data}\n{want}"


h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.set_strict_mode(0)
h.connect_uri(sys.argv[2])
globals()[sys.argv[1]](h, *sys.argv[3:])
h.shutdown()
