# A full disk: a clear error, nothing half-done under a final name, nothing acknowledged lost, and it
# goes on when there is room.
. "$abs_srcdir/tests/functions.sh"
requires test "$(id -u)" = 0

mkdir small
mount -t tmpfs -o size=24M tmpfs small
cleanup_fn umount -l "$tmp/small"
export COWGATE_ROOT=$tmp/small/root
cowgate init
dd if=/dev/urandom of=big.raw bs=1M count=40 status=none
dd if=/dev/urandom of=fits.raw bs=1M count=8 status=none

must_fail 1 'No space left on device' cowgate --quiet import ./big.raw volumes/acme/big
[ "$(cowgate --json list)" = '[]' ] || fail "a half-done import shows"
[ "$(du -sk small | cut -f1)" -lt 1000 ] || fail "a half-done import takes space: $(du -k small)"

cowgate --quiet import ./fits.raw volumes/acme/web
cowgate --quiet backup volumes/acme/web >first
dd if=/dev/zero of=small/filler bs=1M status=none 2>/dev/null || true

# The point that doesn't fit isn't there, the one that was is right, no snapshot stays.
start_serve "$tmp/s"
qemu-io -f raw -c 'write -P 7 0 4M' "$(uri "$tmp/s" volumes/acme/web)" >log 2>&1 || true
stop "$serve_pid"
before=$(cowgate --json list backups | jq length)
must_fail 1 'No space left on device' cowgate --quiet backup --full ./big.raw backups/acme/big
[ "$(cowgate --json list backups | jq length)" = "$before" ] || fail "a half-done point shows"
cowgate --quiet export "$(cat first)" ./first.raw
same first.raw fits.raw

rm small/filler
cowgate --quiet backup volumes/acme/web >second
cowgate --quiet verify
cowgate --quiet export "$(cat second)" ./second.raw
cowgate --quiet export volumes/acme/web ./web.raw
same second.raw web.raw

# A destination that is too small.
truncate -s 1M short.raw
must_fail 1 'target has 1048576 bytes, the point 8388608' cowgate --quiet restore "$(cat first)" ./short.raw
[ "$(stat -c %s short.raw)" = 1048576 ] || fail "the short file was changed"
