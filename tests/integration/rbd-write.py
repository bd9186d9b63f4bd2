"""rbd-write.py IMAGE SEED OFFSET+LENGTH ...: writes noise to an image of the pool rbd by librbd
itself; with the seed "trim" discards instead.  Sizes take K, M and G."""
import random
import sys

import rados
import rbd


def size(text):
    unit = {"K": 10, "M": 20, "G": 30}.get(text[-1])
    return int(text) if unit is None else int(text[:-1]) << unit


def main(image, seed, *ranges):
    noise = random.Random(seed)
    with rados.Rados(conffile="") as cluster, cluster.open_ioctx("rbd") as pool:
        with rbd.Image(pool, image) as im:
            for offset, length in (map(size, r.split("+")) for r in ranges):
                if seed == "trim":
                    im.discard(offset, length)
                    continue
                for at in range(offset, offset + length, 4 << 20):
                    im.write(noise.randbytes(min(4 << 20, offset + length - at)), at)


main(*sys.argv[1:])
