#!/bin/bash
# Gateways that are killed lose no acknowledged write, and several share an image.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-functions.sh"
start_ceph
cowgate init
# A dead client's lock is free soon.
ceph config set osd osd_client_watch_timeout 5
web=$(uri sock rbd/rbd/web)

# Killed under four clients that never flush, with each kind of cache that writes through.
kill_client="$abs_srcdir/tests/integration/nbd-kill-client.py"
for cache in off writethrough; do
    configure "{\"cache\": \"$cache\"}"
    rbd create "killed-$cache" --size 8M
    start_serve sock
    nbd_python "$kill_client" write sock "rbd/rbd/killed-$cache" "state-$cache" "$serve_pid" 1000
    { wait "$serve_pid" || true; } 2>/dev/null
    start_serve sock
    nbd_python "$kill_client" check sock "rbd/rbd/killed-$cache" "state-$cache"
    stop "$serve_pid"
done

# Two gateways on one image: the lock goes to and fro.
configure '{}'
rbd create web --size 64M
start_serve sock
start_serve other
nbd_python "$tool" interleave "$web" "$(uri other rbd/rbd/web)"
[ "$(rbd status web --format json | jq '.watchers | length')" -le 2 ] || fail "somebody still watches"
nbdcopy "$(uri other rbd/rbd/web)" copy.raw
rbd export --no-progress web export.raw
same copy.raw export.raw
stop "$serve_pid"

# Opening, looking and reading take no lock.
rbd create fresh --size 1M
nbdinfo --map "$(uri sock rbd/rbd/fresh)" >map.log
nbdcopy "$(uri sock rbd/rbd/fresh)" null:
[ "$(rbd lock ls fresh --format json)" = '[]' ] || fail "reading took the lock"

# The size that another client gave it is there for the next connection, and the one that is open
# doesn't mind.
start_holder "$(uri sock rbd/rbd/fresh)"
write_one 0
rbd resize --no-progress --size 2M fresh
has_size() { [ "$(nbdinfo --size "$(uri sock rbd/rbd/fresh)")" = "$1" ]; }
wait_for 10 has_size 2097152
write_one 0
stop_holder
