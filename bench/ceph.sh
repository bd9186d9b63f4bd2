#!/bin/bash
# A Ceph cluster for the bench, until SIGTERM: ceph.sh FILE.  When FILE appears, it's up, and it
# holds the path of its ceph.conf.  CEPH_ALONE is set: the bench made the network.
. "$abs_srcdir/tests/functions.sh"
. "$abs_srcdir/tests/integration/ceph-functions.sh"
start_ceph
echo "$CEPH_CONF" >"$1.new"
mv "$1.new" "$1"
sleep infinity &
cleanup_fn kill $!
wait
