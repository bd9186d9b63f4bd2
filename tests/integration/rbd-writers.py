"""interleave URI OTHER-URI: two clients write every other sector, both at once, then check all of
them through either.
hold URI COMMANDS: a client that writes a sector for each line of the fifo COMMANDS, and says how it
went: "0" or an errno's name."""
import sys
import threading

import nbd

SECTORS = 400


def client(uri):
    h = nbd.NBD()
    h.connect_uri(uri)
    return h


def interleave(*uris):
    failures = []

    def write(uri, which):
        try:
            h = client(uri)
            for i in range(which, SECTORS, 2):
                h.pwrite(i.to_bytes(2, "big") * 256, i * 512)
        except nbd.Error as e:
            failures.append(e)

    threads = [threading.Thread(target=write, args=(u, n)) for n, u in enumerate(uris)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures
    for uri in uris:
        h = client(uri)
        for i in range(SECTORS):
            assert h.pread(512, i * 512) == i.to_bytes(2, "big") * 256, f"sector {i} of {uri}"


def hold(uri, commands):
    h = client(uri)
    for n, _ in enumerate(open(commands)):
        try:
            h.pwrite(bytes([n + 1]) * 512, n * 512)
            print("0", flush=True)
        except nbd.Error as e:
            print(e.errno, flush=True)


globals()[sys.argv[1]](*sys.argv[2:])
