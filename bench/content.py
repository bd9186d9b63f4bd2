"""Images with real files in them."""

import os

from harness import Failure

SOURCES = ["/usr", "/opt", "/var/lib", "/home"]


def stage(bench, size):
    """A folder with about size bytes of this machine's own files, as links where that's possible."""
    root, total = bench.path("staged"), 0
    for source in SOURCES:
        for folder, folders, files in os.walk(source):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                try:
                    length = -(-os.lstat(path).st_size // 4096) * 4096  # whole blocks
                    if os.path.islink(path) or not os.path.isfile(path):
                        continue
                    if total + length > size:
                        return root, total
                    target = root + path
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    try:
                        os.link(path, target)
                    except OSError:
                        bench.command("cp", path, target)
                except OSError:
                    continue
                total += length
    return root, total


def image(bench, size):
    """A raw image of size bytes: ext4, nine tenths full of real files."""
    path = bench.path("image.raw")
    bench.say("making an image of %.1f GiB of real files" % (size / (1 << 30)))
    root, total = stage(bench, size * 9 // 10)
    with open(path, "wb") as f:
        f.truncate(size)
    bench.command("mkfs.ext4", "-q", "-F", "-m", "0", "-d", root, path)
    bench.remove("staged")
    used = os.stat(path).st_blocks * 512
    if total < size // 2:
        bench.note("this machine has only %.1f GiB of files to fill the image with" %
                   (total / (1 << 30)))
    bench.note("the image: %.2f GiB, of which %.2f GiB are data" % (size / (1 << 30),
                                                                  used / (1 << 30)))
    if used == 0:
        raise Failure("the image is empty")
    return path


def data_extents(f):
    """The offset and end of each stretch of data."""
    offset = 0
    while True:
        try:
            offset = os.lseek(f.fileno(), offset, os.SEEK_DATA)
        except OSError:  # none from here on
            return
        end = os.lseek(f.fileno(), offset, os.SEEK_HOLE)
        yield offset, end
        offset = end


def warm(path):
    """Its data into the page cache.  Not its holes: what is read of them there are large folios of
    zeros, in which ext4 then takes 75 us for each 4 KiB that are written."""
    with open(path, "rb", buffering=0) as f:
        for offset, end in data_extents(f):
            while offset < end:
                offset += len(os.pread(f.fileno(), min(1 << 20, end - offset), offset))
