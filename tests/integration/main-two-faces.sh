# While NBD writes a volume, FUSE and export read it as of the moment they opened it; a second writer
# is refused, and the message names the holder.
. "$abs_srcdir/tests/functions.sh"
requires test -c /dev/fuse

cowgate init
cowgate create volumes/acme/web --size 64M
start_serve "$tmp/s"
at="$(uri "$tmp/s" volumes/acme/web)"

# A writer that stays connected: it writes pattern N to the whole volume whenever it's told N.
cat >writer.py <<'PY'
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
for line in sys.stdin:
    n = int(line)
    for off in range(0, 64 << 20, 1 << 20):
        h.pwrite(bytes([n]) * (1 << 20), off)
    print("done", n, flush=True)
h.shutdown()
PY
coproc WRITER { /usr/bin/python3 writer.py "$at"; }
writer=$WRITER_PID # bash forgets it when the process ends
write() { echo "$1" >&"${WRITER[1]}"; read -r answer <&"${WRITER[0]}"; [ "$answer" = "done $1" ] || fail "writer: $answer"; }
all() { tr -d "\\$(printf %03o "$2")" <"$1" | cmp -s - /dev/null || fail "$1 is not all $2"; }

write 1
mkdir mnt
cowgate mount mnt
cleanup_fn sh -c "cowgate umount $tmp/mnt 2>/dev/null"
exec 5<mnt/volumes/acme/web
write 2
[ "$(head -c 67108864 <&5 | tr -d '\001' | wc -c)" = 0 ] || fail "FUSE doesn't see the moment of its open"
exec 5<&-
[ "$(tr -d '\002' <mnt/volumes/acme/web | wc -c)" = 0 ] || fail "a new open doesn't see what was written"
cowgate export volumes/acme/web - >live.raw
all live.raw 2
write 3
cowgate export volumes/acme/web - >live.raw
all live.raw 3

# The second writer.
printf x | dd of=mnt/volumes/acme/web bs=512 conv=notrunc status=none 2>dd.err && fail "FUSE could write too"
must_fail 1 "$serve_pid" cowgate --quiet restore "$(cowgate --quiet backup volumes/acme/web)" volumes/acme/web
must_fail 1 "$serve_pid|in use" cowgate rollback volumes/acme/web@"$(cowgate --json list volumes/acme | jq -r '.[].name' | sed -n 's/.*@//p' | head -n 1)"
must_fail 1 "$serve_pid|in use" cowgate delete --snapshots volumes/acme/web
cowgate snapshot volumes/acme/web@live
write 4
cowgate export volumes/acme/web@live - >live.raw
all live.raw 3
exec {WRITER[1]}>&-
wait "$writer" || fail "the writer saw an error"
cowgate export volumes/acme/web - >live.raw
all live.raw 4
