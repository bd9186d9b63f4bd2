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
thaw_osd
write_one 0
nbdinfo "$(uri short rbd/rbd/fresh)" >nbdinfo.log

# The cluster shuts this client out, as it does when another breaks its lock: that is an error until
# the image is opened again.
wait_for 30 eval 'rbd status web --format json | jq -er ".watchers[0].address" >address'
ceph osd blocklist add "$(cat address)" >>ceph.log 2>&1
write_one 'E.*'
says short.log 'the cluster has shut this client out'
stop_holder
nbd_python "$tool" interleave "$(uri short rbd/rbd/web)" "$web"

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
