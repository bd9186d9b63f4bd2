"""rbd migration execute from a point against nbdkit file, a history against raw snapshots, live restore

One cluster with one OSD on this machine.  Streams go over nbd where librbd has that (from Ceph 19.2.3
on), else over file: then the point is read in a mount, and the peer is the plain file.
"""

import json
import os
import subprocess
import time

import ceph
import content
import harness
import section_rbd
import servers

OURS = "cowgate"
POINTS = 12


def has_nbd_stream(bench):
    spec = '{"type":"raw","stream":{"type":"nbd","uri":"nbd+unix:///?socket=/nonexistent/s"}}'
    r = subprocess.run(["rbd", "migration", "prepare", "--import-only", "--source-spec", spec,
                        "rbd/probe"], env=bench.env, capture_output=True, text=True)
    return "not implemented" not in r.stderr


class Streams:
    """Serves the root, and a raw file, by the stream that there is."""

    def __init__(self, bench):
        self.bench, self.nbd = bench, has_nbd_stream(bench)
        if self.nbd:
            servers.cowgate(bench, "stream", "--read-only")
            self.address = servers.uri(bench, "stream")
        else:
            self.address = bench.path("mounted")
            os.mkdir(self.address)
            bench.start(["cowgate", "mount", "--foreground", "--read-only", self.address],
                        lambda: os.path.ismount(self.address), "mount.log")
            bench.undo.append(lambda: bench.unmount(self.address))
        bench.note("librbd's stream here: " + ("nbd" if self.nbd else "file"))

    def spec(self, name):
        return json.loads(self.bench.cowgate("migrate", "spec", name, "--advertise", self.address))

    def peer(self, raw):
        """The name of the peer, and the spec of a raw file by it."""
        if not self.nbd:
            return "the plain file", {"type": "raw", "stream": {"type": "file", "file_path": raw}}
        servers.serve(self.bench, "peer", "nbdkit", "-f", "-r", "-U", "SOCKET", "file", raw)
        return "nbdkit file", {"type": "raw", "stream": {"type": "nbd",
                                                         "uri": servers.uri(self.bench, "peer")}}


def execute(bench, spec):
    """Seconds of filling an image from a spec; the image goes again."""
    bench.command("rbd", "migration", "prepare", "--import-only", "--source-spec", json.dumps(spec),
                  "rbd/target")
    seconds = bench.timed("rbd", "migration", "execute", "--no-progress", "rbd/target")
    bench.command("rbd", "migration", "commit", "--no-progress", "rbd/target")
    bench.command("rbd", "snap", "purge", "--no-progress", "rbd/target")
    bench.command("rbd", "rm", "--no-progress", "rbd/target")
    return seconds


def from_a_point(bench, streams, raw, point):
    table = bench.measure("execute from a point of %.1f GiB" % (os.stat(raw).st_size / (1 << 30)),
                          "s", False, OURS, "0.9 x nbdkit file")
    name, peer = streams.peer(raw)
    bench.rounds({
        OURS: lambda: table.add(OURS, execute(bench, streams.spec(point))),
        name: lambda: table.add(name, execute(bench, peer)),
    })


def whole_history(bench, streams, points):
    raw = "%d raw snapshots in one spec" % len(points)
    table = bench.measure("import of %d points with 1 %% changed each" % len(points), "s", False,
                          OURS, "5 x %s" % raw)

    def snapshots():
        spec = streams.spec(points[-1])
        spec["snapshots"] = [dict(streams.spec(p), name=p.split("/")[-1]) for p in points]
        return spec

    bench.rounds({
        OURS: lambda: table.add(OURS, execute(bench, streams.spec(points[-1] + ".qcow2"))),
        raw: lambda: table.add(raw, execute(bench, snapshots())),
    })


def live(bench, point, target, what):
    """From the command's start to the first 4 KiB, and reads while it's filled."""
    first = bench.measure("live restore into %s: first read" % what, "s", False, target="1 s")
    late = bench.measure("live restore into %s: 99th percentile of 4 KiB random reads meanwhile"
                         % what, "ms", False, target="100 ms", digits=1)
    uri = servers.uri(bench, "live", target)
    server = servers.cowgate(bench, "live")
    for _ in range(bench.repeat):
        start = time.perf_counter()
        restore = subprocess.Popen(["cowgate", "--quiet", "restore", "--live", point, target],
                                   env=bench.env)
        while subprocess.run(["qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", uri], env=bench.env,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            if restore.poll() not in (None, 0):
                raise harness.Failure("restore --live ended with %d" % restore.returncode)
        first.add(OURS, time.perf_counter() - start)
        out = bench.command("fio", "--name=live", "--ioengine=nbd", "--uri=" + uri,
                            "--rw=randread", "--bs=4k", "--iodepth=1", "--time_based",
                            "--runtime=%d" % bench.seconds, "--output-format=json")
        if restore.poll() is not None:
            bench.note("%s was full before the reads ended: take more data" % what)
        job = json.loads(out[out.index("{"):])["jobs"][0]
        late.add(OURS, job["read"]["clat_ns"]["percentile"]["99.000000"] / 1e6)
        if restore.wait() != 0:
            raise harness.Failure("restore --live ended with %d" % restore.returncode)
        bench.stop(server)
        bench.cowgate("delete", target)
        server = servers.cowgate(bench, "live")
    bench.stop(server)


def change(bench, raw, size, seed):
    bench.command("fio", "--name=change", "--filename=" + raw, "--rw=randwrite", "--bs=4M",
                  "--size=%d" % size, "--io_size=%d" % (size // 100), "--refill_buffers",
                  "--randseed=%d" % seed)


def run(bench):
    if not bench.need(OURS, "fio", "rbd", "ceph-osd", "ip", "qemu-io"):
        return
    ceph.start(bench)
    section_rbd.new_root(bench)
    size = bench.size(1 << 30)
    raw = content.image(bench, size)
    points = [bench.cowgate("backup", raw, "backups/bench/image")]
    copy = bench.path("copy.raw")
    bench.command("cp", "--sparse=always", raw, copy)
    for i in range(1, POINTS):
        change(bench, copy, size, i)
        points.append(bench.cowgate("backup", copy, "backups/bench/image"))
    os.unlink(copy)
    streams = Streams(bench)
    from_a_point(bench, streams, raw, points[0])
    whole_history(bench, streams, points)
    live(bench, points[0], "volumes/bench/live", "a volume")
    live(bench, points[0], "rbd/rbd/live", "RBD")
