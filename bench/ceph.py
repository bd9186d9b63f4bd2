"""A Ceph cluster of the bench's own, in a network of its own."""

import ctypes
import os

from harness import Failure

CLONE_NEWNET = 0x40000000


def libc(function, *args):
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*args) != 0:
        raise Failure("%s: %s (be root)" % (function, os.strerror(ctypes.get_errno())))


def start(bench):
    """Starts the cluster, with ceph.conf where the tools find it, which turns their cache off; it
    ends with the section, which goes on in its network."""
    outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc("unshare", CLONE_NEWNET)

    def leave():
        libc("setns", outside, CLONE_NEWNET)
        os.close(outside)

    bench.undo.append(leave)
    # Sparse; a history whose snapshots are filled one by one takes its size times their number.
    bench.env.update(CEPH_ALONE="1", TMPDIR=bench.dir, CEPH_OSD_BYTES=str(64 << 30))
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ceph.sh")
    up = bench.path("ceph-is-up")
    bench.start(["bash", script, up], lambda: os.path.exists(up), "ceph.log")
    with open(up) as f:
        conf = f.read().strip()
    with open(conf, "a") as f:
        f.write("[client]\nrbd cache = false\n")
    bench.env["CEPH_CONF"] = conf
