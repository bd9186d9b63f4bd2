"""NBD servers on unix sockets."""

import os
import socket


def answers(path):
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(path)
            return s.recv(8) == b"NBDMAGIC"
    except OSError:
        return False


def serve(bench, name, *argv):
    """A server that listens on bench.path(name): argv with SOCKET replaced by that."""
    path = bench.path(name)
    if os.path.exists(path):
        os.unlink(path)
    argv = [path if a == "SOCKET" else a for a in argv]
    return bench.start(argv, lambda: answers(path), name + ".log")


def cowgate(bench, name, *options):
    return serve(bench, name, "cowgate", "serve", "--socket", "SOCKET", *options)


def uri(bench, name, export=""):
    return "nbd+unix:///%s?socket=%s" % (export, bench.path(name))
