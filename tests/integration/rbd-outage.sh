#!/bin/bash
# The cluster goes away under a writer: a short outage is a wait, a long one an error, and then it goes
# on.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
. "$abs_srcdir/tests/integration/rbd-functions.sh"
start_ceph
cowgate init
configure '{}'
rbd create web --size 64M
rbd create fresh --size 1M
start_serve sock
web=$(uri sock rbd/rbd/web)
cleanup_fn thaw_osd

# After an outage the cluster may take longer than 3 s to be itself: then the same client writes again.
writes_again() {
    echo >&5
    written=$((written + 1))
    wait_for 40 last_line "$written" '.*'
    last_line "$written" 0
}

# The OSD stops for 20 s in the middle of writing and verifying: a wait, no error.
(sleep 3 && freeze_osd && sleep 20 && thaw_osd) &
fio --name=verify --ioengine=nbd --uri="$web" --rw=randwrite --bs=4k --iodepth=16 --numjobs=2 \
    --size=8m --offset_increment=8m --time_based --runtime=12 --rate_iops=500 --verify=crc32c \
    --verify_fatal=1 --do_verify=1 --verify_backlog=64 --output=fio.log || fail "$(cat fio.log)"
wait $!

# Longer than the time limit: an error that says so, and then it goes on by itself.
configure '{"timeout": 3}'
start_serve short
short_pid=$serve_pid
start_holder "$(uri short rbd/rbd/web)"
write_one 0
freeze_osd
write_one 'E.*'
says short.log "write rbd/rbd/web: the cluster didn't answer within 3 s"
write_one 'E.*'

# Nothing else hangs either.
must_fail 1 'answer within 3 s' cowgate info rbd/rbd/web
must_fail 1 'timed out|answer within 3 s' cowgate list rbd/
must_fail 1 'answer within 3 s' cowgate create rbd/rbd/new --size 1M
must_fail 1 'answer within 3 s' cowgate export rbd/rbd/web ./web.raw
must_fail 1 fresh nbdinfo "$(uri short rbd/rbd/fresh)"
says short.log "open rbd/rbd/fresh: the cluster didn't answer within 3 s"
must_fail 1 'Input/output error' nbdinfo --map "$(uri short rbd/rbd/web)"
says short.log "ask for the extents of rbd/rbd/web: the cluster didn't answer within 3 s"

# However often one asks, threads don't pile up.
threads() { sed -n 's/^Threads:\t//p' "/proc/$short_pid/status"; }
few=$(($(threads) + 64))
nbd_python - "$(uri short rbd/rbd/web)" <<'P'
import nbd, sys
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])
asked = [h.aio_block_status(1 << 20, 0, lambda *a: None) for _ in range(96)]
while asked:
    h.poll(-1)
    for cookie in asked[:]:
        try:
            if h.aio_command_completed(cookie):
                sys.exit("the cluster is away, but it answers")
        except nbd.Error:
            asked.remove(cookie)
P
[ "$(threads)" -lt $few ] || fail "$(threads) threads, not less than $few"
thaw_osd
wait_for 60 writes_again
wait_for 60 nbdinfo "$(uri short rbd/rbd/fresh)"

# The cluster shuts this client out, as it does when another breaks its lock: that is an error until
# the image is opened again.
wait_for 30 eval 'rbd status web --format json | jq -er ".watchers[0].address" >address'
ceph osd blocklist add "$(cat address)" >>ceph.log 2>&1
write_one 'E.*'
says short.log 'the cluster has shut this client out'
stop_holder
writes() { [ "$(nbd_python "$tool" hold "$1" <(echo))" = 0 ]; }
wait_for 60 writes "$(uri short rbd/rbd/web)" # the lock that it had may take longer to break than 3 s
start_holder "$(uri short rbd/rbd/web)"
write_one 0
# Another image opens at once, though it is the first to see it.
wait_for 30 eval 'rbd status web --format json | jq -er ".watchers[0].address" >address'
ceph osd blocklist add "$(cat address)" >>ceph.log 2>&1
nbd_python "$tool" hold "$(uri short rbd/rbd/fresh)" <(echo) >fresh.out
[ "$(cat fresh.out)" = 0 ] || fail "$(cat fresh.out)"
stop_holder
wait_for 60 writes "$(uri short rbd/rbd/web)"
nbdcopy "$web" - | cmp - <(nbdcopy "$(uri short rbd/rbd/web)" -)

# With the cluster away it ends in time; that it couldn't flush may be a failure.
start_holder "$(uri short rbd/rbd/web)"
write_one 0
freeze_osd
write_one 'E.*'
stop_holder
kill "$short_pid"
r=0
wait "$short_pid" || r=$?
[ $r -le 1 ] || fail "it ended with $r: $(cat short.log)"
thaw_osd
nbdcopy "$web" copy.raw

# A pool that is away is waited for by those who want it, and by nobody else.
ceph osd pool create away 8 >>ceph.log 2>&1
rbd pool init away
rbd create away/web --size 1M
ceph osd pool set away size 3 >>ceph.log 2>&1
ceph osd pool set away min_size 3 >>ceph.log 2>&1
wait_for 30 eval '! timeout 10 rados -p away stat rbd_directory'
configure '{"timeout": 600}'
start_serve long
nbdinfo --size "$(uri long rbd/away/web)" >away.out 2>&1 &
away=$!
cleanup_fn stop $away
sleep 1 # in which it begins to wait
[ "$(timeout 60 nbdinfo --size "$(uri long rbd/rbd/fresh)")" = 1048576 ] || fail "it waits for the other pool"
kill -0 $away
ceph osd pool set away min_size 1 >>ceph.log 2>&1
wait $away || fail "$(cat away.out)"
