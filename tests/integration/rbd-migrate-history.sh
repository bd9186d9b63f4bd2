#!/bin/bash
# Twelve points of a volume whose size changes, with zeroed ranges and one point pruned, imported at
# once: each point is a snapshot of the new image, byte by byte, and takes only what changed; a backup
# and a prune meanwhile change nothing in it.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/history-functions.sh"
. "$abs_srcdir/tests/integration/rbd-migrate-functions.sh"
start_ceph
begin_root
make_history 160M 150M 200M 230687232 # 220 MiB and a sector
n=0
while read -r point; do
    n=$((n + 1))
    cowgate --quiet export "$point" ./point$n.raw
done <points
sed 's|.*/||' points >tags

snapshots_are_points() {
    local n=0 tag
    rbd snap ls --format json moved | jq -r '.[].name' | diff tags -
    while read -r tag; do
        n=$((n + 1))
        rbd export --no-progress "moved@$tag" - | cmp - point$n.raw || fail "moved@$tag"
    done <tags
}

start_moving "$last.qcow2" point11.raw
snapshots_are_points
use_it

# The history is kept as it is, and goes on without it.
must_fail 1 'held|hold' cowgate delete "$(sed -n 3p points)"
start_serve "$tmp/sock"
qemu-io -f raw -c 'write -P 99 0 12M' "$(uri "$tmp/sock" volumes/acme/web)" >>qemu-io.log
stop "$serve_pid"
cowgate backup volumes/acme/web | tail -n 1 >later
cowgate --quiet export "$(cat later)" ./later.raw
remember_root
fill_it_in_use
snapshots_are_points
end_moving
snapshots_are_points
cowgate --quiet export "$(cat later)" - | cmp - later.raw
cowgate delete "$(sed -n 3p points)"

# delta A B: the bytes of those 4 MiB objects of B that differ from A's.
delta() {
    python3 -c '
import sys
n, size = 0, 4 << 20
with open(sys.argv[1], "rb") as a, open(sys.argv[2], "rb") as b:
    while y := b.read(size):
        x = a.read(size)
        n += x + bytes(len(y) - len(x)) != y
print(n * size)' "$1" "$2"
}
before=/dev/null
n=0
while read -r tag; do
    n=$((n + 1))
    most=$(delta $before point$n.raw)
    [ "$(used "moved@$tag")" -le "$most" ] || fail "moved@$tag takes $(used "moved@$tag"), not $most: $(rbd du moved)"
    before=point$n.raw
done <tags
